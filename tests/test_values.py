"""The values: they are frozen, and their fields are keyword-only."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import msgspec
import pytest

ROOMS = ("stats", "slo", "trial", "evidence", "faults", "lab")


def modules():
    for room in ROOMS:
        package = importlib.import_module(f"pytest_llmchaos.{room}")
        yield package
        yield from (
            importlib.import_module(f"{package.__name__}.{one.name}") for one in pkgutil.iter_modules(package.__path__)
        )


CLASSES = {
    f"{one.__module__}.{one.__qualname__}": one
    for module in modules()
    for one in vars(module).values()
    if inspect.isclass(one) and one.__module__ == module.__name__
}
DATA = {name: one for name, one in CLASSES.items() if dataclasses.is_dataclass(one)}
STRUCTS = {name: one for name, one in CLASSES.items() if issubclass(one, msgspec.Struct)}


def functions():
    """Return every function and method of the rooms, without those such as `__lt__`."""
    for of in (*modules(), *CLASSES.values()):
        for name, one in vars(of).items():
            made = inspect.unwrap(getattr(one, "fget", None) or getattr(one, "__func__", one))
            if (
                inspect.isfunction(made)
                and made.__module__.startswith("pytest_llmchaos.")
                and not name.startswith("__")
            ):
                yield f"{made.__module__}.{made.__qualname__}", made


def has_fields(one):
    return any(not str(of).startswith("ClassVar") for of in inspect.get_annotations(one).values())


def each(found):
    return pytest.mark.parametrize("one", found.values(), ids=found)


def test_a_class_that_lists_its_fields_is_a_value():
    """A class with a constructor of its own lists its parts there."""
    named = {
        name: one for name, one in CLASSES.items() if has_fields(one) and not {"__init__", "__new__"} & set(vars(one))
    }
    values = {name for name, one in named.items() if name in DATA or name in STRUCTS or issubclass(one, tuple)}

    assert {name for name in named if name not in values and not getattr(named[name], "_is_protocol", False)} == set()


@each(DATA)
def test_a_dataclass_is_frozen_and_takes_its_fields_by_name(one):
    taken = inspect.signature(one).parameters.values()

    assert one.__dataclass_params__.frozen
    assert {parameter.name for parameter in taken if parameter.kind is not parameter.KEYWORD_ONLY} == set()


@each(STRUCTS)
def test_a_struct_is_frozen_and_takes_its_fields_by_name(one):
    taken = inspect.signature(one).parameters.values()

    assert one.__struct_config__.frozen
    assert {parameter.name for parameter in taken if parameter.kind is not parameter.KEYWORD_ONLY} == set()


def test_every_argument_may_be_given_by_its_name():
    by_place = {
        name
        for name, one in functions()
        for of in inspect.signature(one).parameters.values()
        if of.kind is of.POSITIONAL_ONLY
    }

    assert by_place == set()
