"""Duration of one step of the machine, from its batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lab_common.values import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Coefficients of a roofline.

    A step costs its overhead plus the longer of memory traffic and arithmetic.
    """

    frontend_s: float = 0.0  # from the request's arrival to the scheduler's queue: HTTP, template, tokeniser
    step_s: float = 0.0  # fixed cost of a step: scheduling and kernel launches
    sequence_s: float = 0.0  # per sequence in the batch: sampling, detokenising
    weights_s: float = 0.0  # reading the weights that every step needs, once
    experts_s: float = 0.0  # reading the weights of all experts
    expert_share: float = 0.0  # share of the experts that one token activates (mixture-of-experts models), 0-1
    context_token_s: float = 0.0  # reading the cached keys and values of one token
    token_s: float = 0.0  # arithmetic for one token without attention
    pair_s: float = 0.0  # arithmetic of attention between one token and one earlier token

    def __post_init__(self) -> None:
        for field in fields(self):
            require(f"speed.{field.name}", getattr(self, field.name))
        require("speed.expert_share", self.expert_share, at_most=1)

    def duration_s(self, *, sequences: int, tokens: int, context_tokens: int, pairs: float) -> float:
        """Seconds of one step.

        Args:
            sequences: sequences in the batch.
            tokens: tokens by which they advance in all.
            context_tokens: cached tokens that are read.
            pairs: (token, earlier token) pairs attended to.
        """
        memory_s = self.weights_s + context_tokens * self.context_token_s
        if self.experts_s:
            # Tokens choose experts independently: read is 1 - the share all miss.
            memory_s += self.experts_s * (1 - (1 - self.expert_share) ** tokens)
        arithmetic_s = tokens * self.token_s + pairs * self.pair_s
        return self.step_s + sequences * self.sequence_s + max(memory_s, arithmetic_s)
