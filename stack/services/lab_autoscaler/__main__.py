"""Simulated runs: `python -m lab_autoscaler simulate FILE`."""

from __future__ import annotations

import sys

from lab_autoscaler import simulation

if __name__ == "__main__":
    if sys.argv[1:2] != ["simulate"]:
        sys.exit("lab_autoscaler: expected the word simulate and a file")
    sys.exit(simulation.main(sys.argv[2:]))
