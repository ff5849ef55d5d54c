"""Collect the standard library's documentation: docstrings and pydoc's topics.

A script for a process of its own, `python -I -S collect.py`: importing the whole
standard library leaves traces (warnings, patched modules, memory) that the process
which serves must not have. It sees nothing but the standard library and prints one
JSON object a line: name, kind, module ("" for a topic), command (the arguments to
`python -m pydoc` that show the entry), text.
"""

import builtins
import importlib
import inspect
import io
import json
import os
import pkgutil
import pydoc
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

# Print, open windows or browsers, run tests, or stand in for other modules when imported.
SIDE_EFFECTS = frozenset({"antigravity", "idlelib", "test", "tests", "this", "turtledemo"})
# A hundred codecs that all say the same, and packages that are about to go.
NOISE = frozenset({"distutils", "encodings", "lib2to3", "pydoc_data"})
# What Python itself writes where nobody wrote a docstring.
GENERATED = re.compile(r"Alias for field number \d+|\w+\(.*\)", re.ASCII)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
KINDS = {"class": inspect.isclass, "function": inspect.isroutine}


class Entry(NamedTuple):
    """One documented thing; the fields are those of a printed line."""

    name: str
    kind: str
    module: str
    command: str
    text: str


def import_quietly(name: str) -> ModuleType | None:
    """The module, or None where this platform or build lacks it."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, AttributeError, ValueError):
        return None


def modules() -> Iterator[ModuleType]:
    """Every public module, parents before their submodules, so that a name is first met where people import it."""
    level = ["builtins", "os.path", *sorted(sys.stdlib_module_names - {"builtins"})]
    while level:
        found = [module for name in level if is_public(name) and (module := import_quietly(name))]
        yield from found
        level = sorted(
            f"{module.__name__}.{info.name}"
            for module in found
            for info in pkgutil.iter_modules(getattr(module, "__path__", []))
        )


def is_public(name: str) -> bool:
    """Whether people import the module, and importing it does nothing else."""
    parts = name.split(".")
    hidden = any(part.startswith("_") and part != "__future__" for part in parts)
    return not hidden and not SIDE_EFFECTS.intersection(parts) and parts[0] not in NOISE


def documentation(thing: object) -> str:
    """The docstring written for this very thing, not an inherited one; "" if there is none."""
    text = getattr(thing, "__doc__", None)
    if not isinstance(text, str) or GENERATED.fullmatch(text.strip()):
        return ""
    return inspect.cleandoc(text)


def heading(name: str, thing: object) -> str:
    """The name with its parameters, as far as they are known."""
    if not callable(thing):
        return name
    try:
        signature = inspect.signature(thing)
    except (AttributeError, NameError, TypeError, ValueError):  # it evaluates the text of C functions' defaults
        return name
    shown = [parameter.replace(default=shown_default(parameter.default)) for parameter in signature.parameters.values()]
    return name + ADDRESS.sub("", str(signature.replace(parameters=shown)))


def shown_default(default: object) -> object:
    """The default if it reads the same anywhere, else dots: `os.environ` is one, and holds secrets; so are paths."""
    if isinstance(default, str) and default.startswith(os.sep):
        return Dots()
    plain = default is inspect.Parameter.empty or default is None
    return default if plain or isinstance(default, int | float | str | bytes) else Dots()


class Dots:
    """Stands for a value that isn't shown."""

    def __repr__(self) -> str:
        """Three dots."""
        return "..."


def module_entries(module: ModuleType, name: str, met: set[int]) -> Iterator[Entry]:
    """The module and what it makes public and nothing met before has shown."""
    if text := documentation(module):
        yield Entry(name, "module", name, name, f"{name}\n\n{text}")
    for key in sorted(vars(module).keys() | set(getattr(module, "__all__", ()))):
        thing = getattr(module, key, None)
        kind = next((kind for kind, test in KINDS.items() if test(thing)), None)
        if kind is not None and id(thing) not in met and is_shown(key, thing, module):
            met.add(id(thing))
            prefix = "" if module is builtins else f"{name}."
            yield from thing_entries(prefix + key, kind, name, thing)


def is_shown(key: str, thing: object, module: ModuleType) -> bool:
    """Whether people find the thing by this name: the module exports it, or it is from there.

    A package also shows what its modules define, listed or not (`asyncio.TaskGroup` in 3.11),
    and C modules call themselves `_name`.
    """
    exported = getattr(module, "__all__", None)
    if key.startswith("_") or (exported is not None and key in exported):
        return not key.startswith("_")
    home = getattr(thing, "__module__", None) or module.__name__
    if exported is not None:
        return home.startswith(f"{module.__name__}.")
    return module is builtins or home.lstrip("_") == module.__name__.lstrip("_")


def thing_entries(name: str, kind: str, module: str, thing: object) -> Iterator[Entry]:
    """The class or function, and a class's own public methods and properties."""
    members = list(member_entries(name, module, thing)) if inspect.isclass(thing) else []
    text = documentation(thing) or documentation(vars(thing).get("__init__") if inspect.isclass(thing) else None)
    if not text and members:
        text = "Members: " + ", ".join(member.name.rpartition(".")[2] for member in members)
    if text:
        yield Entry(name, kind, module, name, f"{heading(name, thing)}\n\n{text}")
    yield from members


def member_entries(owner: str, module: str, cls: type) -> Iterator[Entry]:
    """The methods and properties that a class itself defines, documents and shows."""
    for key, raw in sorted(vars(cls).items()):
        member = getattr(raw, "__func__", raw)  # under classmethod and staticmethod
        text = documentation(member)
        if key.startswith("_") or not text:
            continue
        name = f"{owner}.{key}"
        if inspect.isroutine(member):
            yield Entry(name, "method", module, name, f"{heading(name, member)}\n\n{text}")
        elif inspect.isdatadescriptor(member):
            yield Entry(name, "property", module, name, f"{name}\n\n{text}")


def topic_entries() -> Iterator[Entry]:
    """The language reference as `pydoc` shows it, each topic under the request that shows it."""
    from pydoc_data.topics import topics  # a megabyte that only this needs

    requests = {label: label for label in topics}
    for table in (pydoc.Helper.symbols, pydoc.Helper.topics, pydoc.Helper.keywords):
        for request, target in table.items():
            label = target if isinstance(target, str) else target[0]
            if label in topics:
                requests[label] = request
    for label, text in sorted(topics.items()):
        title = text.strip().partition("\n")[0].replace('"', "").strip(" *")
        yield Entry(title or label, "topic", "", requests[label], text.strip())


def entries() -> Iterator[Entry]:
    """Everything, in an order that is the same at each run."""
    met: set[int] = set()
    for module in modules():
        if id(module) not in met:
            met.add(id(module))
            yield from module_entries(module, "os.path" if module is os.path else module.__name__, met)
    yield from topic_entries()


def main() -> None:
    """Print every entry; whatever an imported module prints goes nowhere."""
    warnings.simplefilter("ignore")
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        sys.stdout = io.StringIO()
        for entry in entries():
            lines.write(json.dumps(entry._asdict()) + "\n")


if __name__ == "__main__":
    main()
