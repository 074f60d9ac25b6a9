"""Reasons for missing metrics."""

import pytest
from support.server_pages import full_page, made_up, native, page_with

from pytest_llmchaos.servers.losses import Fault
from pytest_llmchaos.servers.preflight import (
    ScrapedServer,
    contradiction,
    is_late,
    reason_of,
    rename_of,
)
from pytest_llmchaos.servers.recognition import recognise

PARROT = made_up(
    running=native("parrot:running{}"),
    waiting=native("parrot:waiting{}", needs="--metrics"),
    ttft=[native("parrot:first_seconds{}", since="1.2"), native("parrot:ttft_seconds{}", until="1.2")],
    failed=native("parrot:failed_total{}", late=True),
    done=native("parrot:done_total{}"),
)
OWL = made_up("owl", running=native("owl:running{}"))
NEW = [
    "parrot:running", "parrot:first_seconds_bucket", "parrot:first_seconds_sum", "parrot:first_seconds_count",
    "parrot:done_total",
]  # fmt: skip


def on(*names, service="model", server=PARROT, **about):
    return ScrapedServer(service=service, page=page_with(*names), server=server, **about)


def test_a_name_that_a_server_replaced_has_its_new_one_with_the_same_ending():
    parrot = on(*NEW, version="1.5")

    found = rename_of("parrot:ttft_seconds_bucket", [on("owl:running", server=OWL, service="other"), parrot])

    assert found == Fault(
        where="Parrot 1.5 on model",
        new=("parrot:first_seconds_bucket",),
        canonical="gen_ai_server_time_to_first_token_seconds_bucket",
        advice="Parrot has parrot:first_seconds_bucket in its place since 1.2.",
    )


def test_a_server_that_is_too_old_has_the_former_name():
    old = on("parrot:running", "parrot:ttft_seconds_bucket", "parrot:ttft_seconds_sum", "parrot:ttft_seconds_count")

    assert reason_of("parrot:first_seconds_count", [old]) == (
        "parrot:first_seconds_count: Parrot has parrot:ttft_seconds_count in its place (Parrot on model)"
    )


def test_a_name_that_is_also_in_a_sum_is_that_of_its_own_metric():
    old = made_up(
        tokens_in=[
            native("parrot:in_total{} + parrot:cached_total{}", since="2"),
            native("parrot:in_total{}", until="2"),
        ],
        prefix_hits=[
            native("parrot:cached_total{}", since="2"),
            {"status": "absent", "until": "2", "trap": "Not counted before 2.", "source": "m"},
        ],
    )
    scraped = [on("parrot:in_total", server=old, version="1")]

    assert rename_of("parrot:cached_total", scraped) is None
    assert reason_of("parrot:cached_total", scraped).endswith(
        "and the metric (absent). Not counted before 2 (Parrot 1 on model)"
    )


@pytest.mark.parametrize(
    "name", ["parrot:first_seconds_count", "parrot:other", "owl:running", "parrot:running", "parrot:failed_total"]
)
def test_other_names_were_not_replaced(name):
    assert rename_of(name, [on(*NEW)]) is None


def test_a_name_that_one_page_has_was_not_replaced():
    old = on("parrot:ttft_seconds_bucket", service="old")

    assert rename_of("parrot:ttft_seconds_bucket", [on(*NEW), old]) is None


@pytest.mark.parametrize(
    ("name", "page", "reason"),
    [
        ("parrot:ttft_seconds_sum", NEW, "Parrot has parrot:first_seconds_sum in its place since 1.2 (Parrot on model)"),
        ("llmchaos:requests_aborted_total", NEW, "Parrot lacks it (absent). not counted (Parrot on model)"),
        ("llmchaos:requests_waiting", NEW, "Parrot lacks it (needs option). The server exports it with --metrics (Parrot"),
        ("parrot:waiting", NEW, "The page lacks it (needs option). The server exports it with --metrics (Parrot on model)"),
        ("llmchaos:requests_failed_total", NEW, ""),
        ("parrot:failed_total", NEW, ""),
        (
            "llmchaos:requests_done_total",
            [*NEW[:-1], "parrot:donee_total"],
            "Parrot lacks it (missing). The page has parrot:donee_total, which is similar (Parrot on model)",
        ),
        ("parrot:done_total", ["parrot:running"], "The page lacks it (missing)"),
        ("llmchaos:requests_running", NEW, ""),
        ("web_requests_total", NEW, ""),
    ],
)  # fmt: skip
def test_a_missing_metric_has_its_reason(name, page, reason):
    found = reason_of(name, [on(*page)])

    assert found.startswith(f"{name}: {reason}" if reason else "")
    assert bool(found) == bool(reason)


