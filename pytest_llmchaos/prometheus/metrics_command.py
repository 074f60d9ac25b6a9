"""`llmchaos metrics`: the contract of servers, and what files want of them."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import BadScenario, LlmchaosError
from pytest_llmchaos.model import TLS_SYSTEM, TLS_UNVERIFIED
from pytest_llmchaos.prometheus import metrics_text
from pytest_llmchaos.prometheus.metrics_page import Reader, shown, text_of_file
from pytest_llmchaos.servers.catalogue import server, servers
from pytest_llmchaos.servers.contract import BROKEN, bracket, check, is_shown, parse
from pytest_llmchaos.servers.losses import Target
from pytest_llmchaos.servers.preflight import contradiction
from pytest_llmchaos.servers.recognition import Recognised, recognise, version_on, with_reported
from pytest_llmchaos.servers.rules import recording_rules
from pytest_llmchaos.servers.wanted import judge
from pytest_llmchaos.subject.headers import headers_of, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.mapping import Server
    from pytest_llmchaos.servers.recognition import Certainty
    from pytest_llmchaos.servers.wanted_files import Wants

# Files without it are not overwritten.
_MARK = "# Written by `llmchaos metrics --write-rules`."
_DESCRIPTION = """\
Show which of the 17 canonical metrics a model server exports, under which names,
and what it can never show. With --rules, --dashboard, --scaledobject or --slo it
finds every series that the file wants and the server lacks, with its new name.

The server and its version are recognised by the names on the page. Each metric is

  found         the page has it
  late          it may appear after the first request, or the first event of its kind
  needs option  the server exports it with an option only
  absent        the server never has it, or not in this version
  renamed       the page has the name of another version
  missing       this version should have it, and the page does not
"""
_EPILOG = """\
examples:
  llmchaos metrics http://localhost:8000
      one server; /metrics is added to an address without a path
  llmchaos metrics http://localhost:8000 http://localhost:30000
      two servers, side by side
  llmchaos metrics http://localhost:8000 --rules alerts.yml --scaledobject keda.yaml
      does each alert and each trigger still have its series?
  curl -s http://localhost:8000/metrics | llmchaos metrics - --dashboard board.json
      a page from the standard input
  llmchaos metrics --server vllm --write-rules canonical.yml --matchers 'job="vllm"'
      recording rules that give vLLM's metrics their canonical names
  llmchaos metrics https://llm.example/metrics --header 'Authorization: Bearer $TOKEN'
      the value of a variable, so that no secret is in the command
  llmchaos metrics --list
      the known servers

Exit status: 0 if all is there; 1 if a metric is renamed or missing, a file wants a
series that is not there, a query of a dashboard cannot be read, or the server is
unknown; 2 for a wrong option, page or file.
"""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A page and what was found on it.

    Attributes:
        target: the page with its server and cells.
        recognised: how sure the server is.
    """

    target: Target
    recognised: Recognised

    @property
    def is_whole(self) -> bool:
        """True if a known server has all that it should have."""
        cells = self.target.cells
        return any(is_shown(one, self.target.page) for one in cells) and not any(one.state in BROKEN for one in cells)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args(args)
    try:
        return _run(given)
    except (LlmchaosError, OSError) as error:
        sys.stderr.write(f"llmchaos metrics: {error}\n")
        return 2


def _run(given: argparse.Namespace) -> int:
    if given.list:
        sys.stdout.write(metrics_text.known_servers(servers().values()))
        return 0
    if not given.pages and not (given.server and given.write_rules):
        raise BadScenario(
            "the page is missing: give the address or file of a metrics page, such as http://localhost:8000, "
            "or --server NAME with --write-rules FILE, or --list"
        )
    if given.matchers:
        _require_matchers(given.matchers)
    wants = _wants(given)
    key = "--header"
    headers = resolve(headers_of(given.header, key), os.environ, key)
    reader = Reader(headers=headers, tls=given.tls, timeout_s=given.timeout)
    looked = [_look(reader, source, given) for source in given.pages]
    judged = judge(wants, [one.target for one in looked], servers().values()) if wants and wants.queries else None
    is_whole = all(one.is_whole for one in looked) and (judged is None or judged.is_good)
    text = (
        json.dumps(metrics_text.as_json(looked, judged, is_whole=is_whole), indent=2) + "\n"
        if given.json
        else metrics_text.as_text(looked, judged)
    )
    # Rules on the standard output are for a pipe, which must get nothing else.
    (sys.stderr if given.write_rules == "-" else sys.stdout).write(text)
    if given.write_rules:
        _write_rules(looked, given)
    return 0 if is_whole else 1


