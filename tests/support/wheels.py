"""The built package, and clean environments with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NAME = "pytest-llmchaos"
# As pip writes it where the path of Python contains blanks.
PYTEST = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys
from {module} import {name}
sys.exit({name}())
"""


def build(folder: Path, target: str, source: Path = ROOT) -> Path:
    """Build the wheel or the sdist of a tree, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=clean_environment())
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist and return the tree in it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def contents(wheel: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: (one.external_attr >> 16, archive.read(one)) for one in archive.infolist()}


def environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """Create a virtual environment with the wheel, and return its Python.

    pip resolves the wheel's requirements, and downloads nothing.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    link_packages(folder, wheel, *extras)
    python = folder / "bin" / "python"
    wanted = f"{NAME}[{','.join(extras)}]" if extras else NAME
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", wanted]
    env = clean_environment() | offline_pip(wheel)
    subprocess.run(install, check=True, capture_output=True, env=env, cwd=folder)
    return python


def offline_pip(wheel: Path) -> dict[str, str]:
    """Variables with which pip finds the wheel, and nothing else."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), **quiet}


def clean_environment() -> dict[str, str]:
    """This environment without what would import from the checkout."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("LLMCHAOS_")}


def link_packages(folder: Path, wheel: Path, *extras: str) -> None:
    """Link this environment's copies of what the wheel requires, and `pytest`."""
    (site,) = folder.glob("lib/python*/site-packages")
    for name in required(wheel, extras):
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    script = folder / "bin" / "pytest"
    (entry,) = metadata.entry_points(group="console_scripts", name="pytest")
    script.write_text(PYTEST.format(python=folder.absolute() / "bin" / "python", module=entry.module, name=entry.attr))
    script.chmod(0o755)


def required(wheel: Path, extras: Sequence[str]) -> set[str]:
    """Names of the distributions that the wheel and its extras need, with theirs."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        direct = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    found: set[tuple[str, str]] = set()
    open_ends = [one for line in direct for one in _needed(line, extras)]
    while open_ends:
        name, extra = one = open_ends.pop()
        if one in found:
            continue
        found.add(one)
        open_ends += [more for line in metadata.requires(name) or () for more in _needed(line, [extra])]
    return {name for name, _ in found}


def _needed(line: str, extras: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and extras of a requirement, if its marker holds here."""
    wanted = Requirement(line)
    if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
        yield from ((wanted.name, extra) for extra in ("", *wanted.extras))
