"""Entries of functions and classes, from docstrings that griffe parses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import griffe
from griffe import Attribute, Class, DocstringSection, Function, Object

from reference_pages.markdown import bullets, fence, prose

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "pytest_llmchaos"
WIDTH = 88
MOST_CHOICES = 6  # a longer alias keeps its name
_OPTIONS = {"returns_named_value": False, "returns_multiple_items": False, "warnings": False}
_HIDDEN = {"how_to_claim", "note_reads"}  # for the instrument itself


@dataclass(frozen=True)
class Docs:
    """A docstring's parts. Texts that stand between sections are joined."""

    text: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: tuple[tuple[str, str], ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    examples: str = ""


class Source:
    """The package as griffe reads it, without importing it.

    Attributes:
        links: the page and anchor of each class that has an entry, by the class's name.
    """

    def __init__(self, links: Mapping[str, str], root: Path = ROOT) -> None:
        """Read the package below `root`."""
        self.links = links
        self._package = griffe.load(PACKAGE, search_paths=[root], allow_inspection=False)

    def function(self, path: str) -> Function:
        """Return a function by its dotted path below the package."""
        found = self._package[path]
        if not isinstance(found, Function):
            raise TypeError(f"expected {path} to be a function, got {found}")
        return found

    def cls(self, path: str) -> Class:
        """Return a class by its dotted path below the package."""
        found = self._package[path]
        if not isinstance(found, Class):
            raise TypeError(f"expected {path} to be a class, got {found}")
        return found

    def docs(self, one: Object) -> Docs:
        """Return the parts of an object's docstring."""
        sections = one.docstring.parse("google", **_OPTIONS) if one.docstring else []
        return _docs(sections)

    def type_of(self, annotation: str | griffe.Expr | None) -> str:
        """Return an annotation as code, with links to the classes in it."""
        if annotation is None:
            return ""
        text = _double_quoted(self._resolved(annotation))
        named = [name for name in dict.fromkeys(re.findall(r"\w+", text)) if name in self.links]
        if text in named:
            return f"[`{text}`]({self.links[text]})"
        return f"`{text}`" + "".join(f", see [`{name}`]({self.links[name]})" for name in named)

    def default_of(self, parameter: griffe.Parameter) -> str:
        """Return a parameter's default, with the value of a constant, or ""."""
        default = parameter.default
        if default is None or (parameter.kind and "variadic" in parameter.kind.value):
            return ""
        return _double_quoted(self._resolved(default))

    def _resolved(self, expression: str | griffe.Expr) -> str:
        text = str(expression)
        names = [expression] if isinstance(expression, griffe.ExprName) else []
        if isinstance(expression, griffe.Expr) and not names:
            names = [one for one in expression.iterate(flat=True) if isinstance(one, griffe.ExprName)]
        for name in names:
            value = self._value(name)
            if value:
                text = value.join(re.split(rf"\b{name.name}\b", text))
        return text

    def _value(self, name: griffe.ExprName) -> str:
        """Return the value of a constant or of a type's alias, or ""."""
        try:
            found = self._package[name.canonical_path.removeprefix(f"{PACKAGE}.")]
            found = found.final_target if isinstance(found, griffe.Alias) else found
        except (KeyError, griffe.GriffeError):
            return ""
        value = str(found.value) if isinstance(found, Attribute) and found.value is not None else ""
        literal = re.fullmatch(r"Literal\[(.*)\]", value, re.DOTALL)
        if literal:
            choices = re.findall(r"['\"][^'\"]*['\"]", literal[1])
            return " | ".join(choices) if len(choices) <= MOST_CHOICES else ""
        return "" if "TypeVar(" in value else value


def _double_quoted(text: str) -> str:
    return re.sub(r"'([^'\"]*)'", r'"\1"', text)


def _docs(sections: Iterable[DocstringSection]) -> Docs:
    texts: list[str] = []
    parameters: dict[str, str] = {}
    attributes: dict[str, str] = {}
    raises: list[tuple[str, str]] = []
    returns = examples = ""
    for section in sections:
        kind, value = section.kind.value, section.value
        if kind == "text":
            texts.append(value)
        elif kind == "parameters":
            parameters |= {one.name.lstrip("*"): one.description for one in value}
        elif kind == "attributes":
            attributes |= {one.name: one.description for one in value}
        elif kind == "raises":
            raises += [(str(one.annotation), one.description) for one in value]
        elif kind in ("returns", "yields"):
            returns = "\n".join(one.description for one in value)
        elif kind == "examples":
            examples = "\n\n".join(text if what.value == "text" else fence(text) for what, text in value)
        elif kind == "admonition":
            texts.append(f"{section.title or value.kind}: {value.contents}")
    return Docs("\n\n".join(texts), parameters, returns, tuple(raises), attributes, examples)


def function_entry(source: Source, name: str, function: Function, lent: Mapping[str, str] | None = None) -> str:
    """Return signature, text, arguments, result and errors.

    Args:
        source: the package.
        name: how a user calls it, such as `faults.kill`.
        function: the function as griffe read it.
        lent: descriptions of arguments that its own docstring leaves out.
    """
    docs = source.docs(function)
    described = {**(lent or {}), **docs.parameters}
    arguments = []
    for one in function.parameters:
        if one.name not in ("self", "cls"):
            default, text = source.default_of(one), prose(described.get(one.name, ""))
            notes = [source.type_of(one.annotation), f"default `{default}`" if default else ""]
            noted = ", ".join(note for note in notes if note)
            arguments.append(f"`{one.name}`" + (f" ({noted})" if noted else "") + (f": {text}" if text else ""))
    parts = [_signature(source, name, function), prose(docs.text)]
    if arguments:
        parts += ["Arguments:", bullets(arguments)]
    returned = "" if str(function.returns) == "None" else source.type_of(function.returns)
    if docs.returns or returned:
        parts.append(f"Returns {returned}".rstrip() + (f": {prose(docs.returns)}" if docs.returns else "."))
    return _joined([*parts, *_raises(docs), docs.examples])


def _signature(source: Source, name: str, function: Function) -> str:
    """Return a call in a block of code: names and defaults."""
    parts: list[str] = []
    for one in function.parameters:
        if one.name not in ("self", "cls"):
            kind = one.kind.value if one.kind else ""
            prefix = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
            if kind == "keyword-only" and not any(part.startswith("*") for part in parts):
                parts.append("*")
            default = source.default_of(one)
            parts.append(f"{prefix}{one.name}" + (f"={default}" if default else ""))
    line = f"{name}({', '.join(parts)})"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"
    return fence(line)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _raises(docs: Docs) -> list[str]:
    if not docs.raises:
        return []
    return ["Raises:", bullets(f"{prose(error)}: {prose(text)}" for error, text in docs.raises)]


def members_of(one: Class) -> dict[str, Attribute | Function]:
    """Return a class's public members in the order of the source."""
    return {
        name: member
        for name, member in one.members.items()
        if not name.startswith("_") and name not in _HIDDEN and isinstance(member, Attribute | Function)
    }


def class_entry(source: Source, one: Class, spoken: str, *, level: int = 2) -> str:
    """Return a class's text and an entry for each of its public members.

    A field is one line of a list, with its description from the class's `Attributes:`.
    """
    docs = source.docs(one)
    mark = "#" * (level + 1)
    fields, parts = [], []
    for name, member in members_of(one).items():
        if isinstance(member, Function):
            parts += [f"{mark} `{name}`", function_entry(source, f"{spoken}.{name}", member)]
        elif "property" in member.labels:
            parts += [f"{mark} `{name}`", _property(source, f"{spoken}.{name}", member)]
        else:
            text = docs.attributes.get(name) or source.docs(member).text
            if text or "dataclass" in one.labels or "__init__" not in one.members:
                kind = source.type_of(member.annotation)
                fields.append(f"`{name}`" + (f" ({kind})" if kind else "") + (f": {prose(text)}" if text else ""))
    head = [prose(docs.text), *_raises(docs), docs.examples]
    if fields:
        head += [f"Fields of `{spoken}`:", bullets(fields)]
    return _joined([*head, *parts])


def _property(source: Source, spoken: str, member: Attribute) -> str:
    docs = source.docs(member)
    kind = source.type_of(member.annotation)
    return _joined(
        [
            f"`{spoken}`: {kind}" if kind else f"`{spoken}`",
            prose(docs.text),
            prose(docs.returns),
            *_raises(docs),
            docs.examples,
        ]
    )
