"""The command line and ini file of the plugin: names, help, defaults, checks."""

from __future__ import annotations

import argparse
import difflib
import re
import secrets
import tomllib
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.plan.seeds import parse_seed
from pytest_llmchaos.subject.lab import BACKENDS
from pytest_llmchaos.subject.own_stack import OwnKeys, own_subject, refuse_services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmchaos.subject.lab import Subject

RUNTIMES = ("auto", "compose", "local")

# name, argparse settings, help. Each is `--llmchaos-NAME`, with `--chaos-NAME` as an alias where no other plugin owns it.
OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "seed",
        {"metavar": "N"},
        "Seed of every random choice; drawn and printed if not given. The same seed breaks the same things.",
    ),
    (
        "runtime",
        {"metavar": "{auto,compose,local}"},
        "Where the stack runs: auto takes compose where a Docker daemon answers, else local.",
    ),
    (
        "backend",
        {"metavar": "{ollama,llamacpp,sim}"},
        "Which model serves: real Ollama (default of compose), llama.cpp (default of local), or a simulated engine.",
    ),
    (
        "report",
        {"metavar": "DIR"},
        "Folder for the evidence of runs (default: reports); DIR/latest points to the newest.",
    ),
    ("plan", {"action": "store_true"}, "Print what would be done, and touch nothing."),
    ("unleash", {"action": "store_true"}, "Really hit a stack that is attached to (llmchaos_attach); else only plan."),
    ("replay", {"metavar": "FILE"}, "Perform the schedule of an earlier run again, from its run.json."),
    ("repeat", {"metavar": "N"}, "Perform every trial N times, for means and spread (default: 1)."),
)
IniType = Literal["string", "linelist", "args", "bool", "float"]
INI: tuple[tuple[str, IniType, str], ...] = (
    ("llmchaos_runtime", "string", "Default of --chaos-runtime."),
    ("llmchaos_backend", "string", "Default of --chaos-backend."),
    ("llmchaos_report", "string", "Default of --chaos-report."),
    ("llmchaos_compose", "linelist", "Your own compose file, or several, in place of the lab."),
    ("llmchaos_api", "string", "The service of it that takes the clients' requests."),
    ("llmchaos_prometheus", "string", "Its Prometheus."),
    ("llmchaos_targets", "args", "Its services that faults may hit."),
    ("llmchaos_pushgateway", "string", "Its pushgateway, for the clients' own counters."),
    ("llmchaos_remediator", "string", "Its remediator, stopped for control arms."),
    ("llmchaos_audit_file", "string", "The audit log in the remediator's container (default: /audit/audit.jsonl)."),
    ("llmchaos_model", "string", "The model of the clients' requests (default: default)."),
    ("llmchaos_jobs", "args", "Prometheus jobs that must be scraped without a gap."),
    ("llmchaos_replicas", "args", "Its services that answer requests, several of one kind."),
    ("llmchaos_replica_header", "string", "The response header that names the replica of an answer."),
    ("llmchaos_busy_query", "string", "PromQL: the requests that each replica works on, by label service."),
    ("llmchaos_rotation_query", "string", "PromQL: 1 for each replica that requests are routed to, by label service."),
    ("llmchaos_ready_path", "string", "The path of the api that answers 200 while it takes requests."),
    ("llmchaos_tokens_per_s", "float", "Answer tokens a second that the stack can serve (default: 1000)."),
    ("llmchaos_slo", "string", "Your OpenSLO file, over your own metrics."),
    (
        "llmchaos_attach",
        "bool",
        "Your stack runs already: take part in it and leave it running (needs --chaos-unleash).",
    ),
    ("llmchaos_allow", "args", "What of it may reach beyond its own project, such as volume:models."),
)
# A key's example is in the ini file's own format: words here, which a TOML file writes as a text or a list.
_EXAMPLES = {
    "runtime": "local",
    "backend": "sim",
    "report": "reports",
    "compose": "compose.yaml",
    "prometheus": "prometheus",
    "targets": "web worker",
    "pushgateway": "push",
    "remediator": "fixer",
    "audit_file": "/audit/audit.jsonl",
    "model": "default",
    "replicas": "worker-1 worker-2",
    "replica_header": "x-replica",
    "busy_query": "sum by (service) (vllm:num_requests_running)",
    "rotation_query": "min by (service) (upstream_healthy)",
    "ready_path": "/readyz",
    "tokens_per_s": "500",
    "slo": "slo.yaml",
    "attach": "true",
    "allow": "volume:models",
}
_EXPECTED: dict[IniType, str] = {
    "string": "one text",
    "linelist": "a list of texts",
    "args": "a list of texts",
    "bool": "true or false",
    "float": "a number",
}
_FORMER = "llmchaos_services"
_NO_VALUE: dict[str, object] = {"args": (), "linelist": (), "bool": False, "float": None}
_DEST = "llmchaos_opt_"
SPELLING = "llmchaos-spelling"


