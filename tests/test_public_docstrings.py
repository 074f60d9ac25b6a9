"""Docstrings of the public surface: arguments, units and errors."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import griffe
import pytest

import pytest_llmchaos
from pytest_llmchaos import errors, faults, loads, model
from pytest_llmchaos.faults import base

ROOT = Path(__file__).parent.parent
PACKAGE = griffe.load("pytest_llmchaos", search_paths=[ROOT], allow_inspection=False)
CLASSES = (
    "trial.trial.Trial",
    "trial.arms.Arms",
    "trial.arms.Comparison",
    "stats.windows.Window",
    "stats.effects.WindowEffects",
    "stats.effects.QuantileEffects",
    "stats.effects.Effect",
    "lab.lab.Lab",
    "lab.live_load.RunningLoad",
    "slo.arithmetic.Slo",
)
# A name, and what its description must have. The first that matches counts.
UNITS = (
    (r"\w*unix_s", r"Unix"),
    (r"\w*tokens_per_s", r"tokens? per second"),
    (r"bytes_per_s", r"bytes per second"),
    (r"\w+_rps", r"per second"),
    (r"\w+_s|seconds", r"[Ss]econds?\b"),
    (r"\w+_days|days", r"[Dd]ays?\b"),
    (r"\w*(ratio|share)", r"[Rr]atio|[Ss]hare"),
    (r"\w*_bytes", r"[Bb]ytes"),
    (r"\w*_tokens", r"[Tt]okens?\b"),
    (r"mebibytes", r"MiB"),
    (r"cores", r"[Cc]ores"),
    (r"times", r"[Mm]ultiple"),
)


def public_functions():
    """Each public function by the name that users or authors of faults write."""
    found = {"experiment": "plan.experiment.experiment", "arm": "plan.arms.arm"}
    for name in (*faults.__all__, "foreign"):
        found[f"faults.{name}"] = f"{faults.__dict__[name].__module__}.{name}"
    for name in loads.__all__:
        if inspect.isfunction(loads.__dict__[name]):
            found[f"loads.{name}"] = f"loads.{name}"
    for name, one in vars(base).items():
        if inspect.isfunction(one) and one.__module__ == base.__name__:
            found[f"base.{name}"] = f"faults.base.{name}"
    return {name: PACKAGE[path.removeprefix("pytest_llmchaos.")] for name, path in found.items()}


def public_classes():
    """Each public class whose members claims and authors of faults read."""
    paths = [*CLASSES]
    paths += [
        f"{one.__module__}.{name}"
        for module, names in ((loads, loads.__all__), (model, vars(model)))
        for name in names
        if inspect.isclass(one := vars(module)[name]) and one.__module__.startswith("pytest_llmchaos")
    ]
    return {path.rpartition(".")[2]: PACKAGE[path.removeprefix("pytest_llmchaos.")] for path in paths}


def public_errors():
    return {name: PACKAGE[f"errors.{name}"] for name, one in vars(errors).items() if is_error(one)}


def is_error(one):
    return inspect.isclass(one) and issubclass(one, errors.LlmchaosError)


def sections(one, kind):
    """Return the entries of a section by name."""
    if not one.docstring:
        return {}
    parsed = one.docstring.parse("google", returns_named_value=False, warnings=False)
    entries = [entry for section in parsed if section.kind.value == kind for entry in section.value]
    return {str(getattr(entry, "name", "") or entry.annotation).lstrip("*"): entry.description for entry in entries}


def text_of(one):
    return one.docstring.value if one.docstring else ""


def missing_units(described):
    """Return the names whose description lacks their unit."""
    found = []
    for name, text in described.items():
        word = next((word for pattern, word in UNITS if re.fullmatch(pattern, name)), "")
        if not re.search(word, text):
            found.append(f"{name}: no {word!r} in {text!r}")
    return found


def unlisted_errors(one, documented):
    """Return the errors that the body of a function raises and `documented` lacks."""
    tree = ast.parse(textwrap.dedent(one.source))  # empty for the `__init__` of a dataclass
    raised = {
        node.exc.func.id
        for node in (own_nodes(tree.body[0]) if tree.body else ())
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    return [f"raises {name}" for name in sorted(raised - set(documented) - {"AttributeError"})]


def own_nodes(function):
    """Walk a function without the functions inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield node
            yield from own_nodes(node)


def breaches_of_function(one):
    if not one.docstring:
        return ["no docstring"]
    documented = sections(one, "parameters")
    if is_protocol(one.parent) and not documented:
        return missing_units({parameter.name: text_of(one) for parameter in one.parameters})
    names = [parameter.name for parameter in one.parameters if parameter.name not in ("self", "cls")]
    return [
        *(f"{name} is not in Args" for name in names if name not in documented),
        *(f"{name} is in Args only" for name in documented if name not in names),
        *missing_units(documented),
        *unlisted_errors(one, sections(one, "raises")),
    ]


