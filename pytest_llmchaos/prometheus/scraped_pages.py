"""Metrics pages of services, as Prometheus scraped them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from pytest_llmchaos.errors import PrometheusUnreachable
from pytest_llmchaos.prometheus.api import RefusedError, data_of
from pytest_llmchaos.servers.catalogue import servers
from pytest_llmchaos.servers.exposition import Page, Series, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pytest_llmchaos.prometheus.queries import Prometheus

# Series of a job that Prometheus itself makes.
_OWN = ("up", "ALERTS", "ALERTS_FOR_STATE")
# Values of the label that recording rules add.
_ORIGINS = ("native", "derived")


def page_of(server: Prometheus, service: str) -> Page:
    """Return the newest scrape of a service, without what rules record for its job.

    Args:
        server: Prometheus, whose targets have the labels `job` and `service`.
        service: the service.

    Raises:
        PrometheusUnreachable: Prometheus does not answer.
    """
    where = f'{{job="{service}",service="{service}"}}'
    try:
        declared = data_of(server, f"/api/v1/targets/metadata?match_target={quote(where)}")
        samples = data_of(server, f"/api/v1/query?query={quote(where)}")["result"]
    except (RefusedError, OSError) as error:
        raise PrometheusUnreachable(f"{server.url} could not answer about the metrics of {service}: {error}") from error
    found = [
        Series(name=plain(str(one["metric"]["__name__"])), labels=dict(one["metric"]), value=_value(one))
        for one in samples
        if "__name__" in one["metric"]
    ]
    series = [one for one in found if not (one.name in _OWN or one.name.startswith("scrape_") or _is_recorded(one))]
    return Page(types={plain(str(one["metric"])): str(one["type"]) for one in declared}, series=tuple(series))


def _value(sample: Mapping[str, Any]) -> float:
    """The value of a sample, of a native histogram its count."""
    return float(sample["histogram"][1]["count"] if "histogram" in sample else sample["value"][1])


def _is_recorded(series: Series) -> bool:
    """True for a series that rules recorded. Servers may have one of these labels."""
    return series.labels.get("origin") in _ORIGINS and series.labels.get("server") in servers()
