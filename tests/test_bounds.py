"""Bounds that are no edge of a histogram."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmchaos.servers.bounds import Within, described, neighbours, within

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
