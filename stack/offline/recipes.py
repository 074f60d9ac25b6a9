"""Contents of each image, and the tag that follows from them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

STACK = Path(__file__).resolve().parent.parent
OFFLINE = STACK / "offline"
SERVICES = STACK / "services"
BACKENDS = ("ollama", "llamacpp", "sim")
OLLAMA_VERSION = "v0.24.0"
MODEL = "smollm2:135m"
BASE_RECIPE = "debootstrap minbase trixie: python3 ca-certificates busybox; wget of busybox; no lists, no docs; 2"
TAG_CHARS = 12
NOT_CONTENT = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", "README.md"})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image of the lab.

    `variable` is its name in the compose files. An image with `base_variable` is always
    built, on the official base or on ours. The others are official programs, built from
    packages only if no registry answers. Their Dockerfiles are in stack/offline/images.
    """

    name: str
    variable: str
    backends: tuple[str, ...] = BACKENDS
    base_variable: str | None = None
    inputs: tuple[str, ...] = ()  # files and folders below `folder` that go into the image
    facts: tuple[str, ...] = ()  # other inputs: versions of what is fetched or compiled
    facts_from_packages: tuple[str, ...] = ()  # the same, on our own base
    obtainable_from_packages: bool = True
    of_agents: bool = False  # only a lab with agents needs it

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise ValueError(f"expected a name of lower-case letters, digits and '-', got {self.name!r}")
        if not self.variable.startswith("LLMCHAOS_"):
            raise ValueError(f"expected a variable LLMCHAOS_..., got {self.variable!r}: the compose files use no other")

    @property
    def folder(self) -> Path:
        return STACK if self.base_variable else OFFLINE


# One image for all: they share packages, and the code is a few hundred kilobytes.
_PACKAGES = {path.parent.name for path in SERVICES.glob("lab_*/__init__.py")}
_OF_AGENTS = {"lab_agents", "lab_desk"}  # with 250 MB of packages of their own
SERVICE_PACKAGES = tuple(sorted(_PACKAGES - _OF_AGENTS - {"lab_llamacpp"}))

RECIPES = (
    Recipe(
        name="services",
        variable="LLMCHAOS_SERVICES_IMAGE",
        base_variable="LLMCHAOS_PYTHON_BASE",
        inputs=(
            "images/services",
            "images/probe.sh",
            "services/requirements.lock",
            *(f"services/{package}" for package in SERVICE_PACKAGES),
        ),
    ),
    Recipe(
        name="fault-agent",
        variable="LLMCHAOS_FAULT_AGENT_IMAGE",
        base_variable="LLMCHAOS_PYTHON_BASE",
        inputs=(
            "images/fault-agent",
            "services/requirements.lock",
            "services/fault_agent",
            "services/lab_common",
        ),
    ),
    Recipe(
        name="ollama",
        variable="LLMCHAOS_MODEL_IMAGE",
        backends=("ollama",),
        base_variable="LLMCHAOS_OLLAMA_BASE",
        inputs=("images/ollama", "images/probe.sh", "images/warm.sh", "services/requirements-weights.lock"),
        facts=(MODEL,),
        facts_from_packages=(OLLAMA_VERSION,),
    ),
    Recipe(
        name="llamacpp",
        variable="LLMCHAOS_MODEL_IMAGE",
        backends=("llamacpp",),
        base_variable="LLMCHAOS_PYTHON_BASE",
        inputs=(
            "images/llamacpp",
            "images/probe.sh",
            "images/warm.sh",
            "services/requirements-llamacpp.lock",
            "services/requirements-weights.lock",
            "services/lab_common",
            "services/lab_llamacpp",
        ),
    ),
    Recipe(
        name="agents",
        variable="LLMCHAOS_AGENTS_IMAGE",
        base_variable="LLMCHAOS_PYTHON_BASE",
        inputs=(
            "images/agents",
            "images/probe.sh",
            "services/requirements-agents.lock",
            *(f"services/{package}" for package in sorted(_PACKAGES & _OF_AGENTS | {"lab_common"})),
        ),
        of_agents=True,
    ),
    Recipe(name="prometheus", variable="LLMCHAOS_PROMETHEUS_IMAGE", inputs=("images/prometheus",)),
    Recipe(name="pushgateway", variable="LLMCHAOS_PUSHGATEWAY_IMAGE", inputs=("images/pushgateway",)),
    Recipe(name="haproxy", variable="LLMCHAOS_HAPROXY_IMAGE", inputs=("images/haproxy",)),
    Recipe(name="grafana", variable="LLMCHAOS_GRAFANA_IMAGE", obtainable_from_packages=False),
)


# Also in the way of a user's own stack, which needs none of the others.
FAULT_AGENT = next(recipe for recipe in RECIPES if recipe.name == "fault-agent")


def recipes_for(backend: str, *, agents: bool = False) -> tuple[Recipe, ...]:
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend of {', '.join(BACKENDS)}, got {backend!r}")
    return tuple(recipe for recipe in RECIPES if backend in recipe.backends and (agents or not recipe.of_agents))


def model_recipe(backend: str) -> Recipe:
    """Image of the model replicas.

    The simulated engine is part of the image of the services.
    """
    own = [recipe for recipe in recipes_for(backend) if recipe.variable == "LLMCHAOS_MODEL_IMAGE"]
    return own[0] if own else RECIPES[0]


def official_reference(variable: str, pins: str | None = None) -> str:
    """The pinned official image behind `variable`.

    Only the compose file and images/bases.env name images.
    """
    text = pins if pins is not None else _pins()
    found = re.search(rf"\$\{{{variable}:-([^}}\s]+)\}}", text) or re.search(rf"^{variable}=(\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(
            f"expected a pinned default for {variable} in stack/compose.yaml or stack/images/bases.env, found none"
        )
    return found.group(1)


def _pins() -> str:
    return (STACK / "images/bases.env").read_text(encoding="utf-8") + (STACK / "compose.yaml").read_text(
        encoding="utf-8"
    )


def base_tag() -> str:
    """Tag of the base built from packages."""
    return f"llmchaos/base:{_short(hashlib.sha256(BASE_RECIPE.encode()).hexdigest())}"


def built_tag(recipe: Recipe, *, base: str, arch: str) -> str:
    """Content-addressed name of the image on `base`: the same bytes, the same tag."""
    digest = hashlib.sha256()
    from_packages = recipe.facts_from_packages if base == base_tag() else ()
    for fact in (recipe.name, base, arch, *recipe.facts, *from_packages):
        digest.update(fact.encode() + b"\0")
    for path in input_files(recipe):
        mode = b"x" if path.stat().st_mode & 0o100 else b"-"
        digest.update(path.relative_to(recipe.folder).as_posix().encode() + b"\0" + mode + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"llmchaos/{recipe.name}:{_short(digest.hexdigest())}"


def input_files(recipe: Recipe) -> list[Path]:
    """Every file that goes into the image, in the same order on every machine."""
    files: set[Path] = set()
    for entry in recipe.inputs:
        path = recipe.folder / entry
        files.update(found for found in ([path] if path.is_file() else path.rglob("*")) if _is_content(found))
    return sorted(files)


def _is_content(path: Path) -> bool:
    return path.is_file() and not NOT_CONTENT.intersection(path.parts) and path.suffix != ".pyc"


def _short(hexdigest: str) -> str:
    return hexdigest[:TAG_CHARS]
