"""Checks across rules: one kind and one default each, no name for two things, no recursion.

OPA finds all of this when it compiles. regorus takes the first of two defaults, the last of two kinds, and runs a
recursive function until the process crashes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from sealbus.policies.lint import syntax
from sealbus.policies.lint.calls import call_problem
from sealbus.policies.lint.module import Problem

DEPTH: Final = 64
"""Longest chain of rules that use one another; a chain of 1,500 overflows regorus' stack."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """All definitions of one path."""

    kind: str
    arity: int
    file: str
    place: syntax.Place
    defaults: int = 0
    uses: set[syntax.Names] = field(default_factory=set)


def data_aliases(file: syntax.File) -> dict[str, syntax.Names]:
    """Return the paths that the imports of `file` stand for, by alias."""
    return {imported.alias: imported.path for imported in file.imports if imported.path[0] == "data"}


class RuleTable:
    """The rules of some files, by path without `data`."""

    def __init__(self, files: Iterable[syntax.File]) -> None:
        self.files = tuple(files)
        self.problems: list[Problem] = []
        self._entries: dict[syntax.Names, _Entry] = {}
        self._below: dict[syntax.Names, set[syntax.Names]] = defaultdict(set)
        self.definitions: dict[syntax.Names, list[tuple[syntax.File, syntax.Rule]]] = defaultdict(list)
        for file in self.files:
            for rule in file.rules:
                self._add(file, rule)
        self._check_prefixes()

    def _refuse(self, file: str, place: syntax.Place, form: str, text: str) -> None:
        self.problems.append(Problem.at(file, place, form, text))

    def _add(self, file: syntax.File, rule: syntax.Rule) -> None:
        path = file.package + syntax.leading_names(rule.head)
        kind: str = "complete" if rule.kind == "default" else rule.kind
        if rule.arguments:
            kind = "function"
        elif isinstance(rule.head, syntax.Reference) and len(path) <= len(file.package) + len(rule.head.path):
            kind = "object"
        self.definitions[path].append((file, rule))
        arity = len(rule.arguments)
        if rule.kind == "function" and not arity:
            self._refuse(file.path, rule.place, "arity", "a function needs an argument")
        entry = self._entries.setdefault(path, _Entry(kind=kind, arity=arity, file=file.path, place=rule.place))
        for length in range(len(path)):
            self._below[path[:length]].add(path)
        name = ".".join(path)
        if (entry.kind, entry.arity) != (kind, arity):
            self._refuse(
                file.path,
                rule.place,
                "conflict",
                f"{name} is defined in another way in {entry.file}:{entry.place.line}",
            )
        if rule.kind == "default":
            entry.defaults += 1
            if entry.defaults > 1:
                self._refuse(file.path, rule.place, "conflict", f"{name} has a default already")

    def _check_prefixes(self) -> None:
        for path, entry in self._entries.items():
            for length in range(1, len(path)):
                above = self._entries.get(path[:length])
                if above is not None and above.kind != "object":
                    text = f"{'.'.join(path)} is inside {'.'.join(path[:length])} of {above.file}:{above.place.line}"
                    self._refuse(entry.file, entry.place, "conflict", text)

    def called_function(self, call: syntax.Call, file: syntax.File) -> syntax.Names | None:
        """Return the path of the function that `call` names; `None` for a builtin and for any other name."""
        path = self.resolve(call.name, file)
        return path if path is not None and self.kind(path) == "function" else None

    def kind(self, path: syntax.Names) -> str:
        """Return the kind of rule at `path`: `complete`, `contains`, `function` or `object`; empty if there is no rule."""
        return self._entries[path].kind if path in self._entries else ""

    def around(self, path: syntax.Names) -> bool:
        """Return whether there are rules below `path`."""
        return path in self._below

    def outside(self, file: syntax.File) -> dict[str, Literal["value", "function"]]:
        """Return the names that the imports of `file` and the rules of its package give to a body, with their kinds."""
        names: dict[str, Literal["value", "function"]] = {}
        depth = len(file.package)
        for path in self._below[file.package]:
            function = len(path) == depth + 1 and self._entries[path].kind == "function"
            names[path[depth]] = "function" if function else "value"
        for imported in file.imports:
            if imported.alias in names:
                self._refuse(
                    file.path, imported.place, "import", f"{imported.alias} is a rule too: import it `as` another name"
                )
            if imported.path[0] == "data":
                target = self._entries.get(imported.path[1:])
                names[imported.alias] = "function" if target is not None and target.kind == "function" else "value"
        return names

    def check_uses(self, file: syntax.File, rule: syntax.Rule, *, relaxed: bool) -> None:
        """Note the rules that `rule` uses. Refuse calls on which the engines differ, and functions without a call."""
        aliases = data_aliases(file)
        entry = self._entries[file.package + syntax.leading_names(rule.head)]
        for expression in syntax.every_expression(rule):
            if isinstance(expression, syntax.Call):
                path = self.resolve(expression.name, file)
                called = self._entries.get(path) if path is not None else None
                if path is not None and called is not None and called.kind == "function":
                    entry.uses.add(path)
                    if len(expression.arguments) != called.arity:
                        text = f"{'.'.join(expression.name)} takes {called.arity} arguments"
                        self._refuse(file.path, expression.place, "arity", text)
                elif path is not None and (expression.name[0] == "data" or expression.name[0] in aliases):
                    text = f"{'.'.join(expression.name)}: there is no such function"
                    self._refuse(file.path, expression.place, "function", text)
                else:
                    problem = call_problem(expression, relaxed=relaxed)
                    if problem is not None:
                        self._refuse(file.path, *problem)
            elif isinstance(expression, syntax.Variable | syntax.Reference):
                path = self.resolve(syntax.leading_names(expression), file)
                if path is not None:
                    self._note(file, entry, path, expression)

    def resolve(self, names: syntax.Names, file: syntax.File) -> syntax.Names | None:
        """Return the path that `names` of `file` mean outside a rule; None for locals, `input` and builtins."""
        package, aliases = file.package, data_aliases(file)
        if not names:
            return None
        if names[0] == "data":
            return names[1:]
        if names[0] in aliases:
            return aliases[names[0]][1:] + names[1:]
        rule = (*package, names[0])
        return package + names if rule in self._entries or rule in self._below else None

    def _note(self, file: syntax.File, entry: _Entry, path: syntax.Names, expression: syntax.Expression) -> None:
        """Note that `entry` uses every rule at, above or below `path`."""
        above = {path[:length] for length in range(1, len(path) + 1)} & self._entries.keys()
        entry.uses |= above | self._below.get(path, set())
        for other in above if isinstance(expression, syntax.Reference) else ():
            if self._entries[other].kind == "function":
                self._refuse(file.path, expression.place, "function-value", f"{'.'.join(other)} is a function: call it")

    def check_depth(self) -> None:
        """Refuse recursion and chains of over `DEPTH` rules; call it after `check_uses` of every rule."""
        depths: dict[syntax.Names, int] = {}
        for start in sorted(self._entries):
            if start not in depths and not self._measure(start, depths):
                return

    def _measure(self, start: syntax.Names, depths: dict[syntax.Names, int]) -> bool:
        """Fill in the depths of `start` and of the rules that it uses, without recursion; return False after a refusal."""
        open_paths: dict[syntax.Names, Iterator[syntax.Names]] = {start: iter(sorted(self._entries[start].uses))}
        deepest: dict[syntax.Names, int] = defaultdict(int)
        while open_paths:
            path = next(reversed(open_paths))
            entry = self._entries[path]
            used = next(open_paths[path], None)
            if used is None:
                del open_paths[path]
                depths[path] = deepest[path] + 1
                if depths[path] > DEPTH:
                    self._refuse(entry.file, entry.place, "depth", f"over {DEPTH} rules use one another in a row")
                    return False
                if open_paths:
                    parent = next(reversed(open_paths))
                    deepest[parent] = max(deepest[parent], depths[path])
            elif used in open_paths:
                text = f"{'.'.join(path)} is recursive, through {'.'.join(used)}"
                self._refuse(entry.file, entry.place, "recursion", text)
                return False
            elif used in depths:
                deepest[path] = max(deepest[path], depths[used])
            else:
                open_paths[used] = iter(sorted(self._entries[used].uses))
        return True
