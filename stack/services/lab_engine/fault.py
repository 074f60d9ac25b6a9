"""Client of the admin port, for use inside the container.

Run `python -m lab_engine.fault`. The port is on loopback, out of reach of other
programs.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request

from lab_common.addresses import authority, loopback_of


def main(arguments: list[str] | None = None) -> int:
    """Print the admin port's answer. Exit status 1 if it refuses, 2 if it is closed."""
    parser = argparse.ArgumentParser(prog="python -m lab_engine.fault", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start", help="start a fault").add_argument("json", help='{"kind": "hang", "lease_s": 30}')
    verbs.add_parser("list", help="all faults with their counters")
    verbs.add_parser("end", help="end a fault").add_argument("id", help="the id that `start` printed")
    given = parser.parse_args(arguments)
    port = os.environ.get("LAB_ADMIN_PORT") or str(int(os.environ.get("LAB_PORT") or "8080") + 1)
    address = authority(loopback_of(os.environ.get("LAB_HOST") or ""), int(port))
    path = f"/faults/{given.id}" if given.verb == "end" else "/faults"
    request = urllib.request.Request(
        f"http://{address}{path}",
        data=given.json.encode() if given.verb == "start" else None,
        method={"start": "POST", "list": "GET", "end": "DELETE"}[given.verb],
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - as above
            sys.stdout.write(response.read().decode() + "\n")
            return 0
    except urllib.error.HTTPError as error:
        sys.stderr.write(error.read().decode() + "\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"no admin port on {address} ({error}): is this the engine's container?\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
