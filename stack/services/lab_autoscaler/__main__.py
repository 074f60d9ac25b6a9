"""The sidecar: `python -m lab_autoscaler`, or with `simulate FILE` a simulation."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Each has packages and a start time that the other does not need.
    if sys.argv[1:2] == ["simulate"]:
        from lab_autoscaler import simulation

        sys.exit(simulation.main(sys.argv[2:]))
    if sys.argv[1:]:
        sys.exit("lab_autoscaler: expected no argument, or the word simulate and a file")
    from lab_autoscaler import sidecar

    sys.exit(sidecar.serve())
