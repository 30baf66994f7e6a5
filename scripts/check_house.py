"""Check the rules of the house that no linter knows (part of `make check`): circles, names, arguments, folders, one builder.

1. No module imports itself through others. Imports in functions and under TYPE_CHECKING count: a reader follows them too.
2. No two modules of a layer differ only by an ending: `claim` next to `claims` or `claiming` misleads a reader.
   The same name in two folders is fine, because the folder is part of it; a folder may have the name of a module.
3. No class name is used twice in a layer.
4. No function takes more than eight arguments. The options of a command and the fields of a value (`__new__`) are exempt.
5. No folder holds more than thirteen modules, beside its `__init__`.
6. `Permitted` is built in one place, the gate's `permit`: there is no other way to a handler.

Usage: check_house.py [FOLDER]
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

LAYERS = ("agents", "bus", "envelopes", "policies")

_ENDINGS = {"s": ("",), "es": ("",), "ies": ("y",), "ing": ("", "e"), "ed": ("", "e"), "er": ("", "e"), "ier": ("y",)}
"""Endings of a word, and what they replace."""
MOST_ARGUMENTS = 8
MOST_MODULES = 13
BUILDERS = {"Permitted": "bus.gate.gate.permit"}
"""The only function that may build each class."""
_SHORTEST = 3
"""Fewest letters of a word: `ring` is not a form of `r`."""


def read_modules(folder: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of each module of the layers in `folder`, by dotted name; a package's ends in `__init__`."""
    paths = [path for layer in LAYERS for path in sorted((folder / layer).rglob("*.py"))]
    return {".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}


def imports(tree: ast.Module, modules: Iterable[str]) -> set[str]:
    """Return which of `modules` the tree imports, wherever in it; what a package gives comes out of its `__init__`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{one.name}" for one in node.names} | {node.module}
    named = {name.removeprefix("sealbus.") for name in found}
    return (named | {f"{name}.__init__" for name in named}) & set(modules)


def circles(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield one circle of imports, if there is any: the first that the sorter finds."""
    try:
        TopologicalSorter({name: imports(tree, modules) for name, tree in modules.items()}).prepare()
    except CycleError as error:
        yield f"import circle: {' <- '.join(error.args[1])}"


def forms(word: str) -> set[str]:
    """Return the words that `word` may be a form of, including itself: `tile` and `til` for `tiling`."""
    bases = {
        word.removesuffix(ending) + instead
        for ending, replaced in _ENDINGS.items()
        if word.endswith(ending)
        for instead in replaced
    }
    return {word} | {base for base in bases if len(base) >= _SHORTEST}


def differ_by_an_ending(one: str, other: str) -> bool:
    """Return whether two names are not the same, but word by word forms of the same."""
    words, others = one.split("_"), other.split("_")
    return (
        one != other
        and len(words) == len(others)
        and all(forms(word) & forms(beside) for word, beside in zip(words, others, strict=True))
    )


def near_names(modules: Iterable[str]) -> Iterator[str]:
    """Yield the modules of a layer whose names differ only by an ending."""
    for one, other in combinations(modules, 2):
        same_layer = one.partition(".")[0] == other.partition(".")[0]
        if same_layer and differ_by_an_ending(one.rpartition(".")[2], other.rpartition(".")[2]):
            yield f"names that differ by an ending: {one}, {other}"


def repeated_classes(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield each class name that several modules of a layer define."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[module.partition(".")[0], node.name].append(module)
    for (_, name), places in found.items():
        if len(places) > 1:
            yield f"class {name} stands in {', '.join(places)}"


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's arguments, without `self` and `cls`."""
    parameters = function.args
    every = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
    return [argument.arg for place, argument in enumerate(every) if place or argument.arg not in ("self", "cls")]


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a decorator makes a command of a function: its arguments are the options of the command."""
    calls = [decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def long_signatures(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield each function with more than `MOST_ARGUMENTS` arguments."""
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if (
                not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                or node.name == "__new__"
                or is_command(node)
            ):
                continue
            if (number := len(arguments_of(node))) > MOST_ARGUMENTS:
                yield f"{number} arguments: {module}:{node.lineno} {node.name}"


def full_folders(modules: Iterable[str]) -> Iterator[str]:
    """Yield each folder with more than `MOST_MODULES` modules."""
    folders = Counter([name.rpartition(".")[0] for name in modules if not name.endswith(".__init__")])
    for folder, number in folders.items():
        if number > MOST_MODULES:
            yield f"{number} modules: {folder}"


def other_builders(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield each place outside of `BUILDERS` that calls one of its classes, or its `_make` or `__new__`."""
    for module, tree in modules.items():
        inside = {
            id(node): f"{module}.{function.name}"
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            for name, builder in BUILDERS.items():
                if name in called_names(node) and inside.get(id(node)) != builder:
                    yield f"{name} is built by {builder} alone: {module}:{node.lineno}"


def called_names(call: ast.Call) -> set[str]:
    """Return the names in the expression that is called, and of the class that `__new__` makes."""
    expressions = [call.func]
    if any(name.endswith("new") or name == "__new__" for name in names_in(call.func)):
        expressions += call.args[:1]
    return {name for expression in expressions for name in names_in(expression)}


def names_in(expression: ast.expr) -> set[str]:
    """Return the names and attributes in an expression."""
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(expression)
        if isinstance(node, ast.Name | ast.Attribute)
    }


def findings(folder: Path) -> list[str]:
    """Return the violations of the rules of the house in the layers of `folder`."""
    modules = read_modules(folder)
    return [
        *circles(modules),
        *near_names(modules),
        *repeated_classes(modules),
        *long_signatures(modules),
        *full_folders(modules),
        *other_builders(modules),
    ]


def main(arguments: list[str]) -> int:
    """Print the findings; return 1 if there are any."""
    found = findings(Path(*arguments) if arguments else Path(__file__).resolve().parent.parent)
    sys.stdout.writelines(f"{finding}\n" for finding in found)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
