"""The simulated engine, with a header that names it in each response.

python3 engine.py NAME
"""

import sys

from lab_engine import __main__ as program
from lab_engine import server


def named(make, name):
    """Return a maker of applications whose responses have the header `x-engine`."""

    async def add(_request, response):
        response.headers["x-engine"] = name

    def application(engine):
        app = make(engine)
        app.on_response_prepare.append(add)
        return app

    return application


if __name__ == "__main__":
    server.application = named(server.application, sys.argv[1])
    sys.exit(program.main())