@dataclass(frozen=True)
class Spelling:
    """The options whose alias another plugin owns. Registered with pytest's plugin manager, which carries it."""

    given_up: frozenset[str]


def add(parser: pytest.Parser) -> Spelling:
    """Register all options. An alias that another plugin owns is given up; the canonical name always works."""
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
    parser.addini(_FORMER, "No longer used: each role has a key of its own.", type="linelist", default=())
    for name, kind, text in INI:
        parser.addini(name, text, type=kind, default=_NO_VALUE.get(kind, ""))
    return Spelling(frozenset(given_up))


def _foreign_options(parser: pytest.Parser) -> set[str]:
    """Options that other plugins own: pytest 8 tells of a conflict only when it parses, too late to give up an alias."""
    groups = [*getattr(parser, "_groups", ()), getattr(parser, "_anonymous", None)]
    return {name for group in groups for option in getattr(group, "options", ()) for name in option.names()}


def spelling(config: pytest.Config, name: str) -> str:
    """An option as the command line has it or has to write it: by its alias, unless another plugin owns that."""
    canonical = f"--llmchaos-{name}"
    written = any(str(word).partition("=")[0] == canonical for word in config.invocation_params.args)
    return canonical if written or name in config.pluginmanager.getplugin(SPELLING).given_up else f"--chaos-{name}"


def given(config: pytest.Config, name: str) -> Any:
    return config.getoption(_DEST + name)


def text_of(config: pytest.Config, name: str, default: str) -> str:
    """A text option: the command line's, else the ini file's, else the default."""
    in_file = _ini(config, name)
    return str(given(config, name) or in_file or default)


