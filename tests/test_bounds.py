"""Bounds that are no edge of a histogram."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.errors import BetweenEdges
from pytest_llmchaos.servers.bounds import Within, described, neighbours, within
from pytest_llmchaos.slo.arithmetic import Slo
from pytest_llmchaos.slo.latency import by_edge, latency_bound
from pytest_llmchaos.trial.slo_result import SloResult

EDGES = (0.3, 0.5, 0.8, 1.0)


@pytest.mark.parametrize(
    ("bound", "found", "place"),
    [
        (0.4, (0.3, 0.5), "between the edges 0.3 and 0.5 s"),
        (0.5, (0.5, 0.5), None),
        (0.1, (0.0, 0.3), "below the first edge, 0.3 s"),
        (2.0, (1.0, math.inf), "above the last edge, 1 s"),
    ],
)
def test_the_neighbours_of_a_bound_are_the_edges_next_to_it(bound, found, place):
    for edges in (EDGES, reversed(EDGES)):
        assert neighbours(edges, bound) == found
    assert place is None or described(*found) == place


def test_no_edge_has_no_neighbour():
    assert neighbours((), 0.4) == (0.0, math.inf)


def test_a_share_within_a_bound_lies_between_those_of_its_edges():
    histogram = {0.3: 70.0, 0.5: 90.0, 0.8: 96.0, math.inf: 100.0}

    between, exact, low, high = (within([histogram], bound_s) for bound_s in (0.4, 0.5, 0.1, 2.0))

    assert between == Within(bound_s=0.4, lower_s=0.3, upper_s=0.5, least=70, most=90)
    assert (between.is_exact, between.place) == (False, "between the edges 0.3 and 0.5 s")
    assert exact == Within(bound_s=0.5, lower_s=0.5, upper_s=0.5, least=90, most=90)
    assert exact.is_exact
    assert (low.least, low.most, low.place) == (0, 70, "below the first edge, 0.3 s")
    assert (high.least, high.most, high.place) == (96, 100, "above the last edge, 0.8 s")


def test_each_of_two_servers_counts_by_its_own_edges():
    """One has the bound as an edge. Its count alone would give too low a share."""
    with_edge, without = {0.5: 40.0, math.inf: 50.0}, {0.4: 30.0, 0.8: 45.0, math.inf: 50.0}

    assert within([with_edge, without], 0.5) == Within(bound_s=0.5, lower_s=0.4, upper_s=0.8, least=70, most=85)


def test_no_histogram_has_no_events():
    assert within([], 0.5) == Within(bound_s=0.5, lower_s=0.5, upper_s=0.5, least=0, most=0)


TOOK_S = st.floats(0, 20, allow_nan=False)


@given(
    servers=st.lists(
        st.tuples(st.sets(st.floats(0.001, 10), max_size=6), st.lists(TOOK_S, max_size=40)), min_size=1, max_size=3
    ),
    bound_s=st.floats(0.001, 12),
)
def test_the_true_number_is_always_in_the_interval(servers, bound_s):
    histograms = [
        {edge: float(sum(one <= edge for one in took)) for edge in (*edges, math.inf)} for edges, took in servers
    ]
    true = sum(one <= bound_s for _, took in servers for one in took)

    found = within(histograms, bound_s)

    assert found.least <= true <= found.most
    assert not found.is_exact or found.least == true == found.most


@pytest.mark.parametrize(
    ("selector", "declared_s", "bound_s", "is_declared"),
    [
        ('x_bucket{le="0.5"}', 0.5, 0.5, True),
        ('x_bucket{le="0.50"}', 0.5, 0.5, True),
        ('x_bucket{le="0.5"}', None, 0.5, False),
        ('x_bucket{le="0.5"}', 2.5, 0.5, False),
        ('x_bucket{le=~"2|2[.]0"}', 2.0, 2.0, True),
        (r'x_bucket{le=~"2\\.5"}', 2.5, 2.5, True),
    ],
)
def test_a_bound_is_that_of_the_bucket_and_may_be_declared_besides(selector, declared_s, bound_s, is_declared):
    bound = latency_bound(selector, declared_s)

    assert (bound.bound_s, bound.is_declared) == (bound_s, is_declared)
    assert (bound.buckets, bound.every) == ("x_bucket", 'x_bucket{le="+Inf"}')
    assert bound.lacking == f'count(x_bucket{{le="+Inf"}}) > (count({selector}) or vector(0))'


def test_the_other_labels_of_a_bucket_are_kept():
    bound = latency_bound('x_bucket{job="api", le="0.5", error_type!~"a|b"}', None)

    assert bound.buckets == 'x_bucket{job="api",error_type!~"a|b"}'
    assert bound.every == 'x_bucket{job="api",error_type!~"a|b",le="+Inf"}'


def test_the_refusal_of_a_bound_names_its_neighbours_and_both_ways_out():
    bound = latency_bound('x_bucket{le="0.5"}', None)

    assert bound.refusal("between the edges 0.4 and 0.8 s") == (
        'the bound 0.5 s lies between the edges 0.4 and 0.8 s of x_bucket, so le="0.5" selects no bucket of it: choose an '
        'edge as the bound, or write the annotation llmchaos/threshold-seconds: "0.5" to have the share judged as an interval'
    )


@pytest.mark.parametrize(
    ("selector", "declared_s"),
    [
        ("x_total", 0.5),
        ("x_bucket", 0.5),
        ('x_total{le="0.5"}', 0.5),
        ('x_bucket{le="0.5",le="1"}', 0.5),
        ('x_bucket{le="+Inf"}', None),
        ('x_bucket{le="fast"}', 0.5),
        ('x_bucket{le!="0.5"}', 0.5),
        ('x_bucket{le=~"0.5|1"}', None),
        ('x_bucket{le=~"1|2"}', 0.5),
    ],
)
def test_other_selectors_have_no_bound(selector, declared_s):
    assert latency_bound(selector, declared_s) is None


def test_the_query_by_edge_is_of_the_window():
    assert by_edge("x_bucket", "x_count", 12.5) == (
        "(sum by (le) (x_bucket) - sum by (le) (x_bucket offset 12500ms)) "
        "/ on () group_left () (sum(x_count) - sum(x_count offset 12500ms))"
    )


SLO = Slo(
    name="ttft",
    objective=0.95,
    window_days=30,
    description="",
    good='x_bucket{le="0.5"}',
    total="x_count",
    threshold_s=0.5,
)


def result(least: float, most: float, **more) -> SloResult:
    bound = latency_bound(SLO.good, SLO.threshold_s)
    seen = Within(bound_s=0.5, lower_s=0.4, upper_s=0.8, least=least, most=most)
    return SloResult(
        slo=SLO,
        good=least,
        total=1000,
        window_s=20,
        rate_rps=50,
        query="q",
        within=seen,
        uncertainty=bound.uncertainty(seen.place),
        **more,
    )


def test_an_interval_on_one_side_of_the_objective_decides():
    assert result(962, 981).met
    assert not result(920, 949).met
    assert result(962, 981).value >= 0.95
    assert result(962, 981).bad_s <= 0.8  # 3.8 % of 20 s at most
    assert result(962, 981).share == (0.962, 0.981)
    assert result(962, 1004).share == (0.962, 1.0)
    assert "ttft: 0.962 to 0.981 of objective 0.95" in repr(result(962, 981))


@pytest.mark.parametrize(
    "claim",
    [
        lambda one: one.met,
        lambda one: one.value >= 0.95,
        lambda one: one.bad <= 50,
        lambda one: one.bad_s <= 1,
        lambda one: one.burn_rate <= 1,
        lambda one: 100 * one.value >= 95,
    ],
)
def test_an_objective_inside_the_interval_is_not_decided(claim):
    with pytest.raises(BetweenEdges) as raised:
        claim(result(940, 960))

    assert "the bound 0.5 s lies between the edges 0.4 and 0.8 s of x_bucket: choose an edge as the bound" in str(
        raised.value
    )
    assert "--custom-histogram-buckets" in str(raised.value)
    assert raised.value.verdict == "inconclusive"


def test_requests_that_are_open_widen_the_interval():
    """Of 1000 and 60 open ones 940 are within 0.4 s, and at most 960 and all open."""
    assert (result(940, 960, unknown=60).value.low, result(940, 960, unknown=60).value.high) == (
        940 / 1060,
        1020 / 1060,
    )


@given(took=st.lists(TOOK_S, min_size=50, max_size=200), edges=st.sets(st.floats(0.001, 10), max_size=6))
def test_a_decided_objective_is_decided_as_the_true_share_would(took, edges):
    seen = within([{edge: float(sum(one <= edge for one in took)) for edge in (*edges, math.inf)}], 0.5)
    true = sum(one <= 0.5 for one in took) / len(took)
    slo = Slo(
        name="half", objective=0.5, window_days=30, description="", good=SLO.good, total="x_count", threshold_s=0.5
    )
    found = SloResult(
        slo=slo, good=seen.least, total=len(took), window_s=20, rate_rps=5, query="", within=seen, uncertainty="coarse"
    )

    try:
        met = found.met
    except BetweenEdges:
        assert found.share[0] < 0.5 <= found.share[1]
    else:
        assert met == (true >= 0.5)
