"""What the Rego of one part may refer to: itself and the platform, so that nobody decides by what another team pushes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sealbus.policies.ownership import TEAMS_ROOT
from sealbus.policies.problems import Problem
from sealbus.policies.syntax import Call, Expression, File, Names, Place, Reference, Variable
from sealbus.policies.syntax_walk import every_expression, leading_names

__all__ = ["reference_problems"]

_ENTRY: Final[Names] = ("sealbus", "authz")


def reference_problems(files: Iterable[File], team: str | None) -> Iterator[Problem]:
    """Yield every place of `files`, those of `team` or (None) of the platform, that may mean another team's documents.

    What is looked up under `data` with a name that is not written out may mean any, and so is refused above the roots
    of teams. The entry points are above all parts: what asks them asks everybody.
    """
    for file in files:
        for one in file.imports:
            if one.path[0] == "data":
                yield from _judged(file, one.place, one.path[1:], team)
        for rule in file.rules:
            for expression in every_expression(rule):
                names = _names(expression)
                if names[:1] == ("data",):
                    yield from _judged(file, expression.place, names[1:], team)


def _names(expression: Expression) -> Names:
    if isinstance(expression, Call):
        return expression.name
    return leading_names(expression) if isinstance(expression, Reference | Variable) else ()


def _judged(file: File, place: Place, path: Names, team: str | None) -> Iterator[Problem]:
    depth = len(TEAMS_ROOT)
    above = path == TEAMS_ROOT[: len(path)]
    others = path[:depth] == TEAMS_ROOT and path[depth : depth + 1] != (team,)
    if above or others or path[: len(_ENTRY)] == _ENTRY:
        text = f"{'.'.join(('data', *path))} may mean another team's: refer to your own package, or to the platform's"
        yield Problem(file=file.path, line=place.line, column=place.column, form="team", text=text)
