"""YAML nodes that report errors with file, line and column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

import yaml

from pytest_llmchaos.errors import BadScenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
P = ParamSpec("P")
T = TypeVar("T")


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
            keys = ", ".join(sorted(str(k.value) for k, _ in self._pairs())) or "nothing"
            raise self.error(f"{self.where}: {self._name} must have {key!r}, it has {keys}")
        return found

    def optional(self, key: str) -> Place | None:
        """Return the value of a key, None if it is missing or null."""
        if not self.is_mapping:
            self.fail(f"a mapping with {key!r}")
        for name, value in self._pairs():
            if name.value == key and value.tag != _NULL:
                return Place(node=value, source=self.source, path=f"{self.path}.{key}".lstrip("."), error=self.error)
        return None

    def keys(self, prefix: str = "") -> tuple[Place, ...]:
        """Return the keys that begin with the prefix, merged ones included."""
        if not self.is_mapping:
            self.fail("a mapping")
        name = f"a key of {self._name}"
        return tuple(
            Place(node=key, source=self.source, path=name, error=self.error)
            for key, _ in self._pairs()
            if str(key.value).startswith(prefix)
        )

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Return keys and values, those of merge keys (`<<`) after the own ones."""
        found: list[tuple[Any, Any]] = []
        wanted, seen = [self.node], set()
        while wanted:
            node = wanted.pop(0)
            if isinstance(node, yaml.SequenceNode):
                wanted[:0] = node.value
            elif isinstance(node, yaml.MappingNode) and id(node) not in seen:
                seen.add(id(node))
                given = {key.value for key, _ in found if isinstance(key, yaml.ScalarNode)}
                for key, value in node.value:
                    if key.tag == _MERGE:
                        wanted.append(value)
                    elif not isinstance(key, yaml.ScalarNode) or key.value not in given:
                        found.append((key, value))
        return found

    def items(self) -> Iterator[Place]:
        if not self.is_list:
            self.fail("a list")
        for index, value in enumerate(self.node.value):
            yield Place(node=value, source=self.source, path=f"{self.path}[{index}]", error=self.error)

    def text(self) -> str:
        if not self._is_scalar or not str(self.node.value).strip():
            self.fail("a text")
        return str(self.node.value).strip()

    def number(self) -> float:
        if not self._is_scalar or self.node.tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            self.fail("a number, without quotes")
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
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_blank(self) -> bool:
        """True for null and for an empty text."""
        return self._is_scalar and not str(self.node.value).strip()

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


@dataclass(frozen=True, kw_only=True)
class Problems:
    """Errors of one text, collected so that one message lists all of them."""

    source: str
    error: type[BadScenario] = BadScenario
    _found: set[str] = field(default_factory=set)

    def of(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return the function's result, None if it raised the error, which is kept."""
        try:
            return function(*args, **kwargs)
        except self.error as error:
            self._found.add(str(error))
            return None

    def only(self, place: Place, *keys: str) -> None:
        """Keep an error for each other key, which a reader would ignore.

        Most are misspelt.
        """
        for key in self.of(place.keys) or ():
            if key.node.value not in keys:
                self.of(key.fail, f"one of {', '.join(keys)}")
        self.once(place)

    def once(self, place: Place) -> None:
        """Keep an error for each key that is given twice."""
        seen = set()
        for key in self.of(place.keys) or ():
            if str(key.node.value) in seen:
                self.of(key.fail, "given once")
            seen.add(str(key.node.value))

    @property
    def lines(self) -> tuple[str, ...]:
        """The messages, in the order of their lines and columns."""
        return tuple(sorted(self._found, key=self._order))

    def _order(self, message: str) -> tuple[list[int], str]:
        place = message.removeprefix(f"{self.source}:").split(": ", 1)[0]
        return [int(number) for number in place.split(":")], message

    def stop(self) -> None:
        """Raise one error with all messages, if there are any."""
        if self._found:
            raise self.error("\n".join(self.lines))


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


def objects(text: str, source: str, error: type[BadScenario] = BadScenario) -> tuple[Place, ...]:
    """Return the objects of a text: its documents, and the items of lists of objects.

    Empty documents are left out. A list is a YAML list or an object of kind `List`.
    """
    found: list[Place] = []
    for document in documents(text, source, error):
        items = document
        if document.is_mapping and (kind := document.optional("kind")) and kind.node.value == "List":
            items = document.optional("items") or document
        found += items.items() if items.is_list else [document]
    return tuple(one for one in found if not one.is_blank)
