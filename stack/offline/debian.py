"""Debian packages: installed, or unpacked from a newer suite."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from offline.shell import SetupError, run, say

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
APT_DEADLINE_S = 600.0
NEWER_SUITE = "unstable"  # no stable suite has Compose v2, buildx, Prometheus 3 and miniaudio
# Packages of the tests, each with programs of which one suffices.
TEST_PROGRAMS = {
    "haproxy": ("haproxy",),
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
}


def is_debian_root() -> bool:
    """True on a Debian machine as root, where the set-up may install packages."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return (
        os.geteuid() == 0
        and shutil.which("apt-get") is not None
        and re.search(r"^ID=debian$", release, re.MULTILINE) is not None
    )


def install(packages: Sequence[str]) -> None:
    """Install those of `packages` that are missing."""
    missing = [package for package in packages if not is_installed(package)]
    if not missing:
        return
    say(f"installing {', '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], deadline_s=APT_DEADLINE_S, env=quiet)
    run(
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing],
        deadline_s=APT_DEADLINE_S,
        env=quiet,
    )


def ensure_programs() -> None:
    """Install the programs of the tests: HAProxy and a browser."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [
        package for package, names in TEST_PROGRAMS.items() if not any(shutil.which(name, path=path) for name in names)
    ]
    if not missing:
        return
    if not is_debian_root():
        command = f"sudo apt-get install -y --no-install-recommends {' '.join(missing)}"
        raise SetupError(f"expected the programs {', '.join(missing)}, which tests need: run `{command}`")
    install(missing)


def is_installed(package: str) -> bool:
    try:
        status = run(["dpkg-query", "-W", "-f", "${Status}", package], deadline_s=20)
    except SetupError:
        return False
    return status == "install ok installed"


def mirror() -> str:
    """Address of the Debian archive that this machine's own apt uses."""
    targets = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)", "Created-By: Packages"],
        deadline_s=20,
    )
    return archive_address(targets)


def archive_address(targets: str) -> str:
    """The Debian archive among lines of `address origin codename`.

    Archives of security fixes are skipped: they lack the other suites.
    """
    for line in targets.splitlines():
        address, _, rest = line.partition(" ")
        origin, _, codename = rest.partition(" ")
        if origin == "Debian" and not codename.endswith(("-security", "-backports")):
            return address.rstrip("/")
    raise SetupError(f"expected an archive of origin Debian among apt's sources, saw:\n{targets.strip() or 'none'}")


def unpack_newer(packages: Sequence[str], into: Path, suite: str = NEWER_SUITE) -> None:
    """Download `packages` of another suite and unpack them below `into`.

    Lists and cache are separate, so the machine's own package lists and versions do not
    change.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llmchaos-apt-") as scratch_name:
        scratch = Path(scratch_name)
        for folder in ("lists/partial", "cache/archives/partial", "deb"):
            (scratch / folder).mkdir(parents=True)
        sources = scratch / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n", encoding="utf-8")
        options = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": scratch / "lists",
            "Dir::Cache": scratch / "cache",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
        say(f"downloading {', '.join(packages)}")
        run([*apt, "update", "-q"], deadline_s=APT_DEADLINE_S)
        run([*apt, "download", "-q", *packages], deadline_s=APT_DEADLINE_S, cwd=scratch / "deb")
        for archive in sorted((scratch / "deb").glob("*.deb")):
            say(f"unpacking {archive.name} of Debian {suite}")
            run(["dpkg-deb", "-x", str(archive), str(into)], deadline_s=120)
