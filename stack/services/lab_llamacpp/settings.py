"""Settings of the llama.cpp runner, read from the environment and checked. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class SettingsError(Exception):
    """Every setting that is wrong, one a line."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server is started with. `context_tokens` is shared by all `parallel` requests."""

    host: str
    port: int
    model: str
    model_file: Path
    parallel: int
    context_tokens: int
    threads: int


def from_environment(variables: Mapping[str, str]) -> Settings:
    problems: list[str] = []

    def whole(name: str, default: int, least: int, most: int) -> int:
        text = variables.get(name) or str(default)
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        problems.append(f"{name} must be a whole number in {least}..{most}, got {text!r}")
        return default

    model_file = Path(variables.get("LAB_MODEL_FILE") or "/opt/lab/models/model.gguf")
    if not model_file.is_file():
        problems.append(f"LAB_MODEL_FILE must name a .gguf file, there is none at {str(model_file)!r}")
    settings = Settings(
        host=variables.get("LAB_HOST") or "127.0.0.1",
        port=whole("LAB_PORT", 8080, 1, 65535),
        model=variables.get("LAB_MODEL") or "smollm2:135m",
        model_file=model_file,
        parallel=whole("LAB_PARALLEL", 2, 1, 64),
        context_tokens=whole("LAB_CONTEXT_TOKENS", 2048, 128, 131_072),
        threads=whole("LAB_THREADS", 2, 1, 256),
    )
    if settings.context_tokens // settings.parallel < 128:
        problems.append(
            f"LAB_CONTEXT_TOKENS must leave 128 tokens to each of LAB_PARALLEL={settings.parallel} requests, "
            f"got {settings.context_tokens}"
        )
    if problems:
        raise SettingsError("\n".join(problems))
    return settings
