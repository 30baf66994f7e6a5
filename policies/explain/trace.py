"""The trace in the prints of a rewritten policy: the evaluated bodies, the literals that ran them, and where bodies ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sealbus.policies.explain.rewriting import Rewritten

EVENTS: Final = 50_000
"""Most prints that are read. Later prints are ignored."""

_UNDEFINED: Final = "<undefined>"
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Undefined:
    """The value of an undefined reference."""


UNDEFINED: Final = Undefined()

Value: TypeAlias = "str | int | float | bool | list[object] | dict[str, int] | Undefined | None"
"""A printed value. An object or a long list has only its number of `members` or `items`."""


@dataclass(slots=True, kw_only=True)
class LiteralTried:
    """One evaluation of a literal: the values of its references, the bodies that it ran, and whether it held."""

    site: int
    values: tuple[Value, ...] = ()
    bodies: list[BodyTried] = field(default_factory=list)
    named: list[tuple[str, Sequence[BodyTried]]] = field(default_factory=list)
    """The bodies that ran for each named value."""
    held: bool = False
    failed: bool = False


@dataclass(slots=True, kw_only=True)
class BodyTried:
    """One evaluation of a body: its literals that were tried, and whether it had a solution."""

    body: int
    literals: list[LiteralTried] = field(default_factory=list)
    held: bool = False


def read_prints(prints: Iterable[str], written: Rewritten) -> tuple[BodyTried, ...]:
    """Return the outermost bodies that were evaluated, in order."""
    reader = _Prints(written=written)
    for number, text in enumerate(prints):
        if number == EVENTS:
            break
        word, _, rest = text.partition(" ")
        which, _, rest = rest.partition(" ")
        reader.take(word, int(which), rest)
    reader.leave(0)
    return tuple(reader.roots)


@dataclass(slots=True, kw_only=True)
class _Prints:
    written: Rewritten
    roots: list[BodyTried] = field(default_factory=list)
    inside: list[BodyTried] = field(default_factory=list)
    """The bodies in evaluation, the innermost last. No rule uses itself, so each body occurs once."""

    def take(self, word: str, number: int, rest: str) -> None:
        match word:
            case "p":
                self.enter(number)
            case "v":
                self.literal(number).values = tuple(_values(rest, len(self.written.sites[number].shown)))
            case "q":
                self.hold(number)
            case "e":
                self.back_to(number).held = True
            case _:
                site, name = self.written.marks[number]
                literal = self.literal(site)
                done = sum(len(bodies) for _, bodies in literal.named)
                literal.named.append((name, literal.bodies[done:]))

    def enter(self, site: int) -> None:
        """Begin a literal. The first literal of a body also begins the body."""
        number = self.written.sites[site].body
        if self.written.bodies[number].first == site:
            self.begin(number)
        self.back_to(number).literals.append(LiteralTried(site=site))

    def begin(self, number: int) -> None:
        rule, every = self.written.bodies[number].rule, self.written.bodies[number].every
        tried = BodyTried(body=number)
        for depth in range(len(self.inside), 0, -1):
            for literal in reversed(_open(self.inside[depth - 1])):
                site = self.written.sites[literal.site]
                if site.every == number or (not every and rule in site.uses):
                    self.leave(depth)
                    literal.bodies.append(tried)
                    self.inside.append(tried)
                    return
        self.leave(0)
        self.roots.append(tried)
        self.inside.append(tried)

    def hold(self, site: int) -> None:
        body = self.back_to(self.written.sites[site].body)
        literal = next(tried for tried in reversed(body.literals) if tried.site == site)
        if literal.held:
            # A loop took its next value: the literals that are still open failed with the previous value.
            self.fail(body)
        literal.held = True

    def literal(self, site: int) -> LiteralTried:
        body = self.back_to(self.written.sites[site].body)
        return next(tried for tried in reversed(body.literals) if tried.site == site)

    def back_to(self, number: int) -> BodyTried:
        """Return the body in evaluation with this number, and end the bodies inside it."""
        depth = next(at for at, tried in enumerate(self.inside) if tried.body == number)
        self.leave(depth + 1)
        return self.inside[depth]

    def leave(self, depth: int) -> None:
        while len(self.inside) > depth:
            self.fail(self.inside.pop())

    def fail(self, body: BodyTried) -> None:
        """Mark the literal at which a body ended: the last one that began and did not hold.

        Copies of a name begin early and are evaluated last. A copy failed only if no other literal did.
        """
        still = _open(body)
        evaluated = [literal for literal in still if not self.written.sites[literal.site].copies]
        for literal in evaluated[-1:] or still[:1]:
            literal.failed = True


def _open(body: BodyTried) -> list[LiteralTried]:
    return [literal for literal in body.literals if not literal.held and not literal.failed]


def _values(text: str, count: int) -> Iterator[Value]:
    at = 0
    for _ in range(count):
        if text.startswith(_UNDEFINED, at):
            yield UNDEFINED
            at += len(_UNDEFINED) + 1
        else:
            value, end = _DECODER.raw_decode(text, at)
            yield value
            at = end + 1


def causes(bodies: Sequence[BodyTried], written: Rewritten) -> Iterator[LiteralTried]:
    """Yield the innermost literals because of which none of `bodies` had a solution.

    A rule with a body that held is no cause. The expression of a failed `not` is no cause, because it held. Each element of
    an `every` counts for itself.
    """
    ran = [(tried, written.bodies[tried.body]) for tried in bodies]
    held = {written_body.rule for tried, written_body in ran if tried.held and not written_body.every}
    for body, written_body in ran:
        if body.held or (written_body.rule in held and not written_body.every):
            continue
        for literal in body.literals:
            if literal.failed:
                negation = written.sites[literal.site].negation
                inside = [] if negation else list(causes(literal.bodies, written))
                yield from inside or [literal]
