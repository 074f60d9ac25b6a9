"""A test's random draws, and the results of its own loads."""

from types import SimpleNamespace

import pytest

from pytest_llmchaos.lab.current_test import CurrentTest


def another(text):
    """An equal text that is another object, like names that pytest creates again."""
    return "".join(list(text))


def record(trial, outcome="held"):
    return SimpleNamespace(trial=trial, outcome=outcome)


class TestNumbers:
    """Numbers of a test's random draws."""

    def test_count_each_kind_of_draw_from_zero(self):
        test = CurrentTest(42)

        assert [test.number("load") for _ in range(3)] == [0, 1, 2]
        assert test.number("kill api") == 0

    def test_start_anew_with_their_test_and_with_no_other(self):
        test = CurrentTest(42)
        test.begin("b")
        test.number("load")
        for other in ("a", "c"):
            with test.within(other):
                assert test.number("load") == 0

        assert test.number("load") == 1
        with test.within(another("b")):
            assert test.number("load") == 0

    def test_outside_pytest_are_of_lab(self):
        outside, inside = CurrentTest(42), CurrentTest(42)
        inside.begin("lab")

        assert (outside.name, outside.hypothesis) == ("lab", "")
        assert outside.rng("kill", 0).random() == inside.rng("kill", 0).random()


def test_a_failing_fixture_restores_the_name_of_its_test():
    test = CurrentTest(42)
    test.begin("test_a.py::test_it", "It holds.")

    with test.within("shared"):
        assert (test.name, test.hypothesis) == ("shared", "")
    with pytest.raises(ValueError, match="it broke"), test.within("shared"):
        raise ValueError("it broke")

    assert (test.name, test.hypothesis) == ("test_a.py::test_it", "It holds.")


class TestOwnRecords:
    """Records of loads that a test ran by itself."""

    def test_own_records_are_claimed_once_after_their_end(self):
        test = CurrentTest(42)

        with test.owning(record("001")):
            assert test.claim() == {"001": None}
            assert test.claim() == {"001": None}, "what is open is of later tests as well"

        assert test.claim() == {"001": "held"}
        assert test.claim() == {}

    def test_records_that_broke_off_have_ended(self):
        test = CurrentTest(42)

        with pytest.raises(KeyboardInterrupt), test.owning(record("001", "invalid")):
            raise KeyboardInterrupt

        assert test.claim() == {"001": "invalid"}

    def test_records_that_ended_before_a_test_are_not_its_own(self):
        test = CurrentTest(42)

        with test.owning(record("001")):
            with test.owning(record("002")):
                pass
            test.begin("test_a.py::test_next")

            assert test.claim() == {"001": None}
