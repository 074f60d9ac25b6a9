"""For the product's own tests."""

from hypothesis import HealthCheck, settings
from support.drawing import (  # noqa: F401 - hooks of pytest
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_report_collectionfinish,
)

# How long an example takes says something of the machine and of what else it does: no test fails for that.
# `print_blob` prints the line that repeats a failure. What CI makes hypothesis do by itself is taken back.
settings.register_profile(
    "desk", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False, print_blob=True
)
# A gate must give the same answer twice: it draws the same examples every time. At a desk, every run draws new ones.
settings.register_profile("gate", settings.get_profile("desk"), derandomize=True, database=None)
settings.load_profile("desk")
