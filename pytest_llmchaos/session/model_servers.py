"""Model servers of a user's stack: recognition, and checks of a start."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_llmchaos.errors import BadScenario, NotReady
from pytest_llmchaos.host.http_client import request
from pytest_llmchaos.prometheus.api import RefusedError, data_of
from pytest_llmchaos.prometheus.metrics_wants import wants_of_files
from pytest_llmchaos.prometheus.scraped_pages import page_of
from pytest_llmchaos.runtime.judge_files import RECOGNISED, unnamed
from pytest_llmchaos.servers.canonical import BY_SERIES
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.contract import lacking, parse
from pytest_llmchaos.servers.preflight import ScrapedServer, contradiction, reason_of, rename_of
from pytest_llmchaos.servers.recognition import recognise
from pytest_llmchaos.servers.wanted import judge
from pytest_llmchaos.servers.wanted_files import wants_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_llmchaos.prometheus.queries import Prometheus
    from pytest_llmchaos.servers.exposition import Page
    from pytest_llmchaos.servers.losses import Fault
    from pytest_llmchaos.servers.mapping import Server
    from pytest_llmchaos.servers.recognition import Recognised
    from pytest_llmchaos.servers.wanted import Judged, Lack
    from pytest_llmchaos.servers.wanted_files import Wants
    from pytest_llmchaos.slo.arithmetic import Slo
    from pytest_llmchaos.subject.lab import Subject

SCRAPED_S = 12.0  # until each service was scraped after the first answer
THEIRS_S = 20.0  # until the user's own Prometheus has scraped a server
_PUSH_S = 5.0
_IS_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def find(
    prometheus: Prometheus, subject: Subject, push_url: str, report: Callable[[str], None]
) -> tuple[ScrapedServer, ...]:
    """Return the scraped services with a known model server, and let rules record them.

    Waits for a scrape of each service from now on: many servers export nothing before
    their first request, which must be answered before this call.

    Args:
        prometheus: the run's own Prometheus.
        subject: the user's stack.
        push_url: address of the run's pushgateway.
        report: takes a line about each recognised service.

    Raises:
        NotReady: The page of a service is not of the server that the user names, or
            the pushgateway does not answer.
        PrometheusUnreachable: Prometheus does not answer.
    """
    _await_scrapes(prometheus, {one.service for one in subject.scrapes})
    pages = {one.service: page_of(prometheus, one.service) for one in subject.scrapes}
    found = _named(subject, pages)
    others = _recognised({one: pages[one] for one in unnamed(subject)}, report)
    others |= _replicas(subject, pages, found | others)
    for service, one in others.items():
        if one.recorded:
            _push(push_url, service, one.server)
    for one in (found | others).values():
        if one.server.package:
            report(f"{one.service} is judged by the file of {one.server.title} from {one.server.package}")
    return _with_replicas([*(found | others).values()])


def _with_replicas(found: Sequence[ScrapedServer]) -> tuple[ScrapedServer, ...]:
    """Return the services, each with the pages of the others with its server."""
    return tuple(
        dataclasses.replace(
            one, replicas=tuple(other.page for other in found if other is not one and other.server is one.server)
        )
        for one in found
    )


def _candidates() -> tuple[Server, ...]:
    """Return the servers with a metrics page."""
    return tuple(one for one in servers().values() if one.kind != "provider")


def _named(subject: Subject, pages: Mapping[str, Page]) -> dict[str, ScrapedServer]:
    """Return the servers that the user names.

    Raises:
        NotReady: The page of a service is of another server.
    """
    found: dict[str, ScrapedServer] = {}
    wrong: list[str] = []
    for service, name in subject.servers:
        page, named = pages[service], servers()[name]
        seen = recognise(page, _candidates())
        problem = contradiction(service, named, page, seen)
        wrong += [problem] if problem else []
        version = seen.version if seen.server is named else ""
        found[service] = ScrapedServer(service=service, page=page, server=named, version=version)
    if wrong:
        raise NotReady("\n".join(wrong))
    return found


def _recognised(pages: Mapping[str, Page], report: Callable[[str], None]) -> dict[str, ScrapedServer]:
    """Return the servers that their pages show. Those of a gateway are not recorded."""
    found: dict[str, ScrapedServer] = {}
    for service, page in pages.items():
        seen = recognise(page, _candidates())
        if seen.server is not None and seen.certainty != "unclear":
            is_engine = seen.server.kind == "engine"
            found[service] = ScrapedServer(
                service=service, page=page, server=seen.server, version=seen.version, recorded=is_engine
            )
            report(_line(service, seen))
    return found


def _replicas(
    subject: Subject, pages: Mapping[str, Page], found: Mapping[str, ScrapedServer]
) -> dict[str, ScrapedServer]:
    """Return replicas that export nothing yet: they are as the one that answered."""
    like = next((found[one] for one in subject.replicas if one in found), None)
    return {
        one: ScrapedServer(service=one, page=pages[one], server=like.server, recorded=like.recorded)
        for one in unnamed(subject)
        if like and one in subject.replicas and one not in found
    }


def _line(service: str, seen: Recognised) -> str:
    title = " ".join([seen.server.title if seen.server else "", seen.versions]).strip()
    if seen.server is None or seen.server.kind == "engine":
        return f"{service} is {title} by its metrics ({seen.certainty}), which have canonical names, too"
    return (
        f"{service} is {title} by its metrics ({seen.certainty}), a gateway: they have no canonical names "
        "unless llmchaos_servers names it"
    )


def _await_scrapes(prometheus: Prometheus, services: set[str]) -> None:
    """Wait until each target was scraped from now on, SCRAPED_S at most."""
    begun_unix_s, deadline = time.time(), time.monotonic() + SCRAPED_S
    while time.monotonic() < deadline:
        targets = [one for one in prometheus.targets() if one.job in services]
        if targets and all(one.last_scrape_unix_s > begun_unix_s for one in targets):
            return
        time.sleep(0.2)


def _push(url: str, service: str, server: Server) -> None:
    """Let the rules of a server record a service."""
    answer = request(
        "PUT", f"{url}/metrics/job/{service}/server/{server.name}", timeout_s=_PUSH_S, content=f"{RECOGNISED} 1\n"
    )
    if not answer.is_success:
        raise NotReady(f"the pushgateway at {url} answered {answer.status_code}: see its log")


def names_in_queries(queries: Mapping[str, str | None], found: Sequence[ScrapedServer]) -> dict[str, str]:
    """Return the metrics of queries that a start can check, each with its ini key.

    Those are canonical names, and names that a server of the stack has replaced.

    Args:
        queries: PromQL by ini key. None is not set.
        found: the model servers of the stack.
    """
    wanted: dict[str, str] = {}
    for key, query in queries.items():
        try:
            tree = parse(query or "vector(0)")
        except BadScenario:
            continue  # Prometheus refuses it with its own words
        for one in lacking(tree, lambda one: one.name not in BY_SERIES and rename_of(one.name, found) is None):
            wanted.setdefault(one.name, key)
    return wanted


def require_series(files: Sequence[Path], found: Sequence[ScrapedServer]) -> None:
    """Require the series of model servers that a user's queries read.

    Series that begin with their first event are not required.

    Args:
        files: Prometheus rules, Grafana dashboards and KEDA objects.
        found: the model servers of the stack.

    Raises:
        NotReady: A series is not there, a query of a dashboard cannot be read, or there
            is no model server to compare with.
    """
    if not files:
        return
    if not found:
        raise NotReady(
            f"the series of {', '.join(one.name for one in files)} (llmchaos_queries) cannot be checked, because no scraped "
            "service is a known model server: add its endpoint to llmchaos_metrics"
        )
    judged = _judged(wants_of_files(files), found)
    if not judged.is_good:
        raise NotReady("\n".join(dict.fromkeys([*judged.unread, *map(_lack, judged.lacks)])))


def _judged(wants: Wants, found: Sequence[ScrapedServer]) -> Judged:
    return judge(wants, [one.target for one in found], servers().values())


def _lack(one: Lack) -> str:
    new = "" if all(name in one.fault.advice for name in one.fault.new) else f" Use {' or '.join(one.fault.new)}."
    where = f" ({one.fault.where})" if one.fault.where else ""
    return f"{one.file}: {one.place} reads {one.series}, which is not there: {one.fault.advice}{where}{new}"


def require_distinct(prometheus: Prometheus, slos: Sequence[Slo], found: Sequence[ScrapedServer]) -> None:
    """Require that no objective counts a request at a gateway and at an engine.

    A gateway may export the names of the OpenTelemetry standard itself, under which the
    metrics of an engine are recorded.

    Raises:
        NotReady: A selector has series of both.
    """
    kinds = {one.service: one.server.kind for one in found}
    problems = []
    for slo in slos:
        for selector in slo.counters:
            name = selector.partition("{")[0]
            if name not in BY_SERIES:
                continue
            path = f"/api/v1/query?query={quote(f'count by (job, origin) ({selector})')}"
            rows = [one["metric"] for one in _asked(prometheus, path)["result"]]
            recorded = sorted({one["job"] for one in rows if one.get("origin")})
            native = sorted({one["job"] for one in rows if not one.get("origin")} - set(recorded))
            gateways = [one for one in recorded if kinds.get(one) == "gateway"]
            engines = [one for one in recorded if one not in gateways]
            others = [*native, *gateways]
            if others and engines:
                problems.append(
                    f"SLO {slo.name} reads {name}, which {' and '.join(others)} has and which is recorded for "
                    f"{' and '.join(engines)}, too, so that a request counts twice: add a matcher to {selector}, such as "
                    f'service="{others[0]}"'
                )
    if problems:
        raise NotReady("\n".join(dict.fromkeys(problems)))


def require_live_rules(theirs: Prometheus, found: Sequence[ScrapedServer], report: Callable[[str], None]) -> None:
    """Require that no rule of the user's own Prometheus reads a replaced name.

    Such an alert can never fire, and its silence proves nothing.

    Args:
        theirs: the user's own Prometheus.
        found: the model servers of the stack.
        report: takes a line about a rule that may be dead for another reason.

    Raises:
        NotReady: A rule reads a name that a server has replaced. One line for each.
    """
    groups = _asked(theirs, "/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    made = {str(rule["name"]) for rule in rules if rule["type"] == "recording"}
    stale = [
        (rule, old, fault)
        for rule in rules
        for old, fault in _renames(str(rule.get("query", "")), found).items()
        if old not in made
    ]
    left = list(stale)
    deadline = time.monotonic() + THEIRS_S
    while left := [
        one for one in left if not _has(theirs, one[1]) and not any(_has(theirs, new) for new in one[2].new)
    ]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for line in _without_series(theirs, rules, found, {old for _, old, _ in stale}):
        report(line)
    for rule, old, fault in left:
        report(
            f"{_name(rule)} reads {old}, which your Prometheus lacks, as it does {', '.join(fault.new)}: it may not scrape "
            "the server"
        )
    if dead := [one for one in stale if one not in left and not _has(theirs, one[1])]:
        raise NotReady(
            "\n".join(
                f"{_name(rule)} of your Prometheus at {theirs.url} can never "
                f"{'fire' if rule['type'] == 'alerting' else 'have a value'}: {reason_of(old, found)}; correct its expression"
                for rule, old, _ in dead
            )
        )


def _without_series(
    theirs: Prometheus, rules: Sequence[Mapping[str, Any]], found: Sequence[ScrapedServer], renamed: set[str]
) -> Iterator[str]:
    """Yield a line for each rule with a series that no server of the stack has."""
    queries = [(_name(rule), query) for rule in rules if _is_promql(query := str(rule.get("query", "")))]
    made = frozenset(str(rule["name"]) for rule in rules if rule["type"] == "recording")
    wants = dataclasses.replace(wants_of(queries, "your Prometheus"), recorded=made)
    for one in _judged(wants, found).lacks:
        if one.series not in renamed and not (_IS_NAME.fullmatch(one.series) and _has(theirs, one.series)):
            yield _lack(one)


def _is_promql(query: str) -> bool:
    try:
        parse(query)
    except BadScenario:
        return False
    return True


def _name(rule: Mapping[str, Any]) -> str:
    return f"{'alert' if rule['type'] == 'alerting' else 'rule'} {rule['name']}"


def _renames(query: str, found: Sequence[ScrapedServer]) -> dict[str, Fault]:
    """Return the renamed names of a query that no other side of an `or` replaces."""
    try:
        tree = parse(query)
    except BadScenario:
        return {}
    lacks = lacking(tree, lambda one: rename_of(one.name, found) is None)
    return {one.name: renamed for one in lacks if (renamed := rename_of(one.name, found))}


def _has(server: Prometheus, name: str) -> bool:
    return bool(_asked(server, f"/api/v1/query?query={quote(f'count({name})')}")["result"])


def _asked(server: Prometheus, path: str) -> Any:
    try:
        return data_of(server, path)
    except (RefusedError, OSError) as error:
        raise NotReady(f"Prometheus at {server.url} could not answer {path:.80}: {error}") from error
