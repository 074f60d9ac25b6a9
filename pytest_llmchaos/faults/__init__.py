"""The catalogue of faults. Names only; each lives in a file of its own."""

from pytest_llmchaos.faults.compose import random, sequence, together
from pytest_llmchaos.faults.crash import crash
from pytest_llmchaos.faults.kill import kill
from pytest_llmchaos.faults.none import none
from pytest_llmchaos.faults.overload import overload
from pytest_llmchaos.faults.pause import pause
from pytest_llmchaos.faults.restart import restart

__all__ = ["crash", "kill", "none", "overload", "pause", "random", "restart", "sequence", "together"]
