"""Pytest configuration of the project's own tests."""

from hypothesis import HealthCheck, settings
from support.drawing import (  # noqa: F401 - hooks of pytest
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_report_collectionfinish,
)

# An example's duration depends on the machine, so no test fails for it. `print_blob`
# prints the line that repeats a failure. hypothesis' own settings for CI are replaced.
settings.register_profile(
    "desk", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False, print_blob=True
)
# The gate draws the same examples every time. Other runs draw new ones.
settings.register_profile("gate", settings.get_profile("desk"), derandomize=True, database=None)
settings.load_profile("desk")
