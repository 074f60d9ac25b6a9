"""The ability `configure`: further environment variables of services."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import Inconclusive, NotReady
from pytest_llmchaos.prometheus.queries import Prometheus
from pytest_llmchaos.subject.environment import check_environment

if TYPE_CHECKING:
    from pytest_llmchaos.model import Environment, ServiceState
    from pytest_llmchaos.subject.lab import Subject

SCRAPED_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.1


class ConfigureAbility:
    """Mixin for runtimes that start the stack, which supply the restart.

    Attributes:
        subject: The stack.
    """

    subject: Subject

    def _forget_environment(self) -> None:
        """Take all services as started with their own variables, as by `up`."""
        # Variables of each service on top of its own. None if a restart failed.
        self._given: dict[str, Mapping[str, str] | None] = {}
        self._down: set[str] = set()  # services that a failed restart left down

    def _require_restartable(self, services: Sequence[str]) -> None:
        """Raise NotReady if one of these services cannot be restarted."""
        raise NotImplementedError

    def _restart_with(self, environment: Environment, running: Sequence[str], resting: Sequence[str]) -> None:
        """Give services other variables.

        Args:
            environment: Further variables of all services, whether they change or not.
            running: Services to restart. Returns once they are healthy.
            resting: Services that get their variables at their next start.

        Raises:
            NotReady: One cannot be restarted, or does not become healthy. Names it.
        """
        raise NotImplementedError

    def _runs(self, service: str) -> bool:
        raise NotImplementedError

    def start_remediator(self) -> None:
        raise NotImplementedError

    def stop_remediator(self) -> None:
        raise NotImplementedError

    def state(self, service: str) -> ServiceState:
        raise NotImplementedError

    def url(self, service: str) -> str:
        raise NotImplementedError

    def configure(self, environment: Environment) -> None:
        """Run the services with these variables on top of their own.

        Raises:
            BadScenario: A service may not be hit, or a variable has an impossible name
                or value. Nothing was touched.
            NotReady: A service cannot be restarted, does not become healthy or is not
                scraped. The next call restarts it again.
        """
        wanted = check_environment("configure(environment)", environment, self.subject.may_hit)
        named = sorted({*self._given, *wanted})
        changed = [name for name in named if self._given.get(name, {}) != wanted.get(name, {})]
        if not changed:
            return
        self._require_restartable(changed)
        running = [name for name in changed if name in self._down or self._runs(name)]
        self._given |= dict.fromkeys(changed)
        self._down.update(running)
        remediator = self.subject.remediator
        if remediator in running:  # else it would repair what restarts
            self.stop_remediator()
        restarted = [name for name in running if name != remediator]
        self._restart_with(wanted, restarted, [name for name in changed if name not in restarted])
        if restarted:
            self._require_scraped(restarted)
        if remediator in running:
            self.start_remediator()
        self._given = {**wanted}
        self._down.clear()

    def _require_scraped(self, services: Sequence[str]) -> None:
        """Wait until Prometheus has scraped each of these services since its start.

        One without a target of its own name is left out.
        """
        started_unix_s = {name: self.state(name).started_unix_s for name in services}
        prometheus, deadline = Prometheus(self.url(self.subject.prometheus)), time.monotonic() + SCRAPED_WITHIN_S
        while True:
            try:
                late = [
                    f"{one.service} at {one.url} ({one.last_error or 'not scraped yet'})"
                    for one in prometheus.targets()
                    if one.service in started_unix_s
                    and not (one.up and one.last_scrape_unix_s > started_unix_s[one.service])
                ]
            except Inconclusive as error:  # Prometheus itself was restarted
                late = [str(error)]
            if not late:
                return
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{', '.join(services)} was restarted with other variables, and Prometheus did not scrape it within "
                    f"{SCRAPED_WITHIN_S:g} s: {'; '.join(late)}; see its log"
                )
            time.sleep(_LOOK_EVERY_S)
