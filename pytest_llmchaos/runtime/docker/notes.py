"""Notes of attached runs, for the revert after their death.

An attached run puts no labels on the stack, so its note identifies it. The note, the
open faults and every target's original settings are in this user's lasting state
folder, because CI deletes the folder of the reports.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from pytest_llmchaos.evidence.run_manifest import RunManifest, manifest_from
from pytest_llmchaos.host import identity, state_dirs
from pytest_llmchaos.runtime.docker import docker_cli, restrictions

_NOTES = "attached/*.json"
_AS_FOUND = "as_found.json"


def note(manifest: RunManifest) -> RunManifest:
    """Write the note of this run before its first fault.

    Returns the manifest with the note's path, the Docker daemon and the machine.
    """
    folder = state_dirs.lasting_dir() / "attached"
    path = folder / f"{manifest.owner.replace(':', '-')}.json"
    daemon = docker_cli.daemon()
    noted = replace(
        manifest,
        noted=str(path),
        daemon=daemon.host,
        tls=daemon.certificates,
        tls_verify=daemon.verify,
        machine=identity.machine(),
    )
    kept = _kept(noted)
    kept.mkdir(parents=True, exist_ok=True)
    _write(path, noted.to_json())
    return noted


def daemon_of(manifest: RunManifest) -> docker_cli.Daemon:
    """The Docker daemon that the run used."""
    return docker_cli.Daemon(
        host=manifest.daemon, tls=bool(manifest.tls), verify=manifest.tls_verify, certificates=manifest.tls
    )


def intents_of(manifest: RunManifest) -> Path:
    """File with copies of the run's intents and undos, outside its journal."""
    return _kept(manifest) / "intents.jsonl"


def keep_as_found(manifest: RunManifest) -> None:
    """Copy every target's settings, before the first fault changes one."""
    _write(_kept(manifest) / _AS_FOUND, (Path(manifest.directory) / _AS_FOUND).read_text())


def journal_of(manifest: RunManifest) -> Path | None:
    """The file with the run's intents. None if all copies are gone."""
    return next((path for path in (intents_of(manifest), Path(manifest.journal)) if path.exists()), None)


def as_found_of(manifest: RunManifest) -> dict[str, restrictions.AsFound] | None:
    """Original settings of the run's targets. None if they are lost."""
    for folder in (_kept(manifest), Path(manifest.directory)):
        try:
            return restrictions.read_as_found(folder / _AS_FOUND)
        except (OSError, ValueError, TypeError):
            continue
    return None


def forget(manifest: RunManifest) -> None:
    """Remove the note of a run that left nothing open."""
    Path(manifest.noted).unlink(missing_ok=True)
    shutil.rmtree(_kept(manifest), ignore_errors=True)


def is_kept(manifest: RunManifest) -> bool:
    """True while the run has a note: it is removed when no fault is open."""
    return Path(manifest.noted).exists()


def how_to_discard(manifest: RunManifest) -> str:
    """Return the command that discards a run's note, and the consequence."""
    paths = " ".join(shlex.quote(str(path)) for path in (manifest.noted, _kept(manifest)))
    return f"`rm -rf {paths}` forgets the run, and its faults are then never reverted"


def _kept(manifest: RunManifest) -> Path:
    return Path(manifest.noted).with_suffix("")


def _write(path: Path, text: str) -> None:
    """Write atomically, and to disk before this returns."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)  # else a power loss could lose the name
    finally:
        os.close(fd)


def _read() -> Iterator[tuple[Path, RunManifest | str]]:
    """Each note of this user's attached runs, or the reason why it is unreadable."""
    for path in state_dirs.lasting_files(_NOTES):
        try:
            yield path, replace(manifest_from(path.read_text()), noted=str(path))
        except FileNotFoundError:
            continue  # its run has ended meanwhile
        except (OSError, ValueError) as error:
            yield path, str(error)


def unreadable() -> dict[str, str]:
    """Path and reason of every unreadable note. Its run is unknown."""
    return {str(path): read for path, read in _read() if isinstance(read, str)}


def _manifests() -> Iterator[RunManifest]:
    for _, read in _read():
        if isinstance(read, RunManifest):
            yield read


def has_note_for(project: str) -> bool:
    """True if a run of this project, alive or dead, may have open faults."""
    return any(manifest.project == project for manifest in _manifests())


def _runs(life: identity.Liveness) -> Iterator[RunManifest]:
    """Attached runs whose process has this liveness.

    Machines that share a home folder cannot see each other's processes.
    """
    for manifest in _manifests():
        if identity.liveness(manifest.owner, same_kernel=manifest.machine == identity.machine()) == life:
            yield manifest


def dead_runs() -> Iterator[RunManifest]:
    """Attached runs whose process is dead."""
    return _runs("dead")


def doubtful_runs() -> Iterator[RunManifest]:
    """Attached runs whose process cannot be seen from here."""
    return _runs("unknown")
