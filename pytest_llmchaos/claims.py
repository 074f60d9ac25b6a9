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
EXPECT_ERRORS = {"raises", "RaisesGroup"}


def refutes(raised: BaseException) -> bool:
    """Whether a claim that ended with this is wrong. Any other error broke it off before it could judge."""
    if isinstance(raised, BaseExceptionGroup):
        return all(map(refutes, raised.exceptions))
    return isinstance(raised, AssertionError | pytest.fail.Exception)


def broken_off(raised: BaseException) -> str:
    """Why a claim did not come to judge, with a guess at a misspelt name."""
    return f"the claim broke off before it judged: {type(raised).__name__}: {raised}{_guess(raised)}"


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


def passes_anyway(test: Callable[..., object], read: set[str] | None, *, arms: int) -> str | None:
    """Why a claim that passed says nothing of its trial; None where it may.

    Args:
      test: the claim.
      read: the values of the trial that it read; None where it asked for no trial.
      arms: trials that its experiment has, one a fault. Claims tell several of them apart by `trial.is_control`.
    """
    if read is not None and not (read if arms > 1 else read - {"is_control"}):
        return (
            "VacuousClaim: this claim asked for `trial` and read no value of it, so it passes whatever the trial showed: assert one, "
            "such as `assert trial.time_to_recover_s <= 20`, or drop `trial` from the arguments"
        )
    for line, text in thrown_away(test):
        return f"VacuousClaim: line {line} compares and throws the answer away: write `assert {text}`"
    return None


def thrown_away(test: Callable[..., object]) -> Iterator[tuple[int, str]]:
    """Each statement of a test that is an answer which nothing looks at, by line. None where there is no source."""
    function = inspect.unwrap(test)
    try:
        lines, first = inspect.getsourcelines(function)
        # A method is indented.
        tree = ast.parse("if True:\n" + "".join(lines) if lines[0][:1].isspace() else "\n" + "".join(lines))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        return
    found = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None)
    if found is None or found.name != function.__name__:  # the file was edited while its test ran
        return
    for node in _statements(found):
        answer: ast.AST = node
        if isinstance(node, ast.Expr):
            answer = node.value
        elif isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple):  # as with brackets around the message
            answer = node.test
        if isinstance(answer, ast.Tuple) and answer.elts:
            answer = answer.elts[0]
        if _is_answer(answer):
            yield first + node.lineno - 2, ast.unparse(answer)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements below a node, but for those that are expected to raise."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if not (isinstance(child, ast.With | ast.AsyncWith) and any(map(_expects_an_error, child.items))):
            yield from _statements(child)


def _expects_an_error(item: ast.withitem) -> bool:
    call = item.context_expr
    named = call.func if isinstance(call, ast.Call) else call
    return getattr(named, "attr", getattr(named, "id", None)) in EXPECT_ERRORS


def _is_answer(node: ast.AST) -> bool:
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    asked = isinstance(node, ast.Attribute) and node.attr in ANSWERS
    return negated or asked or isinstance(node, ast.Compare | ast.BoolOp)
