"""A run whose strings are hostile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import reportdata
from support.reportdata import Made

HOSTILE = [
    "<script>document.title='pwned'</script>",
    "</script><script>document.title='pwned'</script>",
    "</style><img src=x onerror=\"document.title='pwned'\">",
    "'\"><svg onload=document.title='pwned'>",
    "javascript:document.title='pwned'",
    "--><!--<script>document.title='pwned'",
    "]]><![CDATA[<script>document.title='pwned'</script>",
    "{{ cycler.__init__.__globals__ }} {% raw %} ${7*7} {# #}",
    "\x00\x07\x08\x1b[2J\x1b]0;pwned\x07\x7f\x9b31m",
    "\u202egnp.exe\u202c \u2066hidden\u2069 \u200b\ufeff\u2028\u2029 \u061c",
    "\ud800 lone surrogate \udfff",
    "a" * 30_000,
    "ü̈" * 500 + "漢字" * 500 + "🧨" * 100,
    "line\nbreak\r\nand\ttab",
]


def poisoned(tmp_path: Path, hostile: str) -> Path:
    """A run in which every string that is not the format's own is hostile."""
    run_dir = reportdata.run_dir(
        tmp_path,
        [
            Made(
                rate_rps=2,
                findings=["x"],
                strength={"x": "x"},
                counts=[{"counters": {"met": 1}, "unit": "x"}],
                claims=[("test_a", "passed", None), ("test_b", "failed", "x")],
                known={"test_a": "x", "test_b": "x"},
                extra={"tasks": reportdata.tasks()},
            ),
            replace(reportdata.gallery()[3], rate_rps=2),
        ],
    )
    kept = {"kind", "trial", "samples", "name", "step", "outcome", "lifetime", "fidelity", "verdict", "schema", "op"}

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poison(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [poison(item, key) for item in value]
        return hostile if isinstance(value, str) and key not in kept else value

    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    lines = [poison(line) for line in lines]
    for line in lines:
        if line["kind"] == "run":
            line["environment"] = {hostile: {hostile: [hostile]}, "services run as": hostile}
        if "strength" in line:
            line["strength"] = {hostile: hostile}
        if line.get("tasks"):
            line["tasks"]["statuses"] = {hostile: 3}
        if "counts" in line:
            line["counts"]["counters"] |= {hostile: 3.0}
        for phase in line.get("phases", []):
            phase["name"] = hostile
            phase["outcomes"] = {hostile: 3}
        for slo in line.get("slos", []):
            slo["name"] = hostile
            slo["raw"] = {hostile: 1.5}
    (run_dir / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_dir / "logs" / "api.txt").write_text(hostile, encoding="utf-8", errors="surrogatepass")
    return run_dir
