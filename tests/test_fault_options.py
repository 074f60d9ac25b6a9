"""Options of the faults: defaults and bounds."""

import math
from unittest.mock import ANY

import pytest
from support.primitives import ON_WIRE, REQUIRED

from pytest_llmchaos import faults
from pytest_llmchaos.errors import BadScenario
from pytest_llmchaos.faults.base import check_seconds

MIB = 2**20

TOKENS = ((0, 1_000_000), (1_000_001, 1.0))
WIRE_NUMBERS = [
    (faults.latency, "delay_s", None, (0.001, 600), (0, 600.5)),
    (faults.latency, "jitter_s", 0, (0, 0.5), (-0.001, 0.501)),
    (faults.bandwidth, "bytes_per_s", None, (1, 2**40), (0, 2**40 + 1)),
    (faults.reset, "after_bytes", 0, (0, 2**40), (2**40 + 1, 0.5)),
    (faults.late_first_token, "delay_s", None, (0.001, 3600), (0, 3600.5)),
    (faults.stall, "after_tokens", 0, *TOKENS),
    (faults.slow_drip, "every_s", None, (0.001, 60), (0, 60.5)),
    (faults.slow_drip, "bytes_per_piece", 1, (1, 2**20), (0, 2**20 + 1)),
    *((make, "after_tokens", 3, *TOKENS) for make in (faults.truncate, faults.inband_error, faults.malformed)),
    *((make, "after_tokens", 3, *TOKENS) for make in (faults.duplicate, faults.reorder)),
    (faults.flaky, "status", 503, (400, 599), (399, 600)),
    (faults.flaky, "share", 0.3, (0.001, 1), (0, 1.001)),
    (faults.slow_error, "status", 500, (400, 599), (399, 600)),
    (faults.slow_error, "delay_s", None, (0.001, 3600), (0, 3600.5)),
    *(
        (getattr(faults, one.primitive.kind), "share", 1, (0.001, 1), (0, 1.001))
        for one in ON_WIRE
        if one.primitive.kind != "flaky"
    ),
]
# Maker, option, default, least and most value, and values that are refused.
NUMBERS = [
    (faults.stop, "grace_s", 10, (1, 60), (0, 61)),
    (faults.limit_cpu, "cores", None, (0.01, 1024), (0.0099, 1024.5)),
    (faults.limit_memory, "mebibytes", None, (6, 16 * MIB), (5, 16 * MIB + 1)),
    (faults.overload, "times", 2.5, (1.001, 10), (1, 10.001)),
    (faults.overload, "max_tokens", 64, (1, 4096), (0, 4097)),
    (faults.gpu_saturation, "share", 0.9, (0.001, 0.99), (0, 0.991)),
    (faults.xid, "code", 79, (1, 999), (0, 1000)),
    (faults.cpu_fallback, "slowdown", 20, (1.001, 1000), (1, 1000.5)),
    (faults.thermal_throttling, "clock_ratio", 0.5, (0.051, 0.99), (0.05, 0.991)),
    (faults.corrupted_output, "share", 1, (0.001, 1), (0, 1.001)),
    (faults.slow_load, "load_s", 30, (0.001, 3600), (0, 3600.5)),
    *WIRE_NUMBERS,
    (faults.memory_leak, "bytes_per_s", 32 * MIB, (MIB, 1024 * MIB), (MIB - 1, 1024 * MIB + 1)),
]
TEXTS = [
    (faults.gpu_exhaustion, "what", "device_memory", ("device_memory", "kv_cache")),
    (faults.xid, "engine", "dies", ("dies", "errors", "survives")),
    (faults.corrupted_output, "how", "garbage", ("garbage", "wrong", "swapped")),
    (faults.latency, "distribution", "uniform", ("uniform", "normal")),
    (faults.truncate, "how", "clean", ("clean", "false_stop", "mid_event")),
]


def strength(made, option):
    """Return a fault's option. Engine faults keep theirs in a list."""
    return dict(getattr(made.primitive, "options", ())).get(option, made.strength.get(option))


def others(make, option):
    """Return what the maker requires besides this option."""
    required = REQUIRED.get(make.__name__, {})
    return {name: value for name, value in required.items() if name != option}


def name(one):
    return one.__name__ if callable(one) else None


