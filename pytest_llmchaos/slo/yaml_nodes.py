"""YAML whose every complaint names line, column, what was expected and what was seen. It knows no schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class Place:
    """One node of a YAML text, and the way to it. Getters return its content or complain at its place."""

    node: Any
    source: str
    path: str
    error: type[BadScenario] = BadScenario

    def fail(self, expected: str) -> NoReturn:
        mark = self.node.start_mark
        where = f"{self.source}:{mark.line + 1}:{mark.column + 1}"
        raise self.error(f"{where}: {self.path or 'the document'} must be {expected}, got {self._describe()}")

    def child(self, key: str) -> Place:
        """The value under `key`, which must be there."""
        found = self.optional(key)
        if found is None:
            mark = self.node.start_mark
            keys = ", ".join(sorted(str(k.value) for k, _ in self.node.value)) or "nothing"
            raise self.error(
                f"{self.source}:{mark.line + 1}:{mark.column + 1}: {self.path or 'the document'} must have "
                f"{key!r}, it has {keys}"
            )
        return found

    def optional(self, key: str) -> Place | None:
        if self._kind() != "mapping":
            self.fail(f"a mapping with {key!r}")
        for name, value in self.node.value:
            if name.value == key:
                return Place(node=value, source=self.source, path=f"{self.path}.{key}".lstrip("."), error=self.error)
        return None

    def only(self, *keys: str) -> None:
        """Refuse keys that nobody would read: a misspelt one would be silence."""
        if self._kind() != "mapping":
            self.fail(f"a mapping of {', '.join(keys)}")
        seen = set()
        for name, _ in self.node.value:
            place = Place(
                node=name, source=self.source, path=f"a key of {self.path or 'the document'}", error=self.error
            )
            if name.value not in keys:
                place.fail(f"one of {', '.join(keys)}")
            if name.value in seen:
                place.fail("given once")
            seen.add(name.value)

    def items(self) -> Iterator[Place]:
        if self._kind() != "sequence":
            self.fail("a list")
        for index, value in enumerate(self.node.value):
            yield Place(node=value, source=self.source, path=f"{self.path}[{index}]", error=self.error)

    def text(self) -> str:
        if self._kind() != "scalar" or not str(self.node.value).strip():
            self.fail("a text")
        return str(self.node.value).strip()

    def number(self) -> float:
        if self._kind() != "scalar" or self.node.tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            self.fail("a number")
        try:
            value = float(self.node.value)
        except ValueError:  # YAML's own: .inf, 0x10, 1:30
            self.fail("a decimal number")
        return value

    def flag(self) -> bool:
        if self._kind() != "scalar" or self.node.tag != "tag:yaml.org,2002:bool":
            self.fail("true or false")
        return str(self.node.value).lower() in ("true", "yes", "on")

    def exactly(self, *allowed: str) -> str:
        value = self.text()
        if value not in allowed:
            self.fail(" or ".join(repr(one) for one in allowed))
        return value

    def _kind(self) -> str:
        return str(self.node.id)

    def _describe(self) -> str:
        kind = self._kind()
        if kind != "scalar":
            return f"a {kind} of {len(self.node.value)}"
        return repr(str(self.node.value)[:80])


def documents(text: str, source: str, error: type[BadScenario] = BadScenario) -> tuple[Place, ...]:
    """The YAML documents of a text."""
    try:
        nodes: list[Any] = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise error(f"{where}: must be YAML, got: {bad.problem or bad}") from bad
    except yaml.YAMLError as bad:
        raise error(f"{source}: must be YAML, got: {bad}") from bad
    except RecursionError:
        raise error(f"{source}: must be YAML that is nested a few levels deep, got hundreds of levels") from None
    return tuple(Place(node=node, source=source, path="", error=error) for node in nodes)
