"""For the product's own tests."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine and of what else it does: no test fails for that.
settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A gate must give the same answer twice: it draws the same examples every time. At a desk, every run draws new ones.
settings.register_profile("gate", settings.get_profile("desk"), derandomize=True)
settings.load_profile("gate" if os.environ.get("CI") else "desk")
