"""Pytest plugin for coverage: records which test reaches each line.

Lines reached at import, in shared fixtures or after a test have the context "".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@contextlib.contextmanager
def _as(context: str, outside: list[str] = [""]) -> Iterator[None]:  # noqa: B006 - the enclosing contexts
    coverage = Coverage.current()
    assert coverage is not None, "the plugin is for `coverage run`"
    coverage.switch_context(context)
    outside.append(context)
    try:
        yield
    finally:
        outside.pop()
        coverage.switch_context(outside[-1])


def _test(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    with _as(_test(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: Any) -> Generator[None, Any, Any]:
    with _as(_test(request.node) if fixturedef.scope == "function" else ""):
        return (yield)
