"""What a test's end says of its trial: refuted, broken off, or passed whatever the trial showed."""

from __future__ import annotations

import ast
import difflib
import inspect
import tokenize
import traceback
from collections.abc import Callable, Iterable, Iterator

import pytest

# Attributes that answer yes or no, and raise nothing where the answer is no.
ANSWERS = {"met", "all_serve"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# Methods of the lab that do something in a `with` alone.
LAB_BLOCKS = {"load", "inject", "phase"}
EXPECT_ERRORS = {"raises", "RaisesGroup"}
# Values that distinguish the arms of an experiment. They say nothing of what happened.
TELLS_ARMS = {"is_control", "plan"}


def refutes(raised: BaseException) -> bool:
    """Whether a claim that ended with this is wrong. Any other error broke it off before it could judge."""
    if isinstance(raised, BaseExceptionGroup):
        return all(map(refutes, raised.exceptions))
    return isinstance(raised, AssertionError | pytest.fail.Exception)


def broken_off(raised: BaseException) -> str:
    """Why a claim did not come to judge, with a guess at a misspelt name."""
    return f"the claim broke off before it judged: {type(raised).__name__}: {raised}{_guess(raised)}"


def note_guess(raised: BaseException) -> None:
    """Write the guess at a misspelt name below the error, where Python itself does not."""
    guess = _guess(raised).removeprefix(". ")
    if guess and guess not in "".join(traceback.format_exception_only(raised)):
        raised.add_note(guess)


def _guess(raised: BaseException) -> str:
    """Python's own `Did you mean`, which it writes into no message of an exception."""
    known: Iterable[str] = ()
    if isinstance(raised, AttributeError):
        known = dir(raised.obj)
    elif isinstance(raised, NameError):
        *_, (frame, _line) = traceback.walk_tb(raised.__traceback__)
        known = {**frame.f_builtins, **frame.f_globals, **frame.f_locals}
    close = difflib.get_close_matches(str(getattr(raised, "name", "")), known, n=1)
    return f". Did you mean: {close[0]!r}?" if close else ""


def passes_anyway(
    test: Callable[..., object], read: set[str] | None, *, arms: int, is_unjudged: bool = False
) -> str | None:
    """Why a claim that passed says nothing of its trial; None where it may.

    Args:
      test: the claim.
      read: the values of the trial that it read; None where it asked for no trial.
      arms: trials that its experiment has, one a fault. A claim may be about some of them.
      is_unjudged: whether it is the trial's last claim, and none before it read a value.
    """
    is_of_another_arm = read is not None and arms > 1 and bool(read) and read <= TELLS_ARMS
    if is_of_another_arm and is_unjudged:
        return (
            "VacuousClaim: no claim of this arm reads a value of its trial, so it holds whatever the trial showed: assert one of "
            "each arm, such as `assert trial.alerts == ()` where `trial.is_control`"
        )
    if read is not None and read <= TELLS_ARMS and not is_of_another_arm:
        return (
            "VacuousClaim: this claim asked for `trial` and read no value of it, so it passes whatever the trial showed: assert one, "
            "such as `assert trial.time_to_recover_s <= 20`, or drop `trial` from the arguments"
        )
    for line, what in vacuous_lines(test):
        return f"VacuousClaim: line {line} {what}"
    return None


def vacuous_lines(test: Callable[..., object]) -> Iterator[tuple[int, str]]:
    """Each statement of a test that no outcome could make fail: its line, and what is wrong. None where there is no source."""
    function = inspect.unwrap(test)
    try:
        lines, first = inspect.getsourcelines(function)
        # A method is indented.
        tree = ast.parse("if True:\n" + "".join(lines) if lines[0][:1].isspace() else "\n" + "".join(lines))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return
    found = next((node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)), None)
    if found is None or found.name != function.__name__:  # the file was edited while its test ran
        return
    # A decorator may look at what the test returns. pytest warns of it, and lets it pass.
    for node in _statements(found, returns=function is test):
        answer = _unread(node)
        what = _always_true(node.test) if isinstance(node, ast.Assert) else None
        if answer is not None:
            what = f"compares and throws the answer away: write `assert {ast.unparse(answer)}`"
        elif isinstance(node, ast.Expr) and _is_block(node.value):
            what = f"performs nothing without `with`: write `with {ast.unparse(node.value)}: ...`"
        if what is not None:
            yield first + node.lineno - 2, what


def _always_true(asserted: ast.expr) -> str | None:
    """Why an asserted expression is true whatever happened."""
    if isinstance(asserted, ast.GeneratorExp):
        what = "a generator: write `assert all(...)` or `assert any(...)`"
    elif isinstance(asserted, ast.Lambda):
        what = "a function that is not called"
    elif isinstance(asserted, ast.Constant) and isinstance(asserted.value, str):
        what = "a text: drop its quotes"
    else:
        return None
    return f"asserts what is always true, {what}"


def _statements(node: ast.AST, *, returns: bool) -> Iterator[ast.stmt]:
    """The statements below a node, but for those that are expected to raise. `returns`: also what the test returns."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and (returns or not isinstance(child, ast.Return)):
            yield child
        if not (isinstance(child, ast.With | ast.AsyncWith) and any(map(_expects_an_error, child.items))):
            is_inner = isinstance(child, FUNCTIONS)
            yield from _statements(child, returns=returns and not is_inner)


def _unread(node: ast.stmt) -> ast.expr | None:
    """The answer that this statement gives and nothing looks at."""
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
        return node.test.elts[0]  # brackets around both it and the message are always true
    value = node.value if isinstance(node, ast.Expr | ast.Return) else None
    if isinstance(value, ast.Tuple) and value.elts:
        value = value.elts[0]
    return value if value is not None and _is_answer(value) else None


def _expects_an_error(item: ast.withitem) -> bool:
    call = item.context_expr
    named = call.func if isinstance(call, ast.Call) else call
    return getattr(named, "attr", getattr(named, "id", None)) in EXPECT_ERRORS


def _is_block(node: ast.AST) -> bool:
    """Whether it is a call such as `lab.load(...)`, which does something in a `with` alone."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LAB_BLOCKS):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id == "lab"


def _is_answer(node: ast.AST) -> bool:
    if isinstance(node, ast.BoolOp):
        # `late or pytest.fail("late")` does something about its answer.
        return _is_answer(node.values[-1]) or not isinstance(node.values[-1], ast.Call | ast.Await)
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    asked = isinstance(node, ast.Attribute) and node.attr in ANSWERS
    return negated or asked or isinstance(node, ast.Compare) or _is_of_many(node)


def _is_of_many(node: ast.AST) -> bool:
    """Whether this is `all` or `any` of what asks and does nothing."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"all", "any"}):
        return False
    return all(isinstance(of, ast.GeneratorExp | ast.ListComp) and not isinstance(of.elt, ast.Call) for of in node.args)