def breaches_of_class(one):
    if not one.docstring:
        return ["no docstring"]
    documented = sections(one, "attributes") | sections(one, "parameters")
    found = missing_units(documented)
    for name, member in one.members.items():
        if name in ("__init__", "__post_init__"):
            raises = sections(one, "raises") | sections(member, "raises")
            found += [f"{name} {breach}" for breach in unlisted_errors(member, raises)]
        elif name.startswith("_"):
            continue
        elif member.is_function:
            found += [f"{name}: {breach}" for breach in breaches_of_function(member)]
        elif "property" in member.labels:
            documents = {name: text_of(member) or documented.get(name, "")}
            found += [f"{name}: no docstring"] if not documents[name] else missing_units(documents)
            found += [f"{name} {breach}" for breach in unlisted_errors(member, sections(member, "raises"))]
        elif is_field(one, member) and name not in documented:
            found.append(f"{name} is not in Attributes")
    return found


def is_protocol(owner):
    """True for an interface, whose methods need units and no section of arguments."""
    return owner.is_class and any(str(one) == "Protocol" for one in owner.bases)


def is_field(owner, member):
    """True for a field of a dataclass or named tuple."""
    makes_fields = "dataclass" in owner.labels or any(str(one) == "NamedTuple" for one in owner.bases)
    return makes_fields and member.annotation is not None and "instance-attribute" in member.labels


def test_the_public_names_of_the_package_are_covered():
    covered = {"faults", "loads", *public_functions(), *public_errors()}

    assert set(pytest_llmchaos.__all__) - covered == set()
    assert {*CLASSES, "loads.arrivals.Load", "model.Fault"} <= {
        one.path.removeprefix("pytest_llmchaos.") for one in public_classes().values()
    }


@pytest.mark.parametrize("name", public_functions())
def test_a_function_documents_its_arguments_units_and_errors(name):
    assert breaches_of_function(public_functions()[name]) == []


@pytest.mark.parametrize("name", public_classes())
def test_a_class_documents_its_members_units_and_errors(name):
    assert breaches_of_class(public_classes()[name]) == []


@pytest.mark.parametrize("name", public_errors())
def test_an_error_has_a_docstring(name):
    assert text_of(public_errors()[name])


FUNCTION = '''
def wait(service, after_s):
    """Wait.

    Args:
        service: Name of the service.
        after_s: Seconds to wait.

    Raises:
        BadScenario: It does not exist.
    """
    raise BadScenario(service)
'''
CLASS = '''
@dataclass
class Part:
    """A part.

    Attributes:
        length_s: Seconds.
    """

    kind: ClassVar[str]
    length_s: float

    @property
    def peak_rps(self):
        """Requests per second."""

    def wait(self, deadline_s):
        """Wait.

        Args:
            deadline_s: Seconds.
        """
'''


@pytest.mark.parametrize(
    ("text", "replaced", "by", "breach"),
    [
        (FUNCTION, "", "", None),
        (FUNCTION, "        service: Name of the service.\n", "", "service is not in Args"),
        (FUNCTION, "        service:", "        target: A name.\n        service:", "target is in Args only"),
        (FUNCTION, "Seconds to wait", "Time to wait", "after_s: no "),
        (FUNCTION, "BadScenario: It", "NotReady: It", "raises BadScenario"),
        (FUNCTION, '"""', "# ", "no docstring"),
        (CLASS, "", "", None),
        (CLASS, "    length_s: float", "    length_s: float\n    name: str", "name is not in Attributes"),
        (CLASS, "length_s: Seconds.", "length_s: Length.", "length_s: no "),
        (CLASS, '"""Requests per second."""', '"""Highest rate."""', "peak_rps: no "),
        (CLASS, '"""Requests per second."""', "...", "peak_rps: no docstring"),
        (
            CLASS,
            '"""Requests per second."""',
            '"""Requests per second."""\n        raise NoData("")',
            "peak_rps raises",
        ),
        (CLASS, "deadline_s: Seconds.", "wait_s: Seconds.", "wait: deadline_s is not in Args"),
    ],
)
def test_a_breach_is_found(text, replaced, by, breach):
    code = text.replace(replaced, by) if breach != "no docstring" else re.sub('""".*?"""', "...", text, flags=re.DOTALL)
    (one,) = (member for member in written(code).members.values() if not member.is_alias)
    found = breaches_of_function(one) if one.is_function else breaches_of_class(one)

    assert found == [] if breach is None else any(entry.startswith(breach) for entry in found)


def written(code):
    """Return a module of this code, with the import of its decorator."""
    head = "from dataclasses import dataclass\n"
    path = Path("written.py")
    lines = griffe.LinesCollection()
    lines[path] = (head + code).splitlines()
    return griffe.visit(
        "written", filepath=path, code=head + code, extensions=griffe.load_extensions(), lines_collection=lines
    )
