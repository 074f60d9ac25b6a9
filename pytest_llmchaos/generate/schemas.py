"""JSON Schemas of `run.json` and of a journal's line."""

from __future__ import annotations

import ast
import inspect
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import msgspec

from pytest_llmchaos.evidence import journal_lines, trial_result

DIALECT = "https://json-schema.org/draft/2020-12/schema"
JOURNAL = (
    "One line of journal.jsonl. Each line is fsynced. The last one may be torn. A new field does not change the version. "
    "A kind that is removed or changes its meaning does."
)
Schema = dict[str, object]


def schemas(root: Path) -> dict[Path, str]:
    """Return the text of each schema file of a checkout."""
    package = root / "pytest_llmchaos"
    return {
        package / "evidence" / "journal.schema.json": _text(_journal()),
        package / "report" / "run.schema.json": _text(_run()),
    }


def _run() -> Schema:
    """Return the schema of run.json. Fields that older files lack are optional."""
    classes = _classes([trial_result.RunResult])
    title, _, description = (inspect.getdoc(trial_result.RunResult) or "").partition("\n\n")
    top = _describe(trial_result.RunResult, classes, complete=True)
    top |= {"title": title.rstrip("."), "description": " ".join(description.split())}
    nested = [one for one in classes if one is not trial_result.RunResult]
    definitions = {one.__name__: _describe(one, classes, complete=True) for one in nested}
    return {"$schema": DIALECT, "$id": "urn:llmchaos:run:1", **top, "$defs": definitions}


def _journal() -> Schema:
    """Return one schema for each kind of line. Fields with a default are optional."""
    classes = _classes(journal_lines.KINDS)
    nested = [one for one in classes if one not in journal_lines.KINDS]
    return {
        "$schema": DIALECT,
        "title": journal_lines.SCHEMA,
        "description": JOURNAL,
        "oneOf": [_with_stamp(_describe(kind, classes)) for kind in journal_lines.KINDS],
        "$defs": {one.__name__: _describe(one, classes) for one in nested},
    }


def _with_stamp(line: Schema) -> Schema:
    """Add the time stamp of `Journal.write` to a line's schema."""
    properties, required = line["properties"], line["required"]
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise TypeError(f"expected the schema of a struct, got {line}")
    stamp = {"type": "number", "description": "Wall clock of the line, Unix seconds."}
    return {
        **line,
        "required": ["at_unix_s", *required],
        "properties": {"at_unix_s": stamp, **properties},
    }


def _describe(
    struct: type[msgspec.Struct], classes: dict[type[msgspec.Struct], Schema], complete: bool = False
) -> Schema:
    """Return the schema of one class, with the descriptions from its source."""
    schema = classes[struct]
    properties, required = schema["properties"], schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise TypeError(f"expected the schema of a struct, got {schema}")
    words = {name: text for one in reversed(struct.__mro__) for name, text in _words(one).items()}
    described = {name: {**value, **_description(words.get(name))} for name, value in properties.items()}
    if complete:
        lacking: frozenset[str] = getattr(struct, "added", frozenset())
        required = [name for name in properties if name not in lacking]
    about = " ".join((inspect.getdoc(struct) or "").split())
    closed = {"additionalProperties": False} if struct.__struct_config__.forbid_unknown_fields else {}
    return {"description": about, "type": "object", "required": required, **closed, "properties": described}


def _description(text: str | None) -> dict[str, str]:
    return {} if text is None else {"description": text}


@cache
def _words(struct: type) -> dict[str, str]:
    """Return the docstring below each field of a class."""
    if not issubclass(struct, msgspec.Struct) or struct is msgspec.Struct:
        return {}
    (body,) = ast.parse(inspect.getsource(struct)).body
    found = {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, below in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def _classes(
    roots: list[type[msgspec.Struct]] | tuple[type[msgspec.Struct], ...],
) -> dict[type[msgspec.Struct], Schema]:
    """Return the plain schema of each class and of those nested in it."""
    _, components = msgspec.json.schema_components(
        roots, schema_hook=lambda _: {"description": "Any JSON value."}, ref_template="#/$defs/{name}"
    )
    named = [one for module in (trial_result, journal_lines) for one in vars(module).values() if inspect.isclass(one)]
    known = {one.__name__: one for one in named if issubclass(one, msgspec.Struct)}
    return {known[name]: _plain(schema) for name, schema in components.items()}


def _plain(value: Schema) -> Schema:
    """Remove defaults and titles, and turn one-value enums into `const`."""
    return {name: _inner(inner) for name, inner in value.items() if name not in {"default", "title"}}


def _inner(value: object) -> object:
    if isinstance(value, dict):
        if set(value) == {"enum"} and len(value["enum"]) == 1:
            return {"const": value["enum"][0]}
        return {name: _inner(inner) for name, inner in value.items() if name != "default"}
    return [_inner(inner) for inner in value] if isinstance(value, list) else value


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