@pytest.mark.parametrize(("make", "option", "default", "allowed", "refused"), NUMBERS, ids=name)
class TestNumber:
    def test_a_number_has_its_default(self, make, option, default, allowed, refused):
        if default is None:
            with pytest.raises(TypeError, match=rf"{make.__name__}\(\) missing 1 required keyword-only argument"):
                make("api", **others(make, option))
        else:
            assert strength(make("api", **others(make, option)), option) == default

    def test_a_number_may_be_its_least_and_its_most(self, make, option, default, allowed, refused):
        for value in allowed:
            made = make("api", **others(make, option), **{option: value})
            assert strength(made, option) == value

    def test_a_number_out_of_bounds_is_refused_with_its_bounds(self, make, option, default, allowed, refused):
        for value in (*refused, -allowed[1], math.inf, -math.inf, math.nan, None, "1", [1]):
            with pytest.raises(BadScenario, match=rf"faults\.{make.__name__}\({option}=\.\.\.\) must be ") as error:
                make("api", **others(make, option), **{option: value})
            assert str(error.value).endswith(f"got {value!r}")

    def test_a_number_is_not_a_truth_value(self, make, option, default, allowed, refused):
        for value in (True, False):
            with pytest.raises(BadScenario, match=rf"got {value}$"):
                make("api", **others(make, option), **{option: value})


@pytest.mark.parametrize(("make", "option", "default", "choices"), TEXTS, ids=name)
class TestText:
    def test_a_text_has_its_default(self, make, option, default, choices):
        assert make("api", **others(make, option)) == make("api", **others(make, option), **{option: default})

    def test_a_text_is_one_of_the_messages_choices(self, make, option, default, choices):
        for value in choices:
            assert strength(make("api", **others(make, option), **{option: value}), option) == value
        for value in ("", choices[0].upper(), None, [default], ANY):
            with pytest.raises(
                BadScenario, match=rf"\({option}=\.\.\.\) must be one of {', '.join(map(repr, choices))}"
            ):
                make("api", **others(make, option), **{option: value})


def test_the_blocks_that_a_full_cache_leaves_are_a_share():
    def of(**options):
        return strength(faults.gpu_exhaustion("api", what="kv_cache", **options), "ratio")

    assert of() == 0.999
    assert (of(ratio=0.001), of(ratio=1)) == (0.001, 1)
    for value in (0, 1.001, True, None):
        with pytest.raises(BadScenario, match=r"ratio=\.\.\.\) must be a number above 0 and at most 1, got"):
            of(ratio=value)


def test_a_crash_on_boot_lasts_as_long_as_its_lease():
    def lease_s(**options):
        return faults.crash_on_boot("api", **options).primitive.lease_s

    assert lease_s() == 6
    assert (lease_s(for_s=0.001), lease_s(for_s=300)) == (0.001, 300)
    for value in (0, 300.5, True):
        with pytest.raises(BadScenario, match=r"for_s=\.\.\.\) must be a number above 0 and at most 300, got"):
            lease_s(for_s=value)


def test_a_leak_ends_by_itself_at_a_gibibyte():
    assert strength(faults.memory_leak("api"), "at_most_bytes") == 1024 * MIB


def test_seconds_are_above_their_least_and_less_than_a_day():
    assert [check_seconds("x", value) for value in (0.001, 86399.5)] == [0.001, 86399.5]
    assert check_seconds("x", 3, least=2.5) == 3
    for value in (0, -1, 86400, True, "1", None):
        with pytest.raises(BadScenario, match=rf"x must be a number of seconds above 0 and below 86400, got {value!r}"):
            check_seconds("x", value)
    with pytest.raises(BadScenario, match=r"x must be a number of seconds above 2\.5 and below 86400, got 2\.5"):
        check_seconds("x", 2.5, least=2.5)


def test_a_draw_is_of_1_to_1000_faults_within_half_a_minute():
    among = [faults.kill("api")]

    assert faults.random(n=1, among=among).within_s == 30
    assert [faults.random(n=n, among=among).n for n in (1, 1000)] == [1, 1000]
    for n in (0, 1001, 1.0, True, None):
        with pytest.raises(BadScenario, match=rf"n=\.\.\.\) must be a whole number from 1 to 1000, got {n!r}"):
            faults.random(n=n, among=among)
