"""For the product's own tests."""

import os

from hypothesis import settings

# A gate must give the same answer twice: it draws the same examples every time. At a desk, every run draws new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")
