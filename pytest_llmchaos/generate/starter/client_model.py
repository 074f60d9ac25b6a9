"""The model that clients name, guessed from commands, settings and variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pytest_llmchaos.generate.starter.compose_file import Service, Stack
from pytest_llmchaos.generate.starter.guess import Guess

_VALUE = r"""[= ]+["']?(?!-)(\$\{?\w+[^\s}]*\}?|[\w./:@-]+)"""
# The name that clients send comes first, then that of a hub or a folder.
_SERVED = re.compile(rf"(?<!\S)(?:--served[-_]model[-_]name|--model[-_](?:alias|name)|--alias|-a){_VALUE}")
_LOADED = re.compile(rf"(?<!\S)(?:--model(?:[-_](?:id|path))?|--hf[-_]repo|-hf){_VALUE}")
_SERVES = re.compile(rf"\b(?:vllm serve|trtllm-serve(?: serve)?|lmdeploy serve api_server){_VALUE}")
_IN_SETTINGS = re.compile(r"(?m)^\s*-?\s*model_name:\s*[\"']?([\w./:@-]+)")
_PULLED = re.compile(rf"\bollama (?:pull|run|create){_VALUE}")
_PULLED_BY_HTTP = re.compile(r"""/api/pull\b.*?\\*["'](?:name|model)\\*["']\s*:\s*\\*["']([\w./:@-]+)""", re.DOTALL)
_PREPARES = re.compile(r"\bollama (?:pull|create)\b|/api/pull\b|huggingface-cli|\bhf download\b")
# Variables by how likely they hold the name that clients send.
_VARIABLES = tuple(
    re.compile(pattern)
    for pattern in (
        r"^(?:\w+_)?SERVED_MODEL_NAME(?:_OVERRIDE)?$|^LLAMA_ARG_ALIAS$|^(?:\w+_)?MODEL_ALIAS$",
        r"^MODEL(?:_NAME|_ID)?$",
        r"^(?:\w+_)?MODEL(?:_NAME|_ID)?S?$|^LLAMA_ARG_HF_REPO$",
    )
)
# Models that answer no chat.
_OTHER_USE = re.compile(
    r"(?i)embed|rerank|whisper|speech|audio|stt|tts|image|vision|ocr|moderation|guard|draft|specul|tokenizer|lora|"
    r"adapter|transcri|classif"
)
_NAME = re.compile(r"(?=.*[A-Za-z])[\w./:@-]{1,200}")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # what follows the entrypoint `vllm serve` of an image
_NO_NAMES = ("true", "false", "yes", "no", "on", "off", "none", "null", "auto")
_NO_PART = ("store", "monitor", "prometheus", "remediator")


def prepares(one: Service) -> bool:
    """Return whether a command only fetches a model."""
    return not one.written.ports and bool(_PREPARES.search(one.command))


def model(stack: Stack, near: Sequence[Service]) -> Guess:
    """Return the model that clients name.

    Args:
        stack: every service.
        near: the services that a request reaches, the first one first.
    """
    serving = [one for one in near if one.server.part not in _NO_PART]
    others = [one for one in stack.services.values() if one.server.part == "model" or prepares(one)]
    for candidates in (
        *(_of_service(one) for one in serving),
        (found for one in stack.services.values() for found in _pulled(one)),
        (found for one in others for found in _of_service(one)),
    ):
        for value, reason in candidates:
            return Guess(key="model", value=value, reason=reason)
    return Guess(
        key="model",
        value="default",
        reason=f"the name that clients of {near[0].name} send. None was found: write yours, if it checks the name",
        sure=False,
    )


def _of_service(one: Service) -> Iterator[tuple[str, str]]:
    """Names that a service gives to its model, the likeliest first, with reasons."""
    if one.server.part == "gateway":
        for name in _first_of_chat(match[1] for text in one.texts for match in _IN_SETTINGS.finditer(text)):
            yield name, f"the first model in the settings of {one.name}"
    for pattern in (_SERVED, _LOADED, _SERVES):
        for name in _named(pattern, one.command, one.variables):
            yield name, f"the command of {one.name} names it"
    first = one.command.split(" ", 1)[0]
    if one.server.part == "model" and _HUB_NAME.fullmatch(first):
        yield first, f"the command of {one.name} begins with it"
    for pattern in _VARIABLES:
        for variable, text in one.variables.items():
            name = re.split(r"[,;| ]", text.strip(), maxsplit=1)[0]
            if pattern.search(variable) and not _OTHER_USE.search(variable) and _is_name(name):
                yield name, f"the variable {variable} of {one.name} has it"


def _pulled(one: Service) -> Iterator[tuple[str, str]]:
    names = [name for text in one.texts for name in _named(_PULLED, text, one.variables)]
    names += [match[1] for text in one.texts for match in _PULLED_BY_HTTP.finditer(text)]
    for name in _first_of_chat(names):
        yield name, f"{one.name} pulls it"


def _named(pattern: re.Pattern[str], text: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Values of an option. A variable of the shell is that of the service."""
    for match in pattern.finditer(text):
        value = match[1]
        if value.startswith("$"):
            name, _, default = value.strip("${}").partition(":-")
            value = variables.get(name) or default
        if _is_name(value):
            yield value


def _first_of_chat(names: Iterator[str] | Sequence[str]) -> Iterator[str]:
    found = list(names)
    yield from sorted(found, key=lambda name: bool(_OTHER_USE.search(name)))


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text.lower() not in _NO_NAMES and "://" not in text
