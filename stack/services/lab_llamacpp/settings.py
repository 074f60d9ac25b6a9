"""Settings of the llama.cpp runner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab_common.settings import Section, parsed, text, whole


def _model_file(given: str = "/opt/lab/models/model.gguf") -> Path:
    if not Path(given).is_file():
        raise ValueError(f"the path of a .gguf file, no such file: {given!r}")
    return Path(given)


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Start settings. All `parallel` requests share `context_tokens`."""

    host: str = text("LAB_HOST", "127.0.0.1")
    port: int = whole("LAB_PORT", 8080, 1, 65535)
    model: str = text("LAB_MODEL", "smollm2:135m")
    model_file: Path = parsed("LAB_MODEL_FILE", _model_file, _model_file)
    parallel: int = whole("LAB_PARALLEL", 2, 1, 64)
    context_tokens: int = whole("LAB_CONTEXT_TOKENS", 2048, 128, 131_072)
    threads: int = whole("LAB_THREADS", 2, 1, 256)

    def conflicts(self) -> list[str]:
        if self.context_tokens // self.parallel >= 128:
            return []
        each = f"128 tokens for each of LAB_PARALLEL={self.parallel} requests"
        return [f"LAB_CONTEXT_TOKENS: expected {each}, got {self.context_tokens}"]
