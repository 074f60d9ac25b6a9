"""Check that Prometheus has the metrics of the service levels."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host.http_client import request

if TYPE_CHECKING:
    from pytest_llmchaos.slo.arithmetic import Slo


METRICS_DEADLINE_S = 20.0  # the first scrape comes 5 to 6 s after Prometheus' start


def require_metrics(url: str, slos: Sequence[Slo], *, pushed: bool) -> None:
    """Wait until Prometheus has every metric of the service levels.

    Raises:
        NotReady: Metrics are missing after METRICS_DEADLINE_S. The message lists them.
    """
    names = {selector.partition("{")[0] for slo in slos for selector in (slo.good, slo.total)}
    clients = {name for name in names if name.startswith("llmchaos_")}
    if clients and not pushed:
        raise NotReady(
            f"the SLO file uses {', '.join(sorted(clients))}, which the clients count and push: "
            "set llmchaos_pushgateway, or write SLOs over your service's own metrics"
        )
    deadline = time.monotonic() + METRICS_DEADLINE_S
    while missing := sorted(name for name in names - clients if not _is_known(url, name)):
        if time.monotonic() > deadline:
            raise NotReady(
                f"Prometheus at {url} lacks the metric {', '.join(missing)} of the SLO file: "
                "check its name there, and that the service is scraped"
            )
        time.sleep(0.2)


def _is_known(url: str, name: str) -> bool:
    """True if the metric was scraped, or HELP and TYPE declare it without a sample."""
    declared = [name, re.sub(r"_(total|bucket|count|sum)$", "", name)]
    paths = [f"/api/v1/series?match[]={name}", *(f"/api/v1/metadata?metric={one}" for one in declared)]
    try:
        answers = (request("GET", url + path, timeout_s=3) for path in paths)
        return any(answer.is_success and answer.json().get("data") for answer in answers)
    except (OSError, ValueError, AttributeError):
        return False
