"""Formats of SLO files other than OpenSLO v1, by their marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmchaos.slo.yaml_nodes import Place

SLOTH = "Sloth's prometheus/v1"
SLOTH_CRD = "Sloth's sloth.slok.dev/v1"
PYRRA = "Pyrra's pyrra.dev/v1alpha1"
V1ALPHA = "OpenSLO v1alpha"
_BY_VERSION = {"sloth.slok.dev/": SLOTH_CRD, "pyrra.dev/": PYRRA, "openslo/v1alpha": V1ALPHA}


def format_of(document: Place) -> str:
    """Return the name of a format that can be converted, empty for another one."""
    version = document.optional("version")
    if version and str(version.node.value).startswith("prometheus/"):
        return SLOTH
    version = document.optional("apiVersion")
    if version is None:
        return ""
    return next((name for begin, name in _BY_VERSION.items() if str(version.node.value).startswith(begin)), "")