def test_a_canonical_name_needs_a_known_server_whose_metrics_are_recorded():
    name = "llmchaos:requests_running"

    for scraped in ([], [on(*NEW, recorded=False)]):
        assert reason_of(name, scraped).startswith(
            "llmchaos:requests_running is recorded for a known model server alone, and no scraped service is one"
        )
    both = [on(*NEW, recorded=False), on("owl:running", server=OWL)]
    assert (
        reason_of("llmchaos:requests_waiting", both)
        == "llmchaos:requests_waiting: Owl lacks it (absent). not counted (Owl on model)"
    )


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("llmchaos:requests_failed_total", True),
        ("parrot:failed_total", True),
        ("llmchaos:requests_done_total", False),
        ("llmchaos:requests_aborted_total", False),
        ("web_failed_total", False),
    ],
)
def test_a_metric_that_begins_with_an_event_is_late_and_not_missing(name, late):
    assert is_late(name, [on(*NEW[:-1])]) is late


def test_what_comes_with_a_request_is_not_late_once_one_was_answered():
    late = made_up(
        running=native("parrot:running{}"),
        done=native("parrot:done_total{}", late=True),
        inter_token=native("parrot:gap_seconds{}", late=True),
        ttft=native("parrot:first_seconds{}", late=True, streams=True),
        e2e=native("parrot:whole_seconds{}", late=True),
    )

    scraped = [on("parrot:running", "parrot:ended", server=late)]

    assert not is_late("parrot:done_total", scraped)
    assert reason_of("parrot:done_total", scraped) == "parrot:done_total: The page lacks it (missing) (Parrot on model)"
    assert not is_late("parrot:whole_seconds_count", scraped)
    # The first answer may have one token only, or be no stream.
    assert is_late("parrot:gap_seconds_count", scraped)
    assert is_late("parrot:first_seconds_count", scraped)


def test_a_page_contradicts_a_named_server_without_any_of_its_names():
    known = [PARROT, OWL]
    owls = full_page(OWL)

    found = contradiction("web", PARROT, owls, recognise(owls, known))

    assert found == (
        "llmchaos_servers names web as parrot, whose metrics begin with parrot:, and the metrics page is another: "
        "it is of Owl; correct the entry"
    )
    other = page_with("web_a", "web_b", "web_c")
    assert contradiction("web", PARROT, other, recognise(other, known)).endswith(
        "it has web_a, web_b; correct the entry, or start the server with its options (--metrics)"
    )
    assert contradiction("web", OWL, other, recognise(other, known)).endswith("it has web_a, web_b; correct the entry")
    empty, mixed = page_with(), page_with("owl:running", "parrot:running")
    assert contradiction("web", PARROT, empty, recognise(empty, known)) == ""
    assert contradiction("web", PARROT, mixed, recognise(mixed, known)) == ""


def test_a_gateway_that_passes_on_an_engines_names_is_not_that_engine():
    gate = made_up(
        "gate",
        head='kind = "gateway"',
        running=native("gate:running{}"),
        waiting=native("gate:waiting{}"),
        done=native("gate:done_total{}"),
    )
    page = page_with("gate:running", "gate:waiting", "gate:done_total", "parrot:running")
    seen = recognise(page, [PARROT, gate])

    assert (seen.server, seen.certainty) == (gate, "certain")
    assert contradiction("web", PARROT, page, seen).endswith(
        "the metrics page is another: it is of Gate; correct the entry"
    )
