"""The manifest of a run in notes and on command lines."""

import json

import pytest

from pytest_llmchaos.evidence.run_manifest import RunManifest, manifest_from

OWN = {"runtime": "compose", "project": "p", "owner": "1:2:boot:ns", "owned": True, "journal": "/j", "directory": "/d"}
ATTACHED = {
    **OWN,
    "owned": False,
    "run": "r",
    "targets": ["api", "db"],
    "noted": "/n",
    "daemon": "tcp://d:2376",
    "tls": "/tls",
    "tls_verify": False,
    "machine": "m",
}


@pytest.mark.parametrize("about", [OWN, ATTACHED], ids=["own", "attached"])
def test_a_manifest_is_written_without_what_it_has_by_default_and_read_back(about):
    manifest = RunManifest(**{**about, "targets": tuple(about.get("targets", ()))})

    assert json.loads(manifest.to_json()) == about
    assert manifest_from(manifest.to_json()) == manifest


def test_the_certificate_of_docker_is_verified_by_default():
    assert manifest_from(json.dumps(OWN)).tls_verify
    assert not manifest_from(json.dumps(ATTACHED)).tls_verify


def test_a_path_that_is_not_utf_8_is_kept():
    manifest = RunManifest(**{**OWN, "journal": "/\udcff/journal"})

    assert manifest.to_json().isascii()
    assert manifest_from(manifest.to_json()) == manifest


@pytest.mark.parametrize("name", OWN)
def test_text_that_lacks_a_part_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=f"expected the manifest of a run: .*`{name}`"):
        manifest_from(json.dumps({key: value for key, value in OWN.items() if key != name}))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "[" * 100_000], ids=["empty", "torn", "null", "list", "deep"])
def test_text_that_is_not_a_manifest_is_refused(text):
    with pytest.raises(ValueError, match=r"^expected the manifest of a run: "):
        manifest_from(text)
