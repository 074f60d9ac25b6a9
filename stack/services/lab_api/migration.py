"""Mid-stream migration: the rest of a cut answer comes from another replica."""

from aiohttp import web

from lab_api.ask import Ask
from lab_api.breaker import RetryBudget
from lab_api.client import ClientStream
from lab_api.continuation import Rest, rest_of
from lab_api.emitted import Emitted, NotContinuableError
from lab_api.exchange import Exchange
from lab_api.logs import logger
from lab_api.outcomes import REPORTED, GatewayError, Migrated
from lab_api.pool import Pool
from lab_api.rewriting import Rewriter
from lab_api.settings import Patterns, Retrying
from lab_api.sse import Scanner


class RecordedClient(ClientStream):
    """A client's stream that keeps what it has sent, up to a bound."""

    def __init__(
        self,
        request: web.Request,
        exchange: Exchange,
        keepalive_s: float | None,
        *,
        outlived: bool,
        kept_max_bytes: int,
    ) -> None:
        super().__init__(request, exchange, keepalive_s, outlived=outlived)
        self._kept: bytearray | None = bytearray()
        self._kept_max_bytes = kept_max_bytes

    def events(self) -> bytes:
        """All events so far, with the keep-alive comments.

        Raises:
            NotContinuableError: they were too long to be kept.
        """
        if self._kept is None:
            raise NotContinuableError(f"it is longer than {self._kept_max_bytes} bytes (LAB_MIGRATION_MAX_BYTES)")
        return bytes(self._kept)

    async def write(self, events: bytes) -> None:
        await super().write(events)
        self._keep(events)

    def forward(self, events: bytes) -> bool:
        self._keep(events)
        return super().forward(events)

    def _keep(self, events: bytes) -> None:
        if self._kept is None:
            return
        self._kept += events
        if len(self._kept) > self._kept_max_bytes:
            self._kept = None


class RestScanner(Scanner):
    """Scanner of the rest of an answer. It returns events that fit the ones before."""

    __slots__ = ("_rewriter",)

    def __init__(self, emitted: Emitted, events: int) -> None:
        super().__init__()
        self._rewriter = Rewriter(emitted)
        self.events = self.silent = events  # of the whole answer

    def feed(self, chunk: bytes) -> bytes:
        before, started = self.events, self.started
        try:
            events = self._rewriter(super().feed(chunk))
        except NotContinuableError as error:
            self.corrupted, events = f"not the rest of an answer: {error}", b""
            self.started = started  # a first token of another answer is not one of this
        kept = events.count(b"\n\n")
        self.silent -= self.events - before - kept
        self.events = before + kept
        return events


class Migrator:
    """Decides which cut answers another replica continues."""

    def __init__(self, retrying: Retrying, patterns: Patterns, *, pool: Pool, budget: RetryBudget) -> None:
        self._attempts_max = retrying.attempts_max
        self._budget = budget if patterns.retry_budget else None
        self._pool = pool

    def rest(self, ask: Ask, exchange: Exchange, client: RecordedClient, cut: GatewayError) -> Rest | Migrated:
        """The rest to request, or the reason not to.

        It takes one of the attempts of a request, and costs what a retry costs.
        """
        try:
            rest = rest_of(ask, client.events(), reported=cut.outcome in REPORTED)
        except NotContinuableError as error:
            logger.info("not migrated", extra={"request_id": exchange.request_id, "detail": str(error)})
            return Migrated.REFUSED
        if rest.ask is None or self._allowed(exchange):
            return rest
        return Migrated.DENIED

    def _allowed(self, exchange: Exchange) -> bool:
        return (
            max(exchange.attempts, len(exchange.tried)) < self._attempts_max  # `tried` has a failed hedge too
            and self._pool.has_good_candidate(exchange.tried)
            and (self._budget is None or self._budget.spend())
        )
