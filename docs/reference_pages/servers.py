"""Page of the model servers' metrics."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmchaos.servers.canonical import CANONICAL, SEMCONV, CanonicalMetric
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.mapping import Entry, Server
from reference_pages.markdown import page

# The files of this package, whatever else is installed here.
OWN = (
    *("vllm", "sglang", "tensorrt-llm", "triton", "tgi", "llamacpp", "ollama", "sim"),
    *("dynamo", "litellm", "smg", "vllm-router", "azure", "bedrock", "openai"),
)


def servers_page() -> str:
    """Return the page of what each server exports."""
    known = [servers()[name] for name in OWN]
    scraped = [one for one in known if one.kind != "provider"]
    parts = [
        "What each server exports, from its file in `pytest_llmchaos/servers/`.",
        "[The metric contract](../metrics-contract.md) explains the command and the rules that use these names.",
        f"Names that begin with `gen_ai_` are those of the {SEMCONV}.",
        "## Canonical metrics",
        _table(
            ("key", "name", "kind", "unit", "meaning"),
            [(f"`{one.key}`", f"`{one.name}`", one.kind, one.unit, one.meaning) for one in CANONICAL],
        ),
        "## Servers and metrics",
        "For the newest version of each: `derived` is computed from other metrics, `option` needs an option, `-` is absent.",
        _matrix(scraped),
        *(part for one in scraped for part in _server(one)),
        "## Managed providers",
        "They have no metrics page. What a run needs must come from the callers, or from a gateway in front.",
        *(part for one in known if one.kind == "provider" for part in _provider(one)),
    ]
    return page("Metrics of model servers", *parts)


def _matrix(known: Sequence[Server]) -> str:
    return _table(
        ("metric", *(one.name for one in known)),
        [(f"`{metric.key}`", *(_word(one.at(metric.key)) for one in known)) for metric in CANONICAL],
    )


def _word(entry: Entry) -> str:
    if entry.status == "absent":
        return "-"
    return "derived" if entry.status == "derived" else "option" if entry.needs else "yes"


def _server(one: Server) -> list[str]:
    rows = [row for metric in CANONICAL for row in _rows(one, metric)]
    facts = f"Name: `{one.name}`. Facts of version {one.checked}, from <{_url(one.source)}>."
    never = [f"- {line}" for line in one.never]
    return [
        f"## {one.title}",
        facts if one.source.startswith("http") else facts.replace(f"<{one.source}>", f"`{one.source}`"),
        _table(("metric", "name or expression", "versions", "note"), rows),
        "\n".join(["It can never show:", "", *never]) if never else "",
    ]


def _rows(one: Server, metric: CanonicalMetric) -> list[tuple[str, str, str, str]]:
    return [(f"`{metric.key}`", _expr(entry), _versions(entry), _note(entry)) for entry in one.of(metric.key)]


def _expr(entry: Entry) -> str:
    texts = [entry.expr] if entry.expr else [one for one in (entry.sum, entry.count) if one]
    return ", ".join(f"`{_cell(text.replace('{}', ''))}`" for text in texts) or "absent"


def _versions(entry: Entry) -> str:
    limits = [f"since {entry.since}"] * bool(entry.since) + [f"until {entry.until}"] * bool(entry.until)
    return ", ".join(limits) or "all"


def _note(entry: Entry) -> str:
    parts = [f"Needs {entry.needs}."] * bool(entry.needs) + ["After the first request."] * entry.late
    parts += ["Derived."] * (entry.status == "derived") + [entry.trap] * bool(entry.trap)
    return _cell(" ".join(parts)).replace("<", "\\<")


def _provider(one: Server) -> list[str]:
    rows = [(f"`{entry.canonical.key}`", _note(entry)) for entry in one.entries]
    return [f"### {one.title}", _table(("metric", "what there is"), rows), "\n".join(f"- {line}" for line in one.never)]


def _url(source: str) -> str:
    return source.split(maxsplit=1)[0].rstrip(",;")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
