"""The simulated engine, with a header that names it in each response.

python3 engine.py NAME
"""

import sys

from lab_engine import __main__ as program
from lab_engine import server

NAME = sys.argv[1]
unnamed = server.application


def application(engine):
    app = unnamed(engine)
    app.on_response_prepare.append(name)
    return app


async def name(_request, response):
    response.headers["x-engine"] = NAME


server.application = application
sys.exit(program.main())
