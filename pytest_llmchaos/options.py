"""Command-line options and ini keys: names, help, defaults, checks."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan.known import KnownRefutation, parse_known, without_repeat
from pytest_llmchaos.plan.seeds import parse_seed
from pytest_llmchaos.subject.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmchaos.subject.lab import Subject

RUNTIMES = ("auto", "compose", "local")

# Name, argparse settings, help. Each option is `--llmchaos-NAME`.
# `--chaos-NAME` is an alias unless another plugin owns it.
OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "seed",
        {"metavar": "N"},
        (
            "Seed of every random choice: victims, delays, arrival times. The same seed repeats the same choices. "
            "Default: a random number, printed in the header. Example: 42."
        ),
    ),
    (
        "runtime",
        {"metavar": "{auto,compose,local}"},
        (
            "Where the stack runs: in containers (compose) or as processes on this machine (local). "
            "Default: auto, which is compose for your own stack or if Docker responds, else local."
        ),
    ),
    (
        "backend",
        {"metavar": "{ollama,llamacpp,sim}"},
        (
            "Inference engine of the lab: Ollama, llama.cpp, or sim, a simulated engine that needs no model. "
            "Default: ollama with compose, llamacpp with local."
        ),
    ),
    (
        "report",
        {"metavar": "DIR"},
        (
            "Folder that keeps the report, journal and samples of every run. DIR/latest is a symlink to the newest run. "
            "Default: reports."
        ),
    ),
    ("plan", {"action": "store_true"}, "Print the planned trials and exit, without starting or changing anything."),
    (
        "unleash",
        {"action": "store_true"},
        "Inject faults into a stack that already runs (llmchaos_attach). Default: only print the plan for such a stack.",
    ),
    (
        "replay",
        {"metavar": "FILE"},
        "Repeat the seed and schedule of an earlier run, read from its run.json. Example: reports/latest/run.json.",
    ),
    (
        "repeat",
        {"metavar": "N"},
        "Perform every trial N times (1 to 1000), for means and spread over runs. Default: 1.",
    ),
)
IniType = Literal["string", "linelist", "args", "bool", "float"]
INI: tuple[tuple[str, IniType, str], ...] = (
    ("llmchaos_runtime", "string", "Value of --chaos-runtime if the option is not given. Default: auto."),
    (
        "llmchaos_backend",
        "string",
        "Value of --chaos-backend if the option is not given. Default: ollama with compose, llamacpp with local.",
    ),
    ("llmchaos_report", "string", "Value of --chaos-report if the option is not given. Default: reports."),
    (
        "llmchaos_known",
        "string",
        (
            "TOML file with the known refutations, each with its issue: claims that are expected to fail, and have to. "
            "Default: none. Example: known.toml."
        ),
    ),
    (
        "llmchaos_compose",
        "linelist",
        (
            "Compose files of your own stack, to test instead of the lab. Paths start at the ini file's folder. "
            "Default: none, the lab is tested. Example: compose.yaml."
        ),
    ),
    (
        "llmchaos_api",
        "string",
        (
            "Service of your stack that clients send requests to, with its container's port if it offers several. "
            "Required with llmchaos_compose. Example: web:8080."
        ),
    ),
    (
        "llmchaos_targets",
        "args",
        "Services of your stack that faults may hit. Required with llmchaos_compose. Example: web worker.",
    ),
    (
        "llmchaos_metrics",
        "args",
        (
            "Endpoints of your stack that the run's own Prometheus scrapes every second, as SERVICE:PORT/PATH. "
            "Default: none. Example: web:8080/metrics worker:9100."
        ),
    ),
    (
        "llmchaos_servers",
        "linelist",
        (
            "Model servers behind endpoints of llmchaos_metrics, as SERVICE: SERVER. The run's own Prometheus has their "
            "metrics under canonical names, too. Default: recognised by their metrics. Example: model: sglang."
        ),
    ),
    (
        "llmchaos_queries",
        "args",
        (
            "Files of yours with queries that are checked before the first trial: Prometheus rules, Grafana dashboards, KEDA "
            "objects. Every series of a model server that they read has to be there. Default: none. "
            "Example: alerts.yml board.json."
        ),
    ),
    (
        "llmchaos_prometheus",
        "string",
        (
            "Prometheus of your stack, read for its alerts, as SERVICE:PORT/PREFIX. It does not judge. "
            "Default: none. Example: prometheus."
        ),
    ),
    (
        "llmchaos_agent",
        "string",
        (
            "Service of your stack that takes an agent's tasks (loads.tasks), with its container's port if it offers several. "
            "Default: none. Example: agent:8200."
        ),
    ),
    (
        "llmchaos_ledger",
        "string",
        (
            "Ledger of the effects of your agent's tools, as SERVICE:PORT/PATH. Without it, claims on effects are inconclusive. "
            "Default: none. Example: desk:8100/ledger."
        ),
    ),
    (
        "llmchaos_profiles",
        "args",
        "Profiles of your compose file that are active, besides COMPOSE_PROFILES. Default: none. Example: cpu.",
    ),
    (
        "llmchaos_restart",
        "string",
        (
            'Restart policies of your compose file. With "keep" Docker restarts services by them, with "no" it restarts none. '
            "Default: no."
        ),
    ),
    (
        "llmchaos_remediator",
        "string",
        "Service of your stack that repairs it, stopped in trials with remediator=False. Default: none. Example: fixer.",
    ),
    (
        "llmchaos_audit_file",
        "string",
        "Path of the remediator's audit log in its container. Default: /audit/audit.jsonl.",
    ),
    ("llmchaos_model", "string", "Value of model in the clients' requests. Default: default."),
    (
        "llmchaos_dialect",
        "string",
        (
            "Format of requests and answers: chat and completions (OpenAI), ollama (/api/chat), "
            "ollama-generate (/api/generate), tgi (/generate_stream). Default: chat. Example: ollama."
        ),
    ),
    (
        "llmchaos_path",
        "string",
        (
            "Path and query of the clients' requests, with $VARIABLE for values of the environment. "
            "Default: that of the dialect, such as /v1/chat/completions. Example: /api/chat/completions."
        ),
    ),
    (
        "llmchaos_headers",
        "linelist",
        (
            "Headers of the clients' requests, with $VARIABLE for values of the environment. Values are written nowhere. "
            "Default: none. Example: Authorization: Bearer $API_KEY."
        ),
    ),
    (
        "llmchaos_tls",
        "string",
        (
            "Send the clients' requests over TLS. The certificate is checked with a CA file, the system's CAs (system) or "
            "not at all (unverified). Default: no TLS. Example: ca.pem."
        ),
    ),
    (
        "llmchaos_request",
        "string",
        (
            "JSON file with further fields of the clients' requests, such as a system prompt or tools. Default: none. "
            "Example: request.json."
        ),
    ),
    (
        "llmchaos_replicas",
        "args",
        "Interchangeable services of your stack that answer requests. Default: none. Example: worker-1 worker-2.",
    ),
    (
        "llmchaos_replica_header",
        "string",
        "Response header that names the replica that answered, read for trial.replicas. Default: none. Example: x-replica.",
    ),
    (
        "llmchaos_busy_query",
        "string",
        (
            "PromQL for the number of requests in progress on each replica, by label service. Default: none. "
            "Example: sum by (service) (llmchaos:requests_running)."
        ),
    ),
    (
        "llmchaos_rotation_query",
        "string",
        (
            "PromQL that is 1 for each replica that receives requests, by label service. Default: none. "
            "Example: min by (service) (upstream_healthy)."
        ),
    ),
    (
        "llmchaos_ready_path",
        "string",
        (
            "Path of llmchaos_api that returns 200 while it accepts requests, read once a second. "
            "Default: none. Example: /readyz."
        ),
    ),
    (
        "llmchaos_tokens_per_s",
        "float",
        (
            "Answer tokens a second that your healthy stack can serve. A load above it is refused, and an overload is a "
            "multiple of it. Default: 1000."
        ),
    ),
    (
        "llmchaos_slo",
        "string",
        (
            "OpenSLO file with your objectives. Default: 99.5 % of the clients' requests get a whole answer. "
            "Example: slo.yaml."
        ),
    ),
    (
        "llmchaos_startup_s",
        "float",
        (
            "Seconds that your stack may take to start and pass its health checks, without pulls and builds. "
            "Default: 120. Example: 900."
        ),
    ),
    (
        "llmchaos_attach",
        "bool",
        "Use your stack as it runs now and leave it running. Faults need --chaos-unleash. Default: false.",
    ),
    (
        "llmchaos_project",
        "string",
        (
            "Compose project of the stack to attach to, if it was started with -p. "
            "Default: what docker compose uses for llmchaos_compose. Example: shop."
        ),
    ),
    (
        "llmchaos_allow",
        "args",
        "Resources outside its Compose project that your stack may use. Default: none. Example: volume:models.",
    ),
    (
        "llmchaos_prometheus_headers",
        "linelist",
        (
            "Headers of requests to llmchaos_prometheus, with values from environment variables. "
            "Default: none. Example: Authorization: Bearer $PROMETHEUS_TOKEN."
        ),
    ),
    (
        "llmchaos_published_on",
        "string",
        (
            "Address on which a Docker daemon of another machine publishes the stack's ports, without a password. "
            "No effect for a daemon of this machine. Default: none, such a daemon is refused. Example: docker."
        ),
    ),
)
# Words as a `pytest.ini` has them. A TOML file quotes them as a string or a list.
_EXAMPLES = {
    "runtime": "local",
    "backend": "sim",
    "report": "reports",
    "known": "known.toml",
    "compose": "compose.yaml",
    "targets": "web worker",
    "metrics": "web:8080/metrics worker:9100",
    "servers": "model: sglang",
    "queries": "alerts.yml board.json",
    "prometheus": "prometheus",
    "profiles": "cpu",
    "restart": "keep",
    "remediator": "fixer",
    "audit_file": "/audit/audit.jsonl",
    "model": "default",
    "dialect": "ollama",
    "path": "/api/chat/completions",
    "headers": "Authorization: Bearer $API_KEY",
    "tls": "ca.pem",
    "request": "request.json",
    "replicas": "worker-1 worker-2",
    "replica_header": "x-replica",
    "busy_query": "sum by (service) (llmchaos:requests_running)",
    "rotation_query": "min by (service) (upstream_healthy)",
    "ready_path": "/readyz",
    "tokens_per_s": "500",
    "slo": "slo.yaml",
    "startup_s": "900",
    "attach": "true",
    "project": "shop",
    "allow": "volume:models",
    "prometheus_headers": "Authorization: Bearer $PROMETHEUS_TOKEN",
    "published_on": "docker",
}
# Keys whose values may be secrets, so that no message contains them.
_UNPRINTED = frozenset({"headers", "prometheus_headers"})
_EXPECTED: dict[IniType, str] = {
    "string": "a string",
    "linelist": "a list of strings",
    "args": "a list of strings",
    "bool": "true or false",
    "float": "a number",
}
_FORMER = "llmchaos_services"
_NO_VALUE: dict[str, object] = {"args": (), "linelist": (), "bool": False, "float": None}
_DEST = "llmchaos_opt_"
SPELLING = "llmchaos-spelling"
_KNOWN = pytest.StashKey[tuple[KnownRefutation, ...]]()


@dataclass(frozen=True)
class Spelling:
    """Options whose alias another plugin owns, kept in pytest's plugin manager.

    Attributes:
        given_up: option names without a `--chaos-NAME` alias.
    """

    given_up: frozenset[str]


def add(parser: pytest.Parser) -> Spelling:
    """Register all options.

    Called after the other plugins have registered theirs, because pytest refuses two
    options of the same name. An alias that another plugin owns is left to it. The
    canonical name always works.
    """
    group = parser.getgroup("llmchaos", "chaos experiments for LLM services (pytest-llmchaos)")
    taken, given_up = _foreign_options(parser), set[str]()
    for name, settings, text in OPTIONS:
        canonical, alias = f"--llmchaos-{name}", f"--chaos-{name}"
        about = {
            "dest": _DEST + name,
            "help": text,
            **settings,
            **({} if settings.get("action") else {"default": None}),
        }
        try:
            group.addoption(canonical, *([] if alias in taken else [alias]), **about)
        except (ValueError, argparse.ArgumentError):
            taken.add(alias)
            group.addoption(canonical, **about)
        if alias in taken:
            given_up.add(name)
    return Spelling(frozenset(given_up))


def add_keys(parser: pytest.Parser) -> None:
    """Register all ini keys."""
    parser.addini(_FORMER, "Removed: each role has a key of its own.", type="linelist", default=())
    for name, kind, text in INI:
        parser.addini(name, text, type=kind, default=_NO_VALUE.get(kind, ""))


def _foreign_options(parser: pytest.Parser) -> set[str]:
    """Options that other plugins own.

    pytest 8 reports a conflict only when it parses, too late to drop an alias.
    """
    groups = [*getattr(parser, "_groups", ()), getattr(parser, "_anonymous", None)]
    return {name for group in groups for option in getattr(group, "options", ()) for name in option.names()}


def spelling(config: pytest.Config, name: str) -> str:
    """The option's name for messages: as on the command line, else its alias."""
    canonical = f"--llmchaos-{name}"
    written = any(str(word).partition("=")[0] == canonical for word in config.invocation_params.args)
    return canonical if written or name in config.pluginmanager.getplugin(SPELLING).given_up else f"--chaos-{name}"


