"""Defects of the SLOs, rules and scrapes, and of what the services count."""

from __future__ import annotations

from truth.defects import Patch, SubjectDefect

LAB = "stack/prometheus/rules/lab.yml"
BURNS = "stack/prometheus/rules/slo.yml"
SCRAPES = "stack/prometheus/prometheus.yml"
SLOS = "stack/slo.yaml"
OK = 'llmchaos_client_requests_total{outcome="ok"}'
ALL = 'llmchaos_client_requests_total{outcome!="cancelled"}'
AVAILABILITY = f"""\
              query: {OK}
        total:
          metricSource:
            type: Prometheus
            spec:
              query: {ALL}
"""


def _defect(
    name: str, what: str, file: str, old: str, new: str, *, scenario: str, caught_by: str, only: str
) -> SubjectDefect:
    return SubjectDefect(
        name=name,
        part="monitoring",
        what=what,
        patches=(Patch(file=file, old=old, new=new),),
        scenario=scenario,
        caught_by=caught_by,
        only=only,
    )


def _lost_api(
    name: str,
    what: str,
    file: str,
    old: str,
    new: str,
    *,
    caught_by: str = "test_a_lost_api_that_nothing_repairs_pages",
) -> SubjectDefect:
    """The arm without a repair of the API, which takes 15 s."""
    return _defect(name, what, file, old, new, scenario="kill_api", caught_by=caught_by, only="nothing_repairs")


def _ratio(good: str, of: str) -> str:
    """The expression that the generated rules record over 15 s."""

    def rate(counter: str) -> str:
        return f"rate({counter}[15s]) and {counter}"

    return f"clamp_min(1 - sum({rate(good)}) / (sum({rate(of)}) > 0), 0)"


MONITORING: tuple[SubjectDefect, ...] = (
    # Alerts of the lab's own rules.
    _lost_api(
        "service-down-waits-two-minutes",
        "ServiceDown waits 120 s before it fires",
        LAB,
        "        for: 1s # two evaluations",
        "        for: 120s # two evaluations",
    ),
    _lost_api(
        "service-down-names-no-service",
        "ServiceDown does not name the service that is down",
        LAB,
        "        expr: lab:service_up == 0",
        "        expr: min(lab:service_up) == 0",
    ),
    _lost_api(
        "service-down-is-a-ticket",
        "ServiceDown opens a ticket instead of a page",
        LAB,
        "        labels: {severity: page, signal: health}",
        "        labels: {severity: ticket, signal: health}",
    ),
    _defect(
        "service-up-forgets-replicas",
        "ServiceDown reads a metric of the api alone",
        LAB,
        'label_replace(llmlab_upstream_health{probe="shallow"}, "service"',
        'label_replace(llmlab_upstream_health{probe="deep"}, "service"',
        scenario="kill_model",
        caught_by="test_a_lost_replica_that_nothing_repairs_pages",
        only="lost_replica_that_nothing_repairs",
    ),
    _defect(
        "stuck-requests-wait-half-a-minute",
        "RequestStuck fires after 30 s without a token and not after 3 s",
        LAB,
        '"service", "$1", "replica", "(.+)")) > 3\n',
        '"service", "$1", "replica", "(.+)")) > 30\n',
        scenario="both_hung",
        caught_by="test_two_hung_replicas_page",
        only="hung_replicas_page",
    ),
    _defect(
        "stall-asks-for-negative-progress",
        "EngineStalled compares the engine's steps with a number that they cannot fall below",
        LAB,
        'increase(llmchaos:engine_steps_total{ticks="step"}[4s])) == 0\n            and on',
        'increase(llmchaos:engine_steps_total{ticks="step"}[4s])) < 0\n            and on',
        scenario="hung_model",
        caught_by="test_a_hung_replica_that_nothing_repairs_pages",
        only="nothing_repairs",
    ),
    _defect(
        "slow-probes-beyond-their-timeout",
        "ProbeSlow fires for health checks above 2 s, and the gateway gives each up after 1 s",
        LAB,
        "(llmlab_probe_duration_seconds[4s])) > 0.2\n",
        "(llmlab_probe_duration_seconds[4s])) > 2\n",
        scenario="latency_model",
        caught_by="test_a_slow_network_is_detected",
        only="slow_network",
    ),
    _defect(
        "xid-of-great-numbers-only",
        "GpuXid fires for codes above 100 alone",
        LAB,
        "max by (service) (DCGM_FI_DEV_XID_ERRORS) > 0",
        "max by (service) (DCGM_FI_DEV_XID_ERRORS) > 100",
        scenario="engine_errors",
        caught_by="test_a_failing_engine_is_detected",
        only="failing_engine_is_detected",
    ),
    # Burn alerts and what they read.
    _lost_api(
        "fast-burn-waits-two-minutes",
        "AvailabilityFastBurn waits 120 s before it fires",
        BURNS,
        "      - alert: AvailabilityFastBurn\n",
        "      - alert: AvailabilityFastBurn\n        for: 120s\n",
    ),
    _lost_api(
        "fast-burn-of-another-objective",
        "AvailabilityFastBurn takes its factor times the budget of latency, ten times as much",
        BURNS,
        'slo:error_ratio:rate15s{slo="availability"} > 14.4 * 0.005',
        'slo:error_ratio:rate15s{slo="availability"} > 14.4 * 0.05',
    ),
    _lost_api(
        "rule-divides-by-successes",
        "the recorded error ratio of availability is of the good answers and not of all",
        BURNS,
        _ratio(OK, ALL),
        _ratio(OK, OK),
        caught_by="TruthsDisagree",
    ),
    _lost_api(
        "slo-divides-by-successes",
        "availability is defined as good answers of good answers",
        SLOS,
        f"query: {ALL}",
        f"query: {OK}",
        caught_by="TruthsDisagree",
    ),
    _defect(
        "refused-is-good",
        "a request refused with Retry-After counts as a good one",
        SLOS,
        AVAILABILITY,
        AVAILABILITY.replace('="ok"', '=~"ok|http_429"'),
        scenario="request_saturation",
        caught_by="TruthsDisagree",
        only="saturation_is_detected",
    ),
    # Scrapes.
    _lost_api(
        "api-is-not-scraped",
        "Prometheus has no scrape of the api",
        SCRAPES,
        '  - job_name: api\n    static_configs:\n      - targets: ["api:8000"]\n        labels: {service: api}\n',
        "",
        caught_by="InvalidExperiment",
    ),
    _lost_api(
        "scraped-each-15-s",
        "Prometheus scrapes every 15 s and not every second",
        SCRAPES,
        "  scrape_interval: 1s",
        "  scrape_interval: 15s",
        caught_by="StaleData or PartialScrape",  # by the time of the last scrape
    ),
)
