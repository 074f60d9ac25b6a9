"""The base image, built from Debian packages."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from offline import debian
from offline.daemon_images import images_at_hand, is_at_hand
from offline.recipes import base_tag, official_reference
from offline.shell import SetupError, run, say

BASE_DEADLINE_S = 900.0


def ensure_base() -> str:
    tag = base_tag()
    if is_at_hand(tag, images_at_hand()):
        return tag
    if not debian.is_debian_root():
        raise SetupError(
            "expected an image registry to answer, or Debian and root to build the images from packages; "
            "found neither. Let the Docker daemon reach its registry, then check with "
            f"`docker pull {official_reference('LLMCHAOS_PYTHON_BASE')}`"
        )
    debian.install(["debootstrap"])
    say("building the base image with debootstrap")
    with tempfile.TemporaryDirectory(prefix="llmchaos-base-") as name:
        root = Path(name)
        root.chmod(0o755)  # becomes the image's /, open to all users
        include = "--include=python3,ca-certificates,busybox"
        run(
            ["debootstrap", "--variant=minbase", include, "trixie", str(root), debian.mirror()],
            deadline_s=BASE_DEADLINE_S,
        )
        (root / "usr/local/bin/wget").symlink_to("/bin/busybox")  # the official images probe themselves with wget
        for folder in (
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
        ):
            shutil.rmtree(root / folder)
            (root / folder).mkdir()
        archive = root.with_suffix(".tar")
        try:
            run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(archive), "."], deadline_s=120)
            run(["docker", "import", str(archive), tag], deadline_s=BASE_DEADLINE_S)
        finally:
            archive.unlink(missing_ok=True)
    return tag
