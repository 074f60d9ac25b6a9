"""Limits of the machine, sequences and steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lab_common.values import InvalidValueError, require

State = Literal["frontend", "waiting", "running", "finished"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the engine. Comments have vLLM's names."""

    slots: int  # max_num_seqs
    batch_tokens: int  # max_num_batched_tokens
    max_model_tokens: int  # max_model_len
    blocks: int  # num_gpu_blocks
    block_tokens: int = 16  # block_size
    jitter: float = 0.0  # standard deviation of a step's duration, relative to its mean

    def __post_init__(self) -> None:
        for name in ("slots", "batch_tokens", "max_model_tokens", "blocks", "block_tokens"):
            require(name, getattr(self, name), at_least=1)
        require("jitter", self.jitter, at_most=0.5)
        if self.blocks * self.block_tokens < self.max_model_tokens:
            raise InvalidValueError(
                f"the KV cache holds {self.blocks * self.block_tokens} tokens ({self.blocks} blocks of "
                f"{self.block_tokens}), fewer than max_model_tokens {self.max_model_tokens}: raise blocks"
            )


@dataclass(eq=False, kw_only=True, slots=True)
class Sequence:
    """One request in the machine. The scheduler owns all but the first five fields."""

    name: str
    arrived_s: float
    prompt_tokens: int
    answer_tokens: int
    finish_reason: str = "length"
    prefix: tuple[bytes, ...] = ()

    state: State = "frontend"
    blocks: list[int] = field(default_factory=list)
    computed: int = 0  # tokens whose keys and values are in the cache
    published: int = 0  # prompt blocks offered to the prefix cache
    generated: int = 0
    cached: int = 0  # tokens of the prompt that were in the cache when it was first scheduled
    preemptions: int = 0
    queued_s: float = 0.0
    scheduled_s: float | None = None
    first_token_s: float = 0.0
    last_token_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of the batch."""

    start_s: float
    end_s: float
    sequences: list[Sequence]
    advances: list[int]  # tokens by which each sequence advances
