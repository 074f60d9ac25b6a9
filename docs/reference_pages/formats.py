"""Page of the file formats, from their JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from reference_pages.docstrings import ROOT
from reference_pages.markdown import bullets, page, prose

RUN, JOURNAL = "pytest_llmchaos/report/run.schema.json", "pytest_llmchaos/evidence/journal.schema.json"
ANY = "any value"
Schema = Mapping[str, Any]


def formats_page() -> str:
    """Return the page of `run.json` and `journal.jsonl`."""
    run, journal = (json.loads((ROOT / path).read_text(encoding="utf-8")) for path in (RUN, JOURNAL))
    parts = [
        f"JSON Schemas: [run.schema.json](../../{RUN}), [journal.schema.json](../../{JOURNAL}).",
        "A name in *italics* is optional.",
        "## run.json",
        prose(run["description"]),
        _fields(run),
        *_definitions(run["$defs"]),
        "## journal.jsonl",
        prose(journal["description"]),
        "Every line has its `kind` and `at_unix_s`, the wall clock in Unix seconds.",
    ]
    for line in journal["oneOf"]:
        kind = line["properties"]["kind"]["const"]
        parts += [f"### Line `{kind}`", prose(line["description"]), _fields(line, {"kind", "at_unix_s"})]
    shared = {name: one for name, one in journal["$defs"].items() if name not in run["$defs"]}
    return page("File formats", *parts, *_definitions(shared))


def _definitions(definitions: Mapping[str, Schema]) -> Iterable[str]:
    for name, one in definitions.items():
        yield from (f"### `{name}`", prose(one.get("description", "")), _fields(one))


def _fields(schema: Schema, hidden: Collection[str] = ()) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, one in schema.get("properties", {}).items():
        if name in hidden:
            continue
        shown = f"`{name}`" if name in required else f"*`{name}`*"
        text = one.get("description", "")
        rows.append(f"{shown} ({_type(one)})" + (f": {prose(text)}" if text else ""))
    return bullets(rows)


def _type(one: Schema) -> str:
    """Return a field's type in words."""
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in one or "enum" in one:
        return " or ".join(f"`{json.dumps(value)}`" for value in one.get("enum", [one.get("const")]))
    if "anyOf" in one:
        return " or ".join(map(_type, one["anyOf"]))
    if one.get("type") == "array":
        return f"list of {_type(one['items'])}" if one.get("items") else "list"
    if one.get("type") == "object":
        inner = one.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, Mapping) and _type(inner) != ANY else "object"
    return str(one.get("type", ANY))
