"""The variables of a rule: where each is declared, how it comes by its value, and that no name is used twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sealbus.policies.problems import Problem
from sealbus.policies.syntax import (
    Array,
    Expression,
    Number,
    Place,
    Scalar,
    Text,
    Variable,
)

__all__ = ["Frame", "Local", "Origin", "Outer", "Scope"]

Outer: TypeAlias = Literal["value", "function"]
"""What a name outside a rule is: a rule or import that has a value, or a function."""

Origin: TypeAlias = Literal["argument", "some", "every", "assigned"]
"""How a variable comes by its value."""

_ROOTS: Final = frozenset({"input", "data"})


@dataclass(slots=True, kw_only=True)
class Local:
    """One variable; `bound` once it has a value, which only one of `some x` has not from the start."""

    place: Place
    origin: Origin
    bound: bool = True
    used: bool = False


@dataclass(slots=True, kw_only=True)
class Frame:
    """The variables that one body, comprehension or `every` declares."""

    parent: Frame | None = None
    locals: dict[str, Local] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Scope:
    """The frames around one place of a rule in the file `path`, innermost first, and the problems found so far.

    `outside` holds the names that the file's imports and its package's rules give.
    """

    path: str
    outside: Mapping[str, Outer]
    problems: list[Problem] = field(default_factory=list)
    frame: Frame = field(default_factory=Frame)

    def refuse(self, place: Place, form: str, text: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(file=self.path, line=place.line, column=place.column, form=form, text=text))

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, innermost first."""
        frame: Frame | None = self.frame
        while frame is not None:
            yield frame
            frame = frame.parent

    def find(self, name: str) -> tuple[Frame, Local] | None:
        """Return the variable `name` and its frame."""
        for frame in self.frames():
            if name in frame.locals:
                return frame, frame.locals[name]
        return None

    def origin(self, name: str) -> Origin | None:
        """Return how the variable `name` came by its value, None for what is no variable or has no value yet."""
        found = self.find(name)
        return found[1].origin if found is not None and found[1].bound else None

    def open(self) -> Frame:
        """Enter a new frame and return the one around it, for `close`."""
        outside = self.frame
        self.frame = Frame(parent=outside)
        return outside

    def close(self, outside: Frame) -> None:
        """Leave the innermost frame for `outside`; OPA refuses what `some x` or `every` declared and nothing used."""
        for name, local in self.frame.locals.items():
            if not local.used and local.origin in ("some", "every"):
                self.refuse(local.place, "unused", f"{name} is declared and never used: write _ or leave it out")
        self.frame = outside

    def declare(self, variable: Variable, origin: Origin, *, bound: bool = True) -> None:
        """Declare a variable in the innermost frame; `_` declares nothing."""
        name, place = variable.name, variable.place
        if name == "_":
            return
        if name in _ROOTS:
            self.refuse(place, "shadow", f"{name} is no name for a variable")
        elif self.find(name) is not None:
            self.refuse(place, "shadow", f"{name} is declared already: take another name")
        elif name in self.outside:
            self.refuse(place, "shadow", f"{name} is a rule or an import: take another name")
        else:
            self.frame.locals[name] = Local(place=place, origin=origin, bound=bound)

    def declare_pattern(self, expression: Expression, origin: Origin) -> None:
        """Declare the variables of what is matched: names, literals and arrays of these."""
        match expression:
            case Variable():
                self.declare(expression, origin)
            case Array():
                for item in expression.items:
                    self.declare_pattern(item, origin)
            case Scalar() | Text() | Number():
                pass
            case _:
                text = "only names, literals and arrays of them can be matched: name the whole, then take its parts"
                self.refuse(expression.place, "pattern", text)
