"""Claims that cannot be trusted: ended by an error, or true for every trial."""

from __future__ import annotations

import ast
import difflib
import inspect
import tokenize
import traceback
from collections.abc import Callable, Iterable, Iterator

import pytest

# Attributes that return a bool and raise nothing.
ANSWERS = {"met", "all_serve"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# Methods of the lab that have an effect only in a `with`.
LAB_BLOCKS = {"load", "inject", "phase"}
EXAMPLES = {
    "trial": "trial.time_to_recover_s <= 20",
    "arms": "arms.during_fault.availability.low >= 0.05",
}
EXPECT_ERRORS = {"raises", "RaisesGroup"}
# Values that distinguish the arms of an experiment. They do not depend on the outcome.
ARM_VALUES = {"is_control", "plan", "arm"}


def refutes(raised: BaseException) -> bool:
    """True for a failed assertion.

    Any other error ended the claim before its assertion.
    """
    if isinstance(raised, BaseExceptionGroup):
        return all(map(refutes, raised.exceptions))
    return isinstance(raised, AssertionError | pytest.fail.Exception)


def broken_off(raised: BaseException) -> str:
    """Why a claim ended before its assertion, with a guess at a misspelt name."""
    return f"the claim raised an error before its assertion: {type(raised).__name__}: {raised}{_guess(raised)}"


def note_guess(raised: BaseException) -> None:
    """Add the guess at a misspelt name to the error, unless Python has."""
    guess = _guess(raised).removeprefix(". ")
    if guess and guess not in "".join(traceback.format_exception_only(raised)):
        raised.add_note(guess)


def _guess(raised: BaseException) -> str:
    """Python's `Did you mean`, which is not part of an exception's message."""
    known: Iterable[str] = ()
    if isinstance(raised, AttributeError):
        known = dir(raised.obj)
    elif isinstance(raised, NameError):
        *_, (frame, _line) = traceback.walk_tb(raised.__traceback__)
        known = {**frame.f_builtins, **frame.f_globals, **frame.f_locals}
    close = difflib.get_close_matches(str(getattr(raised, "name", "")), known, n=1)
    return f". Did you mean: {close[0]!r}?" if close else ""


def passes_anyway(
    test: Callable[..., object],
    read: set[str] | None,
    *,
    arms: int,
    is_unjudged: bool = False,
    value: str = "trial",
) -> str | None:
    """Return why a passed claim would pass for every trial, or None if it would not.

    Args:
        test: the claim.
        read: values of the trial that it read, or None for a claim without a trial.
        arms: number of faults of its experiment, for `trial` times its arms. A claim
            may be about some of them.
        is_unjudged: True for a trial's last claim if no claim of it read a value.
        value: the fixture of the claim, `trial` or `arms`.
    """
    is_of_another_arm = read is not None and arms > 1 and bool(read) and read <= ARM_VALUES
    if is_of_another_arm and is_unjudged:
        return (
            "VacuousClaim: no claim of this arm reads a value of its trial, so it always holds: assert a value of "
            "each arm, such as `assert trial.alerts == ()` if `trial.is_control`"
        )
    if read is not None and read <= ARM_VALUES and not is_of_another_arm:
        such_as = EXAMPLES[value]
        return (
            f"VacuousClaim: this claim uses `{value}` and reads no value of it, so it always passes: assert a value, "
            f"such as `assert {such_as}`, or drop `{value}` from the arguments"
        )
    for line, what in vacuous_lines(test):
        return f"VacuousClaim: line {line} {what}"
    return None


def vacuous_lines(test: Callable[..., object]) -> Iterator[tuple[int, str]]:
    """Yield the line and defect of each statement that cannot fail.

    Empty without source.
    """
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
    # A decorator may use the test's return value. pytest only warns of one.
    for node in _statements(found, returns=function is test):
        answer = _unread(node)
        what = _always_true(node.test) if isinstance(node, ast.Assert) else None
        if answer is not None:
            what = f"compares and discards the result: write `assert {ast.unparse(answer)}`"
        elif isinstance(node, ast.Expr) and _is_block(node.value):
            what = f"does nothing without `with`: write `with {ast.unparse(node.value)}: ...`"
        if what is not None:
            yield first + node.lineno - 2, what


def _always_true(asserted: ast.expr) -> str | None:
    """Return why an asserted expression is always true, or None."""
    if isinstance(asserted, ast.GeneratorExp):
        what = "a generator: write `assert all(...)` or `assert any(...)`"
    elif isinstance(asserted, ast.Lambda):
        what = "a function that is not called"
    elif isinstance(asserted, ast.Constant) and isinstance(asserted.value, str):
        what = "a string: drop its quotes"
    else:
        return None
    return f"asserts a value that is always true, {what}"


def _statements(node: ast.AST, *, returns: bool) -> Iterator[ast.stmt]:
    """Statements below a node, except those expected to raise.

    `returns` includes `return` statements.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and (returns or not isinstance(child, ast.Return)):
            yield child
        if not (isinstance(child, ast.With | ast.AsyncWith) and any(map(_expects_an_error, child.items))):
            is_inner = isinstance(child, FUNCTIONS)
            yield from _statements(child, returns=returns and not is_inner)


def _unread(node: ast.stmt) -> ast.expr | None:
    """The comparison whose result this statement discards, or None."""
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
        return node.test.elts[0]  # `assert (condition, message)` is always true
    value = node.value if isinstance(node, ast.Expr | ast.Return) else None
    if isinstance(value, ast.Tuple) and value.elts:
        value = value.elts[0]
    return value if value is not None and _is_answer(value) else None


def _expects_an_error(item: ast.withitem) -> bool:
    call = item.context_expr
    named = call.func if isinstance(call, ast.Call) else call
    return getattr(named, "attr", getattr(named, "id", None)) in EXPECT_ERRORS


def _is_block(node: ast.AST) -> bool:
    """True for a call such as `lab.load(...)`, which has an effect only in a `with`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LAB_BLOCKS):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id == "lab"


def _is_answer(node: ast.AST) -> bool:
    if isinstance(node, ast.BoolOp):
        # `late or pytest.fail("late")` uses its result.
        return _is_answer(node.values[-1]) or not isinstance(node.values[-1], ast.Call | ast.Await)
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    asked = isinstance(node, ast.Attribute) and node.attr in ANSWERS
    return negated or asked or isinstance(node, ast.Compare) or _is_of_many(node)


def _is_of_many(node: ast.AST) -> bool:
    """True for `all` or `any` of expressions without a call."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"all", "any"}):
        return False
    return all(isinstance(of, ast.GeneratorExp | ast.ListComp) and not isinstance(of.elt, ast.Call) for of in node.args)
