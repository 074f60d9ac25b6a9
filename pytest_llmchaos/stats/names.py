"""Names that exist, to detect misspelt names in claims.

`"ServiceDwn" not in trial.alerts` would hold whatever happened, so it raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Self, TypeVar

from pytest_llmchaos.errors import BadScenario, Inconclusive

V = TypeVar("V")


class Known:
    """The names that exist. Without names every text is accepted.

    Args:
        what: Their kind, such as "alert".
        names: All of them.
    """

    __slots__ = ("names", "what")

    def __init__(self, what: str, names: Iterable[str] = ()) -> None:
        self.what = what
        self.names = frozenset(map(str, names))

    def __repr__(self) -> str:
        return f"<{self.what}: {', '.join(sorted(self.names))}>"

    def require(self, name: object) -> None:
        """Check that a text is one of the names. The message suggests the nearest.

        Raises:
            BadScenario: It is not.
        """
        if self.names and isinstance(name, str) and str(name) not in self.names:
            self._refuse(name)

    def require_part(self, text: str) -> None:
        """Check that a text is part of a name.

        Raises:
            BadScenario: It is not.
        """
        if self.names and not any(text in name for name in self.names):
            self._refuse(text)

    def _refuse(self, name: str) -> None:
        names = sorted(filter(None, self.names))
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        meant = f": did you mean {near[0]!r}?" if near else "."
        raise BadScenario(f"there is no {self.what} {str(name)!r}{meant} There are {', '.join(names)}")


NONE_KNOWN = Known("name")  # for copies that `dataclasses.asdict` makes


class Name(str):
    """A name that raises BadScenario if compared with one that does not exist."""

    known: Known

    def __new__(cls, text: str, known: Known) -> Self:
        made = super().__new__(cls, text)
        made.known = known
        return made

    def __eq__(self, other: object, /) -> bool:
        same = str.__eq__(self, other) is True
        if not same:
            self.known.require(other)
        return same

    def __ne__(self, other: object, /) -> bool:
        return not self == other

    def __contains__(self, part: object, /) -> bool:
        found = str.__contains__(self, part)  # type: ignore[operator] # `str` refuses other types
        if not found and isinstance(part, str):
            self.known.require_part(part)
        return found

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Return plain text as the copy."""
        return str, (str(self),)


class Names(tuple[str, ...]):
    """Names that raise BadScenario if searched for one that does not exist.

    Args:
        names: Those that were seen.
        known: Those that exist.
        unseen: Error that explains why others may be missing. Raised if a claim needs
            the absence of a name.
    """

    known: Known
    unseen: Inconclusive | None

    def __new__(cls, names: Iterable[str], known: Known = NONE_KNOWN, unseen: Inconclusive | None = None) -> Self:
        made = super().__new__(cls, (Name(name, known) for name in names))
        made.known, made.unseen = known, unseen
        return made

    def __contains__(self, name: object, /) -> bool:
        self.known.require(name)
        found = super().__contains__(name)
        if self.unseen is not None and not found:
            raise self.unseen
        return found

    def __eq__(self, other: object, /) -> bool:
        for name in other if isinstance(other, tuple) else ():
            self.known.require(name)
        if self.unseen is not None and isinstance(other, tuple) and all(name in other for name in self):
            raise self.unseen
        return super().__eq__(other) is True

    def __ne__(self, other: object, /) -> bool:
        return not self == other

    def count(self, name: object) -> int:
        return super().count(name) if name in self else 0

    __hash__ = tuple.__hash__

    def __reduce__(self) -> tuple[type[tuple[str, ...]], tuple[tuple[str, ...]]]:
        """Return a plain tuple as the copy."""
        return tuple, (tuple(map(str, self)),)


class Entries(tuple[V, ...]):
    """Values other than text, which raise BadScenario if searched for a text.

    `"api" not in trial.actions` would always hold.

    Args:
        entries: The values.
        how: A claim that looks into the values, with `{}` in place of the text.
    """

    how: str

    def __new__(cls, entries: Iterable[V], how: str = "any(one.service == {} for one in ...)") -> Self:
        made = super().__new__(cls, entries)
        made.how = how
        return made

    def __contains__(self, entry: object, /) -> bool:
        if isinstance(entry, str):
            how = self.how.format(repr(str(entry)))
            raise BadScenario(f"{str(entry)!r} is a text, and these are not: look into each, such as {how}")
        return super().__contains__(entry)

    def __reduce__(self) -> tuple[type[tuple[V, ...]], tuple[tuple[V, ...]]]:
        """Return a plain tuple as the copy."""
        return tuple, (tuple(self),)


class Counts(dict[str, V]):
    """A value by name.

    An existing name without a value has that of `absent`. Another name raises
    BadScenario. Without known names it is a plain dict.
    """

    def __init__(
        self,
        counts: Mapping[str, V] | Iterable[tuple[str, V]],
        known: Known = NONE_KNOWN,
        absent: Callable[[str], V] | None = None,
    ) -> None:
        super().__init__(counts)
        self._known = known
        self._absent = absent

    def __missing__(self, name: str) -> V:
        self._known.require(name)
        if self._absent is None or not self._known.names:
            raise KeyError(name)
        return self._absent(name)

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override] # the default of a name that exists is its own
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        self._known.require(name)
        return super().__contains__(name)

    def __eq__(self, other: object) -> bool:
        for name in other if isinstance(other, Mapping) else ():
            self._known.require(name)
        return super().__eq__(other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # as of a dict

    def __reduce__(self) -> tuple[type[dict[str, V]], tuple[dict[str, V]]]:
        """Return a plain dict as the copy."""
        return dict, (dict(self),)