def _look(reader: Reader, source: str, given: argparse.Namespace) -> Looked:
    address, page = reader.page(source, servers().values())
    where = shown(address)
    recognised = recognise(page, servers().values(), given.at)
    if given.server:
        recognised = _named(server(given.server), page, where, recognised, given.at)
    if recognised.server and not recognised.version:
        recognised = with_reported(recognised, reader.version(address, recognised.server))
    found = recognised.server
    cells = check(found, page, recognised.version, warm=given.warm) if found else ()
    return Looked(target=Target(where=where, server=found, page=page, cells=cells), recognised=recognised)


def _named(named: Server, page: Page, where: str, seen: Recognised, version: str) -> Recognised:
    """Return what --server names, if the page may be of it."""
    if named.kind == "provider":
        raise BadScenario(
            f"--server must be a server with a metrics page, got {named.name}: {named.title} lacks one; see --list"
        )
    problem = contradiction(where, named, page, seen, "--server")
    if problem and seen.server:
        raise BadScenario(problem)
    is_there = any(is_shown(one, page) for one in check(named, page, version))
    certainty: Certainty = "certain" if is_there else "unclear"
    none = f"None of the metrics of {named.title} is on the page, so nothing shows that it is of this server."
    found = Recognised(
        server=named,
        version=version,
        bracket=bracket(named, page),
        certainty=certainty,
        reasons=("It was given with --server.", *[none] * (not is_there)),
        with_version=certainty,
    )
    return found if version else with_reported(found, version_on(page, named))


def _wants(given: argparse.Namespace) -> Wants | None:
    if not (given.rules or given.dashboard or given.scaledobject or given.slo):
        return None
    from pytest_llmchaos.prometheus import metrics_wants  # noqa: PLC0415 - 30 ms with yaml, for files only

    return metrics_wants.wants_in(given.rules, given.dashboard, given.scaledobject, given.slo)


def _write_rules(looked: Sequence[Looked], given: argparse.Namespace) -> None:
    named = [server(given.server)] if given.server else [one.target.server for one in looked if one.target.server]
    if not named:
        raise BadScenario("--write-rules needs a known server: give it with --server NAME")
    unique = list({one.name: one for one in named}.values())
    text = recording_rules(unique, given.matchers, f"{_MARK}\n")
    if text.endswith("groups: []\n"):
        raise BadScenario(f"{', '.join(one.title for one in unique)}: there are no metrics for rules, see --list")
    if given.write_rules == "-":
        sys.stdout.write(text)
        return
    file = Path(given.write_rules)
    if file.exists() and not text_of_file(given.write_rules).startswith(_MARK):
        raise BadScenario(f"{file} was not written by this command: move it away, or give another name")
    file.write_text(text, encoding="utf-8")
    if not given.json:
        sys.stdout.write(f"wrote {given.write_rules}\n")


def _require_matchers(text: str) -> None:
    try:
        parse(f"x{{{text}}}")
    except BadScenario:
        raise BadScenario(f"--matchers must be label matchers such as 'job=\"vllm\"', got {text!r}") from None


def _version(text: str) -> str:
    if text and not re.fullmatch(r"v?\d+([.]\d+)*\S*", text):
        raise argparse.ArgumentTypeError(f"must be a version such as 0.11.2, got {text!r}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmchaos metrics",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="address or file of a metrics page, - for stdin")
    parser.add_argument("--server", metavar="NAME", help="the server of the pages (default: it is recognised)")
    parser.add_argument(
        "--at",
        type=_version,
        metavar="VERSION",
        default="",
        help="the version of the server of all pages (default: what it reports, or its names allow)",
    )
    parser.add_argument(
        "--warm", action="store_true", help="the server has answered requests, so late metrics must be there"
    )
    for name, what in (
        ("rules", "file of Prometheus rules, or of PrometheusRule objects"),
        ("dashboard", "Grafana dashboard in JSON"),
        ("scaledobject", "file of KEDA's ScaledObject or ScaledJob"),
        ("slo", "file of objectives in OpenSLO v1"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="FILE", help=f"{what}; may be repeated")
    parser.add_argument(
        "--write-rules", metavar="FILE", help="write recording rules of the canonical names, - for stdout"
    )
    parser.add_argument(
        "--matchers", default="", metavar="TEXT", help="label matchers in these rules, such as 'job=\"vllm\"'"
    )
    parser.add_argument(
        "--header", action="append", default=[], metavar="LINE", help="request header; $NAME is a variable of the shell"
    )
    parser.add_argument(
        "--tls",
        default=TLS_SYSTEM,
        metavar="WHAT",
        help=f"for https: {TLS_SYSTEM}, {TLS_UNVERIFIED} or a file with CA certificates (default: {TLS_SYSTEM})",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="S", help="seconds for one answer (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, of the shape in docs/metrics-contract.md")
    parser.add_argument("--list", action="store_true", help="list the known servers")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value
