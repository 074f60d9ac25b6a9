"""Experiments and claims in the files of shipped scenarios."""

from __future__ import annotations

import ast
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmchaos.plan.experiment import Experiment


def name_of(path: Path) -> str:
    return path.stem.removeprefix("test_")


def experiments_of(path: Path) -> dict[str, Experiment]:
    """Every experiment of a file, by the name of its mark."""
    spec = importlib.util.spec_from_file_location(f"shipped_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    marks: dict[str, Any] = vars(module)
    return {
        name: mark.kwargs["experiment"]
        for name, mark in marks.items()
        if not name.startswith("test_") and hasattr(mark, "kwargs") and "experiment" in mark.kwargs
    }


def claims_of(path: Path) -> dict[str, tuple[str, str]]:
    """Every claim of a file, with the name of its mark and its text."""
    text = path.read_text(encoding="utf-8")
    return {
        one.name: (
            one.decorator_list[0].id
            if one.decorator_list and isinstance(one.decorator_list[0], ast.Name)
            else "pytestmark",
            ast.get_source_segment(text, one) or "",
        )
        for one in ast.parse(text).body
        if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")
    }


def text_of(path: Path, mark: str) -> str:
    return "\n".join(text for of, text in claims_of(path).values() if of == mark)