def given(config: pytest.Config, name: str) -> Any:
    return config.getoption(_DEST + name)


def text_of(config: pytest.Config, name: str, default: str) -> str:
    """An option's value: the command line's, else the ini file's, else the default."""
    in_file = _ini(config, name)
    return str(given(config, name) or in_file or default)


def choice_of(config: pytest.Config, name: str, choices: tuple[str, ...], default: str) -> str:
    """Return an option's value. Raises BadScenario unless it is one of the choices."""
    value = text_of(config, name, default)
    if value not in choices:
        key = spelling(config, name) if given(config, name) else f"llmchaos_{name}"
        raise BadScenario(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return value


def reports_of(config: pytest.Config) -> Path:
    """The folder that keeps all runs."""
    folder: Path = config.rootpath / text_of(config, "report", "reports")
    return folder


def runtime_of(config: pytest.Config) -> str:
    return choice_of(config, "runtime", RUNTIMES, "auto")


def backend_of(config: pytest.Config) -> str | None:
    """The backend that options or ini file name, or None for the runtime's default."""
    return choice_of(config, "backend", BACKENDS, "ollama") if text_of(config, "backend", "") else None


def own_subject_of(config: pytest.Config) -> Subject | None:
    """The user's own stack, or None for the lab.

    Raises BadScenario for a wrong or missing key, and if local cannot run the stack.
    """
    if not any(key.startswith("llmchaos_") for key in _written(config)):
        return None
    from pytest_llmchaos.subject.own_stack import (  # noqa: PLC0415 - 60 ms, which a run without our keys need not pay
        OwnKeys,
        own_subject,
        refuse_services,
        require_local,
    )

    toml = str(config.inipath).endswith(".toml")
    refuse_services(_ini(config, "services"), toml=toml)
    read: dict[str, Any] = {one.name: _ini(config, one.name) for one in fields(OwnKeys)}
    read |= {name: tuple(value) for name, value in read.items() if isinstance(value, list)}
    folder = config.inipath.parent if config.inipath else config.rootpath
    try:
        own = own_subject(OwnKeys(**read), folder, toml=toml)
    except BadScenario:
        check_keys(config)  # a misspelt key is the likely cause of a missing one
        raise
    if own is not None and runtime_of(config) == "local":
        require_local(own)
    return own


def _ini(config: pytest.Config, name: str) -> Any:
    """An ini key's value.

    Raises BadScenario for another type, with an example in the file's format.
    """
    key = f"llmchaos_{name}"
    kinds: dict[str, IniType] = {one: kind for one, kind, _ in INI} | {_FORMER: "linelist"}
    kind = kinds[key]
    try:
        with warnings.catch_warnings():
            # pytest 9 warns of a list for a string key, which is refused here.
            warnings.simplefilter("ignore", pytest.PytestDeprecationWarning)
            value = config.getini(key)
    except (ValueError, TypeError, pytest.UsageError) as error:
        example, why = _example(config, name, kind), "" if name in _UNPRINTED else f": {error}"
        raise BadScenario(f"{key} must be {_EXPECTED[kind]}{why}; write {example}") from None
    if kind == "string":
        seen = _as_written(config, key, value)
        good = isinstance(seen, str)
    else:
        seen = value
        good = kind not in ("linelist", "args") or all(isinstance(one, str) and one.strip() for one in value)
    if not good:
        example, seen = _example(config, name, kind), "something else" if name in _UNPRINTED else f"{seen!r:.80}"
        raise BadScenario(f"{key} must be {_EXPECTED[kind]}, got {seen}: write {example}")
    return value


def _as_written(config: pytest.Config, key: str, value: object) -> object:
    """The value in the TOML file.

    pytest converts numbers and booleans of `[tool.pytest.ini_options]` to strings.
    """
    if not value or not str(config.inipath).endswith(".toml") or key in _overridden(config):
        return value
    table = tomllib.loads(config.inipath.read_text(encoding="utf-8")) if config.inipath else {}
    return table.get("tool", {}).get("pytest", {}).get("ini_options", {}).get(key, value)


def _example(config: pytest.Config, name: str, kind: IniType) -> str:
    words = _EXAMPLES.get(name, "web")
    if str(config.inipath).endswith(".toml") and kind in ("string", "linelist", "args"):
        quoted = ", ".join(f'"{word}"' for word in ([words] if kind == "linelist" else words.split()))
        words = quoted if kind == "string" else f"[{quoted}]"
    return f"llmchaos_{name} = {words}"


def _overridden(config: pytest.Config) -> set[str]:
    """The ini keys of the command line's `-o KEY=VALUE`."""
    return {str(word).partition("=")[0] for word in config.getoption("override_ini") or ()}


def check_keys(config: pytest.Config) -> None:
    """Check the ini keys that start with `llmchaos`.

    Raises BadScenario for a key that no plugin has registered.
    """
    for key in sorted(_unread(config)):
        name = re.sub(r"(?i)^llm[-_ ]?chaos[-_ ]?", "", key)
        if name in {option for option, _, _ in OPTIONS}:
            raise BadScenario(f"{key} is not an ini key; use {spelling(config, name)} on the command line")
        known = {one.removeprefix("llmchaos_"): one for one, _, _ in INI}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {known[near[0]]}?" if near else f"the keys are {', '.join(known.values())}"
        raise BadScenario(f"{key} is not an ini key of pytest-llmchaos; {hint}")


def _written(config: pytest.Config) -> set[str]:
    """The ini keys of the file and the command line."""
    with warnings.catch_warnings():
        # pytest 9 deprecates the mapping for getini(), which cannot list a file's keys.
        warnings.simplefilter("ignore", pytest.PytestDeprecationWarning)
        return {*config.inicfg, *_overridden(config)}


def _unread(config: pytest.Config) -> Iterator[str]:
    """Keys that start with `llmchaos` and that no plugin has registered."""
    for key in _written(config):
        if re.match(r"(?i)llm[-_ ]?chaos", key) and key not in {_FORMER, *(one for one, _, _ in INI)}:
            try:
                config.getini(key)
            except ValueError:
                yield key
            except (TypeError, pytest.UsageError):
                continue  # another plugin's key, whose value that plugin refuses


def known_file_of(config: pytest.Config) -> str:
    """Name of the file with the known refutations, empty without one."""
    return str(_ini(config, "known"))


def known_of(config: pytest.Config) -> tuple[KnownRefutation, ...]:
    """Return the known refutations, read at the first call.

    Raises:
        BadScenario: The file cannot be read, an entry is wrong, or the file of its test
            is missing.
    """
    if _KNOWN not in config.stash:
        name = known_file_of(config)
        config.stash[_KNOWN] = _read_known(config, name) if name else ()
    return config.stash[_KNOWN]


def _read_known(config: pytest.Config, name: str) -> tuple[KnownRefutation, ...]:
    folder = config.inipath.parent if config.inipath else config.rootpath
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadScenario(
            f"llmchaos_known must name a TOML file, got {name!r:.80} in {folder}: {why}; create it, or drop the key"
        ) from None
    found = parse_known(text, name, {"runtime": RUNTIMES[1:], "backend": (*BACKENDS, "own")})
    for one in found:
        if not os.path.isfile(config.rootpath / one.file):  # noqa: PTH113 - False for a name that is too long
            raise BadScenario(
                f"{name} lists {one.test}, and there is no file {one.file} in {config.rootpath}: "
                "write the id as `pytest -v` prints it, or remove the entry"
            )
    return found


def is_attached(config: pytest.Config) -> bool:
    """True for a stack that already runs. Raises BadScenario for another value."""
    return bool(_ini(config, "attach"))


def is_leashed(config: pytest.Config) -> bool:
    """True for an attached stack without `--chaos-unleash`: plan, do not inject."""
    return is_attached(config) and not given(config, "unleash")


def leash_message(config: pytest.Config) -> str:
    unleash = spelling(config, "unleash")
    return f"leashed: llmchaos_attach names a stack that already runs, so nothing was injected; add {unleash} to inject faults"


def only_plans(config: pytest.Config) -> bool:
    return bool(given(config, "plan")) or is_leashed(config)


def check(config: pytest.Config) -> None:
    """Check options and ini file. Raises BadScenario."""
    reports_of(config)
    runtime_of(config), own_subject_of(config), backend_of(config), repeat_of(config), known_of(config)


def seed_of(config: pytest.Config) -> int:
    """The given seed, or a random one from the operating system."""
    text = given(config, "seed")
    return int.from_bytes(os.urandom(4), "big") if text is None else parse_seed(str(text))


def replayed_seed(config: pytest.Config, recorded: int) -> int:
    """The seed of the replayed run. Raises BadScenario if another seed was given."""
    text = given(config, "seed")
    if text is not None and parse_seed(str(text)) != recorded:
        raise BadScenario(
            f"{spelling(config, 'seed')}={text} contradicts {spelling(config, 'replay')}={given(config, 'replay')}, "
            f"which has the seed {recorded}: drop one of them"
        )
    return recorded


def repeat_of(config: pytest.Config) -> int:
    text = given(config, "repeat")
    if text is None:
        return 1
    digits = str(text).lstrip("0") if str(text).isdecimal() else ""
    if not 1 <= len(digits) <= 4 or int(digits) > 1000:
        raise BadScenario(f"{spelling(config, 'repeat')} must be a whole number from 1 to 1000, got {text!r:.80}")
    return int(digits)


def id_without_repeat(item: pytest.Item) -> str:
    """Return an item's id as it is without `--chaos-repeat`."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    case, mark = params.get("arms") or params.get("trial"), item.get_closest_marker("llmchaos")
    if repeat_of(item.config) == 1 or mark is None or case is None:
        return item.nodeid
    fault, repeat, *_ = case
    return without_repeat(item.nodeid, str(fault), repeat, is_only=len(mark.kwargs["experiment"].faults) == 1)
