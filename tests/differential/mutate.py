"""Mutants in force, for as long as a block."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any as Untyped
from typing import cast
from unittest.mock import patch

from gateway.snapshot import access, caller, predicate
from governance import bundle, residue
from tests.differential.mutants import Mutant

REPO = Path(__file__).parents[2]
PREDICATES = (predicate._comparison, predicate._typed_caller, predicate.is_typed)  # pyright: ignore[reportPrivateUsage]
# What rules were made into, which is kept from bundle to bundle.
KEPT = (bundle._rule, residue._total, access._rules, *PREDICATES)  # pyright: ignore[reportPrivateUsage]


@contextmanager
def in_force(mutant: Mutant) -> Generator[None]:
    """Have the code run with a mutant's mistake. Whoever has imported from its file runs it too."""
    source = (REPO / mutant.file).read_text()
    if source.count(mutant.old) != 1:
        raise AssertionError(
            f"the mutant `{mutant.name}` no longer fits {mutant.file}: give it a text that is there once"
        )
    changed = source.replace(mutant.old, mutant.new)
    if mutant.file.endswith(".lua"):
        with patch.object(caller, "_SCRIPT", caller._SCRIPT.replace(source, changed)):  # pyright: ignore[reportPrivateUsage]
            yield
        return
    module = import_module(mutant.file.removesuffix(".py").replace("/", "."))
    with ExitStack() as undoing:
        for kept in KEPT:
            kept.cache_clear()
            undoing.callback(kept.cache_clear)
        _run(module, changed, undoing)
        yield


def _run(module: ModuleType, source: str, undoing: ExitStack) -> None:
    """Have a module's functions do what another source says, until undone."""
    other = ModuleType(module.__name__)
    # The mutants are written in this folder.
    exec(compile(source, f"{module.__file__} (mutant)", "exec"), vars(other))  # noqa: S102
    mine, theirs = dict(_functions(module)), dict(_functions(other))
    for name, function in mine.items():
        undoing.callback(setattr, function, "__code__", function.__code__)
        function.__code__ = theirs[name].__code__
    for name, value in vars(module).items():
        if name.isupper() and _is_data(value) and value != vars(other)[name]:
            undoing.enter_context(patch.object(module, name, vars(other)[name]))


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Every function that stands in a module, and in its classes, by its name."""
    for holder in [module, *(each for each in vars(module).values() if inspect.isclass(each))]:
        for value in vars(holder).values():
            function = _function(value)
            if function is not None and function.__module__ == module.__name__:
                yield function.__qualname__, function


def _function(value: Untyped) -> FunctionType | None:
    """What is called where a name has this value; None if nothing is."""
    called = value.fget if isinstance(value, property) else value
    called = inspect.unwrap(called) if callable(called) else None
    return called if isinstance(called, FunctionType) else None


def _is_data(value: Untyped) -> bool:
    """Whether it is made of texts and numbers alone, and can stand for what it is equal to."""
    match value:
        case str() | int():
            return True
        case tuple():
            return all(_is_data(each) for each in cast("tuple[object, ...]", value))
        case dict():
            return all(_is_data(each) for each in cast("dict[str, object]", value).values())
        case _:
            return False