def choice_of(config: pytest.Config, name: str, choices: tuple[str, ...], default: str) -> str:
    """Raises BadScenario, naming the choices, for anything else."""
    value = text_of(config, name, default)
    if value not in choices:
        key = spelling(config, name) if given(config, name) else f"llmchaos_{name}"
        raise BadScenario(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return value


def reports_of(config: pytest.Config) -> Path:
    """The folder for the evidence of runs."""
    folder: Path = config.rootpath / text_of(config, "report", "reports")
    return folder


def runtime_of(config: pytest.Config) -> str:
    return choice_of(config, "runtime", RUNTIMES, "auto")


def backend_of(config: pytest.Config) -> str | None:
    """The backend asked for; None where none was, and the runtime's own default holds."""
    return choice_of(config, "backend", BACKENDS, "ollama") if text_of(config, "backend", "") else None


def own_subject_of(config: pytest.Config) -> Subject | None:
    """The user's own stack, where the ini file names one. Raises BadScenario for a key that is wrong or missing."""
    toml = str(config.inipath).endswith(".toml")
    refuse_services(_ini(config, "services"), toml=toml)
    read: dict[str, Any] = {one.name: _ini(config, one.name) for one in fields(OwnKeys)}
    read |= {name: tuple(value) for name, value in read.items() if isinstance(value, list)}
    return own_subject(OwnKeys(**read), config.inipath.parent if config.inipath else config.rootpath, toml=toml)


def _ini(config: pytest.Config, name: str) -> Any:
    """An ini key's value. Raises BadScenario where it is not of its type, with an example in the ini file's format."""
    key = f"llmchaos_{name}"
    kinds: dict[str, IniType] = {one: kind for one, kind, _ in INI} | {_FORMER: "linelist"}
    kind = kinds[key]
    try:
        with warnings.catch_warnings():
            # pytest 9 warns of a list where a text is expected, which is refused here.
            warnings.simplefilter("ignore", pytest.PytestDeprecationWarning)
            value = config.getini(key)
    except (ValueError, TypeError, pytest.UsageError) as error:
        raise BadScenario(f"{key} must be {_EXPECTED[kind]}: {error}; write {_example(config, name, kind)}") from None
    if kind == "string":
        seen = _as_written(config, key, value)
        good = isinstance(seen, str)
    else:
        seen = value
        good = kind not in ("linelist", "args") or all(isinstance(one, str) and one.strip() for one in value)
    if not good:
        raise BadScenario(f"{key} must be {_EXPECTED[kind]}, got {seen!r:.80}: write {_example(config, name, kind)}")
    return value


def _as_written(config: pytest.Config, key: str, value: object) -> object:
    """A text as the TOML file has it: pytest makes a number or a boolean of [tool.pytest.ini_options] a text."""
    if not value or not str(config.inipath).endswith(".toml") or key in _overridden(config):
        return value
    table = tomllib.loads(config.inipath.read_text(encoding="utf-8")) if config.inipath else {}
    return table.get("tool", {}).get("pytest", {}).get("ini_options", {}).get(key, value)


def _example(config: pytest.Config, name: str, kind: IniType) -> str:
    words = _EXAMPLES.get(name, "web")
    if str(config.inipath).endswith(".toml") and kind in ("string", "linelist", "args"):
        quoted = ", ".join(f'"{word}"' for word in words.split())
        words = quoted if kind == "string" else f"[{quoted}]"
    return f"llmchaos_{name} = {words}"


def _overridden(config: pytest.Config) -> set[str]:
    """The ini keys of the command line's `-o KEY=VALUE`."""
    return {str(word).partition("=")[0] for word in config.getoption("override_ini") or ()}


def check_keys(config: pytest.Config) -> None:
    """Raises BadScenario for an ini key that begins as this plugin's do and that no plugin reads."""
    for key in sorted(_unread(config)):
        name = re.sub(r"(?i)^llm[-_ ]?chaos[-_ ]?", "", key)
        if name in {option for option, _, _ in OPTIONS}:
            raise BadScenario(f"{key} is no ini key: give {spelling(config, name)} on the command line instead")
        known = {one.removeprefix("llmchaos_"): one for one, _, _ in INI}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {known[near[0]]}?" if near else f"the keys are {', '.join(known.values())}"
        raise BadScenario(f"{key} is no ini key of pytest-llmchaos and would not be read: {hint}")


def _unread(config: pytest.Config) -> Iterator[str]:
    """The keys that begin as this plugin's do and that no plugin registered."""
    with warnings.catch_warnings():
        # pytest 9 deprecates the mapping in favour of getini(), which cannot list what a file holds.
        warnings.simplefilter("ignore", pytest.PytestDeprecationWarning)
        written = {*config.inicfg, *_overridden(config)}
    for key in written:
        if re.match(r"(?i)llm[-_ ]?chaos", key) and key not in {_FORMER, *(one for one, _, _ in INI)}:
            try:
                config.getini(key)
            except ValueError:
                yield key
            except (TypeError, pytest.UsageError):
                continue  # another plugin's own, with a value that is for that plugin to refuse


def is_attached(config: pytest.Config) -> bool:
    """Whether the stack is not the instrument's own. Raises BadScenario for anything but true or false."""
    return bool(_ini(config, "attach"))


def is_leashed(config: pytest.Config) -> bool:
    """Whether the stack must not be touched: it is attached to, and `--chaos-unleash` is not given."""
    return is_attached(config) and not given(config, "unleash")


def leash_message(config: pytest.Config) -> str:
    return f"leashed: the stack is not the instrument's own (llmchaos_attach); pass {spelling(config, 'unleash')} to hit it"


def only_plans(config: pytest.Config) -> bool:
    return bool(given(config, "plan")) or is_leashed(config)


def check(config: pytest.Config) -> None:
    """Raises BadScenario for whatever is wrong with the options and the ini file by themselves."""
    reports_of(config)
    runtime, own = runtime_of(config), own_subject_of(config)
    backend_of(config), repeat_of(config)
    if own is not None and runtime == "local":
        raise BadScenario(
            f"llmchaos_compose needs Docker Compose, got {spelling(config, 'runtime')}=local: drop the option"
        )


def seed_of(config: pytest.Config) -> int:
    """The run's seed: given, or drawn by the operating system."""
    text = given(config, "seed")
    return secrets.randbelow(2**32) if text is None else parse_seed(str(text))


def replayed_seed(config: pytest.Config, recorded: int) -> int:
    """The seed of the run that is performed again. Raises BadScenario where another one was given beside it."""
    text = given(config, "seed")
    if text is not None and parse_seed(str(text)) != recorded:
        raise BadScenario(
            f"{spelling(config, 'seed')}={text} contradicts {spelling(config, 'replay')}={given(config, 'replay')}, "
            f"whose run had the seed {recorded}: drop one of them"
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
