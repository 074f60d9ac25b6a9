"""Search for Prometheus' programs: PATH, cache, package manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmchaos.errors import NotReady
from pytest_llmchaos.prometheus.binary import cache_directory, find, find_or_fetch

APT = """#!/bin/sh
echo "$@" >> {asked}
: > prometheus_2.42_amd64.deb
"""
DPKG = """#!/bin/sh
/bin/mkdir -p unpacked/usr/bin
for name in prometheus promtool; do echo '#!/bin/sh' > unpacked/usr/bin/$name; /bin/chmod +x unpacked/usr/bin/$name; done
"""


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH and an empty cache."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_program_on_path_is_used(machine: Path) -> None:
    mine = program(machine / "bin" / "promtool")
    program(cache_directory() / "usr" / "bin" / "promtool")

    assert find("promtool") == mine
    assert find_or_fetch("promtool") == mine


def test_an_earlier_download_is_used_again(machine: Path) -> None:
    fetched = program(cache_directory() / "usr" / "bin" / "promtool")

    assert find_or_fetch("promtool") == fetched


@pytest.mark.parametrize("home", ["/proc/none", "home that is a file"])
def test_a_cache_that_cannot_be_created_is_one_line_with_the_setting_that_moves_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    program(machine / "bin" / "apt-get")
    program(machine / "bin" / "dpkg-deb")
    (machine / "home that is a file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(machine / home))

    with pytest.raises(NotReady, match="set XDG_CACHE_HOME to a folder"):
        find_or_fetch("promtool")


def test_a_partial_download_is_not_used(machine: Path) -> None:
    program(cache_directory() / "usr" / "bin" / "promtool").chmod(0o644)

    assert find("promtool") is None


def test_one_download_has_all_programs_of_the_package_and_nothing_else(machine: Path) -> None:
    asked = machine / "asked"
    program(machine / "bin" / "apt-get", APT.format(asked=asked))
    program(machine / "bin" / "dpkg-deb", DPKG)

    found = find_or_fetch("promtool")

    assert found == cache_directory() / "usr" / "bin" / "promtool"
    assert find_or_fetch("prometheus").name == "prometheus"
    assert asked.read_text() == "download -q prometheus\n"
    assert [path.name for path in cache_directory().iterdir()] == ["usr"]


def test_without_a_package_manager_the_error_has_instructions(machine: Path) -> None:
    with pytest.raises(
        NotReady, match="promtool is not on PATH and there is no apt-get to fetch it: install Prometheus"
    ):
        find_or_fetch("promtool")


def test_a_failed_fetch_reports_the_package_managers_error_and_a_remedy(machine: Path) -> None:
    program(machine / "bin" / "apt-get", "#!/bin/sh\necho 'E: Unable to locate package prometheus' >&2\nexit 100\n")
    program(machine / "bin" / "dpkg-deb", DPKG)

    with pytest.raises(NotReady, match="Unable to locate package prometheus: run `apt-get update` as root once"):
        find_or_fetch("prometheus")


def test_a_machine_without_package_lists_gets_lists_of_its_own_for_the_fetch(machine: Path) -> None:
    asked = machine / "asked"
    needs_lists = (
        f'case "$*" in download*) echo "E: Unable to locate package" >&2; exit 100;; *update*) exit 0;; esac\n{APT}'
    )
    program(machine / "bin" / "apt-get", "#!/bin/sh\n" + needs_lists.format(asked=asked))
    program(machine / "bin" / "dpkg-deb", DPKG)

    assert find_or_fetch("prometheus").name == "prometheus"

    assert "-oDir::State::Lists=" in asked.read_text()
    assert asked.read_text().endswith("download -q prometheus\n")
    assert [path.name for path in cache_directory().iterdir()] == ["usr"]


def test_a_package_without_the_program_is_an_error(machine: Path) -> None:
    program(machine / "bin" / "apt-get", APT.format(asked=machine / "asked"))
    program(machine / "bin" / "dpkg-deb", DPKG)

    with pytest.raises(NotReady, match="the package prometheus-pushgateway lacks prometheus-pushgateway"):
        find_or_fetch("prometheus-pushgateway")


def test_other_programs_are_not_fetched(machine: Path) -> None:
    with pytest.raises(NotReady, match=r"program must be one of .*, got 'rm'"):
        find_or_fetch("rm")
