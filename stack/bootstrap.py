"""Set-up of Docker Engine and the lab's images, safe to repeat.

    python stack/bootstrap.py all                   engine, images of one backend
    python stack/bootstrap.py engine                Docker Engine, Compose v2, buildx
    python stack/bootstrap.py images --backend sim  images that the backend lacks
    python stack/bootstrap.py images --agents       the image of the lab's agents, too
    python stack/bootstrap.py agent                 image of the fault agent alone
    python stack/bootstrap.py programs              haproxy and a browser, for the tests
    python stack/bootstrap.py env --backend sim     variables of a compose run, as JSON

`env` and `agent --show` exit with 3 if images are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from offline.build import SOURCES, ensure_images, ensure_recipes
from offline.daemon_images import chosen, environment, images_at_hand
from offline.debian import ensure_programs
from offline.engine import ensure_engine, server_arch
from offline.recipes import BACKENDS, FAULT_AGENT
from offline.shell import SetupError, say

SOURCE_VARIABLE = "LLMCHAOS_IMAGE_SOURCE"
FAILED = 1
IMAGES_MISSING = 3


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.command == "env":
            return print_environment(options.backend, options.format, agents=options.agents)
        if options.command == "agent" and options.show:
            return print_agent()
        if options.command == "agent":
            ensure_recipes([FAULT_AGENT], source=options.source)
        if options.command == "programs":
            ensure_programs()
        if options.command in ("engine", "all"):
            ensure_engine()
        if options.command in ("images", "all"):
            ensure_images(options.backend, source=options.source, agents=options.agents)
    except SetupError as stopped:
        say(str(stopped))
        return FAILED
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="{engine,images,agent,env,all,programs}")
    commands.add_parser("engine", help="Docker Engine, Compose v2 and buildx, if missing")
    commands.add_parser("programs", help="programs of the tests: haproxy, a browser")
    for name, text in (("images", "build or pull missing images"), ("all", "engine, then images")):
        images = commands.add_parser(name, help=text)
        images.add_argument(
            "--backend", action="append", choices=BACKENDS, help="may be given more than once; default: ollama"
        )
        add_agents(images)
        add_source(images)
    agent = commands.add_parser("agent", help="image of the fault agent alone, for a stack of your own")
    agent.add_argument("--show", action="store_true", help="print the image's name, and build nothing")
    add_source(agent)
    environment_of = commands.add_parser("env", help="variables of a compose run")
    environment_of.add_argument("--backend", choices=BACKENDS, default="ollama")
    add_agents(environment_of)
    environment_of.add_argument("--format", choices=("json", "shell"), default="json", help="shell: lines for `eval`")
    options = parser.parse_args(arguments)
    if options.command in ("images", "all"):
        options.backend = options.backend or ["ollama"]
    if getattr(options, "source", SOURCES[0]) not in SOURCES:  # argparse checks no default
        parser.error(f"{SOURCE_VARIABLE} must be one of {', '.join(SOURCES)}, got {options.source!r}")
    return options


def add_agents(command: argparse.ArgumentParser) -> None:
    command.add_argument("--agents", action="store_true", help="the image of the lab's agents and their desk, too")


def add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--source",
        choices=SOURCES,
        default=os.environ.get(SOURCE_VARIABLE) or "auto",
        help="official registry, or packages; default: the registry if it answers (or set LLMCHAOS_IMAGE_SOURCE)",
    )


def print_agent() -> int:
    reference = chosen(FAULT_AGENT, server_arch(), images_at_hand())
    if reference is None:
        command = shlex.join([sys.executable, str(Path(__file__).absolute()), "agent"])
        say(f"expected the image of the fault agent, which the daemon lacks: run `{command}`")
        return IMAGES_MISSING
    sys.stdout.write(f"{reference}\n")
    return 0


def print_environment(backend: str, form: str, *, agents: bool = False) -> int:
    variables, missing = environment(backend, agents=agents)
    if missing:
        more = ["--agents"] if agents else []
        say(
            f"expected images {', '.join(missing)} for the backend {backend}, which the daemon lacks: "
            f"run `{shlex.join([sys.executable, str(Path(__file__).absolute()), 'images', '--backend', backend, *more])}`"
        )
        return IMAGES_MISSING
    if form == "shell":
        sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    else:
        sys.stdout.write(json.dumps(variables, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
