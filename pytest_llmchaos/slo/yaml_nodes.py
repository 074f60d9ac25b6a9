"""YAML nodes that report errors with file, line and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import yaml

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class Place:
    """One YAML node and its path. Getters return its content or raise `error`."""

    node: Any
    source: str
    path: str
    error: type[BadScenario] = BadScenario

    @property
    def where(self) -> str:
        """Source, line and column: the beginning of each error message."""
        return _where(self.source, self.node.start_mark)

    def fail(self, expected: str) -> NoReturn:
        raise self.error(f"{self.where}: {self._name} must be {expected}, got {self._describe()}")

    def child(self, key: str) -> Place:
        """Return the value of a required key."""
        found = self.optional(key)
        if found is None:
            keys = ", ".join(sorted(str(k.value) for k, _ in self.node.value)) or "nothing"
            raise self.error(f"{self.where}: {self._name} must have {key!r}, it has {keys}")
        return found

    def optional(self, key: str) -> Place | None:
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"a mapping with {key!r}")
        for name, value in self.node.value:
            if name.value == key:
                return Place(node=value, source=self.source, path=f"{self.path}.{key}".lstrip("."), error=self.error)
        return None

    def only(self, *keys: str) -> None:
        """Raise for other keys, which the reader would ignore: most are misspelt."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"a mapping of {', '.join(keys)}")
        seen = set()
        for name, _ in self.node.value:
            place = Place(node=name, source=self.source, path=f"a key of {self._name}", error=self.error)
            if name.value not in keys:
                place.fail(f"one of {', '.join(keys)}")
            if name.value in seen:
                place.fail("given once")
            seen.add(name.value)

    def items(self) -> Iterator[Place]:
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("a list")
        for index, value in enumerate(self.node.value):
            yield Place(node=value, source=self.source, path=f"{self.path}[{index}]", error=self.error)

    def text(self) -> str:
        if not self._is_scalar or not str(self.node.value).strip():
            self.fail("a text")
        return str(self.node.value).strip()

    def number(self) -> float:
        if not self._is_scalar or self.node.tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            self.fail("a number")
        try:
            value = float(self.node.value)
        except ValueError:  # YAML's own: .inf, 0x10, 1:30
            self.fail("a decimal number")
        return value

    def flag(self) -> bool:
        if not self._is_scalar or self.node.tag != "tag:yaml.org,2002:bool":
            self.fail("true or false")
        return str(self.node.value).lower() in ("true", "yes", "on")

    def exactly(self, *allowed: str) -> str:
        value = self.text()
        if value not in allowed:
            self.fail(" or ".join(repr(one) for one in allowed))
        return value

    @property
    def _name(self) -> str:
        return self.path or "the document"

    @property
    def _is_scalar(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode)

    def _describe(self) -> str:
        if not self._is_scalar:
            return f"a {self.node.id} of {len(self.node.value)}"
        return repr(str(self.node.value)[:80])


def _where(source: str, mark: yaml.Mark) -> str:
    return f"{source}:{mark.line + 1}:{mark.column + 1}"


def documents(text: str, source: str, error: type[BadScenario] = BadScenario) -> tuple[Place, ...]:
    """Return the YAML documents of a text."""
    try:
        nodes: list[Any] = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as bad:
        mark = cast("yaml.Mark", bad.problem_mark)  # scanner, parser and composer always give one
        raise error(f"{_where(source, mark)}: must be YAML, got: {bad.problem}") from bad
    except yaml.YAMLError as bad:
        raise error(f"{source}: must be YAML, got: {bad}") from bad
    except RecursionError:
        raise error(f"{source}: must be YAML that is nested a few levels deep, got hundreds of levels") from None
    return tuple(Place(node=node, source=source, path="", error=error) for node in nodes)
