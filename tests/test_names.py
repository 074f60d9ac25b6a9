"""Claims about names that do not exist raise."""

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest

from pytest_llmchaos.errors import BadScenario, Inconclusive
from pytest_llmchaos.stats.names import Counts, Entries, Known, Name, Names
from pytest_llmchaos.stats.windows import windows

SERVICES = Known("service", ("api", "model-1", "model-2"))
NOTHING_KNOWN = Known("service")
API = Name("api", SERVICES)
HIT = Names(("api", "model-1"), SERVICES)
STARTS = Counts({"api": 2}, SERVICES, lambda _: 0)
REFUSED = r"there is no service 'apii': did you mean 'api'\? There are api, model-1, model-2"


@pytest.mark.parametrize(
    "claim",
    [
        lambda: API != "apii",
        lambda: API == "apii",
        lambda: "apii" not in API,
        lambda: "apii" not in HIT,
        lambda: HIT != ("api", "apii"),
        lambda: Names((), SERVICES).count("apii") == 0,
        lambda: any(name == "apii" for name in HIT),
        lambda: STARTS.get("apii", 0) == 0,
        lambda: STARTS["apii"] == 0,
        lambda: "apii" not in STARTS,
        lambda: STARTS != {"apii": 1},
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest_one(claim):
    with pytest.raises(BadScenario, match=REFUSED):
        claim()


def test_a_name_that_is_near_to_none_is_refused_with_all_of_them():
    with pytest.raises(BadScenario, match=r"there is no service 'grafana'. There are api, model-1, model-2"):
        assert STARTS["grafana"] == 0


def test_names_that_exist_are_plain_texts():
    assert API == "api"
    assert API != "model-1"
    assert "ap" in API
    assert "odel" not in API
    assert (f"{API}", repr(API), API.upper(), {API: 1}["api"]) == ("api", "'api'", "API", 1)
    assert type(copy.copy(API)) is str
    assert API != 5
    with pytest.raises(TypeError):
        assert 5 in API


def test_names_of_names_are_a_plain_tuple():
    assert HIT == ("api", "model-1")
    assert HIT != ("model-1", "api")
    assert HIT != ()
    assert HIT != []
    assert "model-2" not in HIT
    assert "api" in HIT
    assert (HIT.count("api"), HIT.count("model-2")) == (1, 0)
    assert hash(HIT) == hash(("api", "model-1"))
    assert repr(HIT) == "('api', 'model-1')"
    assert type(copy.copy(HIT)) is tuple


def test_what_may_have_gone_unseen_is_not_known_to_be_absent():
    some = Names(("api",), SERVICES, Inconclusive("not observed"))

    assert "api" in some
    assert some.count("api") == 1
    assert some != ()
    assert some != ("model-1",)  # api was seen, whatever else there was
    for claim in (
        lambda: "model-1" not in some,
        lambda: some == ("api",),
        lambda: some == ("api", "model-1"),
        lambda: some != ("api", "model-1"),
        lambda: some.count("model-1") == 0,
    ):
        with pytest.raises(Inconclusive, match="not observed"):
            claim()


def test_names_and_counts_of_a_value_become_those_of_a_plain_dict():
    @dataclass
    class Value:
        names: tuple[str, ...] = HIT
        counts: Mapping[str, int] = field(default_factory=lambda: STARTS)
        entries: tuple[int, ...] = Entries((1, 2), "{}")

    told = asdict(Value())

    assert told == {"names": ("api", "model-1"), "counts": {"api": 2}, "entries": (1, 2)}
    assert "apii" not in told["names"]
    assert told["counts"].get("apii", 5) == 5


def test_a_name_that_exists_has_a_count():
    assert STARTS == {"api": 2}
    assert STARTS != {"api": 1}
    assert STARTS != 5
    assert (STARTS["api"], STARTS["model-1"], STARTS.get("model-2", 7)) == (2, 0, 0)
    assert json.dumps({"restarts": STARTS}) == '{"restarts": {"api": 2}}'
    assert "model-1" not in STARTS
    assert (type(copy.deepcopy(STARTS)), pickle.loads(pickle.dumps(STARTS))) == (dict, {"api": 2})
    assert (len(STARTS), list(STARTS), repr(STARTS), dict(STARTS)) == (1, ["api"], "{'api': 2}", {"api": 2})


def test_nothing_is_refused_where_no_names_are_known():
    counts = Counts({"api": 2}, NOTHING_KNOWN, lambda _: 0)

    assert Name("api", NOTHING_KNOWN) != "x"
    assert "x" not in Name("api", NOTHING_KNOWN)
    assert "x" not in Names(("api",), NOTHING_KNOWN)
    assert counts.get("x", 5) == 5
    with pytest.raises(KeyError):
        assert counts["x"]


def test_what_is_known_prints_its_names():
    assert repr(SERVICES) == "<service: api, model-1, model-2>"


def test_an_outcome_that_does_not_exist_is_refused():
    (window,) = windows([], [("whole", 0, 1)])

    for claim in (lambda: window.outcomes.get("truncatd", 0), lambda: window.count_of("truncatd")):
        with pytest.raises(BadScenario, match="there is no outcome 'truncatd': did you mean 'truncated'"):
            claim()


def test_entries_refuse_a_text_and_are_a_plain_tuple_otherwise():
    entries = Entries((1, 2), "any(one.name == {} for one in entries)")

    assert 1 in entries
    assert 3 not in entries
    assert entries == (1, 2)
    assert type(copy.copy(entries)) is tuple
    with pytest.raises(BadScenario, match=r"'api' is a text, and these are not: .* any.one.name == 'api' for"):
        assert "api" not in entries
