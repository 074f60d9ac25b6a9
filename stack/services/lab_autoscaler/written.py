"""Policies as text: `hpa(target=0.7, maximum=8)`."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from lab_autoscaler.policies import LAWS, Fixed
from lab_common.values import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_autoscaler.policies import Policy


class InvalidPolicyError(ValueError):
    """A text that is no policy, with the way out."""


def parse(text: str, *, maximum: int | None = None) -> Policy:
    """The policy that a text describes.

    Values are numbers, True, False, or the name of a metric. Numbers that are not given
    are the law's defaults.

    Args:
        text: The policy.
        maximum: The maximum of a law that names none, in place of its default.

    Raises:
        InvalidPolicyError: with the text, and what was expected.
    """
    call = _call(text)
    name = call.func.id if isinstance(call.func, ast.Name) else ast.unparse(call.func)
    law = LAWS.get(name)
    if law is None:
        raise InvalidPolicyError(f"{text!r}: {name!r} is not a policy, expected one of {', '.join(LAWS)}")
    given: dict[str, object] = {}
    if call.args:
        if law is not Fixed or len(call.args) > 1:
            raise InvalidPolicyError(f"{text!r}: expected arguments by name, such as {_example(law)}")
        given["replicas"] = _value(text, call.args[0])
    allowed = [field.name for field in fields(law)]
    for keyword in call.keywords:
        if keyword.arg not in allowed:
            raise InvalidPolicyError(f"{text!r}: {name} has no {keyword.arg!r}, expected one of {', '.join(allowed)}")
        if keyword.arg in given:
            raise InvalidPolicyError(f"{text!r}: {keyword.arg} is given twice")
        given[keyword.arg] = _value(text, keyword.value)
    if maximum is not None and "maximum" in allowed:
        given.setdefault("maximum", maximum)
    build: Callable[..., Policy] = law
    try:
        return build(**given)
    except InvalidValueError as error:
        raise InvalidPolicyError(f"{text!r}: {error}") from None


def written(policy: Policy) -> str:
    """The shortest text of a policy: `parse` returns an equal one."""
    name = next(name for name, law in LAWS.items() if type(policy) is law)
    if isinstance(policy, Fixed):
        return f"{name}({policy.replicas})"
    values = {field.name: (getattr(policy, field.name), field.default) for field in fields(policy)}
    return f"{name}({', '.join(f'{key}={value}' for key, (value, default) in values.items() if value != default)})"


def scaled(policy: Policy, factor: float) -> Policy:
    """The policy with every time multiplied, for runs in another time.

    Rates in requests per second are not times and stay.

    Raises:
        InvalidPolicyError: with a factor that is not above 0, or too long a time.
    """
    if not factor > 0:
        raise InvalidPolicyError(f"the factor of a policy's times must be greater than 0, got {factor!r}")
    times = {field.name: getattr(policy, field.name) * factor for field in fields(policy) if field.name.endswith("_s")}
    try:
        return replace(policy, **times)
    except InvalidValueError as error:
        raise InvalidPolicyError(f"{written(policy)} with times multiplied by {factor:g}: {error}") from None


def _call(text: str) -> ast.Call:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = f", {error.msg}" if isinstance(error, SyntaxError) else ""
        raise InvalidPolicyError(f"{text!r}{reason}: expected a policy such as hpa(target=0.7, maximum=8)") from None
    if not isinstance(tree, ast.Call):
        raise InvalidPolicyError(f"{text!r}: expected a policy such as hpa(target=0.7, maximum=8)")
    return tree


def _value(text: str, node: ast.expr) -> object:
    """A number, a truth value, or the name of a metric with or without quotes."""
    if isinstance(node, ast.Name):
        return node.id
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, int | float | str):
        raise InvalidPolicyError(f"{text!r}: {ast.unparse(node)} is not a number, True, False or a metric's name")
    return value


def _example(law: type[Policy]) -> str:
    return "fixed(3)" if law is Fixed else f"{law.__name__.lower()}(maximum=8)"
