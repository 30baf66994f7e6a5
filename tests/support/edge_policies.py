"""Policies that call every admitted builtin and operator at the edges of numbers and text, made from a seed.

Each call is a function `e0(request)`, `e1(request)` and so on. A question with the delivery 1 is told all their values, every
number with all its digits, and allowed by how long they are; one with the delivery `n + 2` is told the value of `en` as
the engine writes it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from support.edge_values import ASKED_NUMBERS, ASKED_TEXTS, CALLED, call

from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.request import Caller, Request, Resource, User, input_document
from sealbus.policies.lint.module import Problem

__all__ = ["EdgePolicy", "edge_documents", "edge_policy"]

CALLS: Final = 10
"""Calls of one policy: what a decision can hold."""
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {"number": ("n0", "n1", "n2"), "text": ("t0", "t1", "t2")}
_GUARDS: Final = {"n": "is_number", "t": "is_string"}

_SHOWN: Final = """scalar(value) := text if {
	is_number(value)
	digits := format_int(value, 10)
	text := concat("", ["n", digits])
} else := text if {
	is_string(value)
	text := concat("", ["t", value])
} else := text if {
	is_boolean(value)
	text := sprintf("%v", [value])
} else := type_name(value)

flat(value) := told if {
	is_array(value)
	items := [text | some item in value; text := scalar(item)]
	told := array.concat(["array"], items)
} else := told if {
	is_set(value)
	items := [text | some item in value; text := scalar(item)]
	told := array.concat(["set"], items)
} else := told if {
	is_object(value)
	items := [pair | some key, item in value; pair := [scalar(key), scalar(item)]]
	told := array.concat(["object"], items)
} else := scalar(value)

deep(value) := told if {
	is_array(value)
	items := [text | some item in value; text := flat(item)]
	told := array.concat(["array"], items)
} else := told if {
	is_set(value)
	items := [text | some item in value; text := flat(item)]
	told := array.concat(["set"], items)
} else := told if {
	is_object(value)
	items := [pair | some key, item in value; pair := [scalar(key), flat(item)]]
	told := array.concat(["object"], items)
} else := scalar(value)

shown(found) := ["nothing"] if {
	count(found) == 0
} else := [deep(found.value)]

long(values) := answer if {
	sizes := [size | some value in values; some text in value; is_string(text); size := count(split(text, ""))]
	total := sum(sizes)
	odd := total % 2
	answer := odd == 1
}"""


@dataclass(slots=True)
class EdgePolicy:
    """The calls of one policy by number, each with the builtin or operator that it is a call of."""

    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """What was called where the call was refused."""

    def text(self) -> str:
        """Return the whole policy."""
        values = ", ".join(f"shown(e{number}(request))" for number in self.calls)
        decide = _body(1, f"values := [{values}]", "allow := long(values)", answer=("allow", '{"values": values}'))
        for number in self.calls:
            decide += " else " + _body(number + 2, f"found := e{number}(request)", answer=("true", "found"))
        parts = [
            "package sealbus.authz",
            "decision := decide(input)",
            "batch := [decide(request) | some request in input.batch]",
            *(_function(number, said) for number, (_, said) in self.calls.items()),
            _SHOWN,
            f"decide(request) {decide} else := {_answer('false', '')}",
        ]
        return "\n\n".join(parts)

    def without(self, problems: tuple[Problem, ...]) -> bool:
        """Take out the calls that `problems` are about; return whether there were any."""
        lines = self.text().split("\n")
        found: set[int] = set()
        for problem in problems:
            before = [re.match(r"e([0-9]+)\(request\) :=", line) for line in lines[: problem.line]]
            numbers = [int(one[1]) for one in before if one is not None]
            if numbers and not any(line == "scalar(value) := text if {" for line in lines[: problem.line]):
                found.add(numbers[-1])
        self.refused += [self.calls.pop(number)[0] for number in sorted(found)]
        return bool(found)


def _answer(allow: str, obligations: str) -> str:
    return f'{{"allow": {allow}, "reasons": [], "obligations": [{obligations}], "policy": "edges"}}'


def _body(delivery: int, *lines: str, answer: tuple[str, str]) -> str:
    """Return one answer of `decide`, for a delivery, after `lines`."""
    body = "\n".join(f"\t{line}" for line in (f"request.context.delivery == {delivery}", *lines))
    return f":= answer if {{\n{body}\n\tanswer := {_answer(*answer)}\n}}"


def _function(number: int, said: str) -> str:
    used = [name for names in _NAMES.values() for name in names if re.search(rf"\b{name}\b", said)]
    lines = [
        line for name in used for line in (f"{name} := request.action.properties.{name}", f"{_GUARDS[name[0]]}({name})")
    ]
    body = "\n".join(f"\t{line}" for line in [*lines, f"x := {said}"])
    return f'e{number}(request) := {{"value": x}} if {{\n{body}\n}} else := {{}}'


def edge_policy(seed: int) -> EdgePolicy:
    """Return the policy of a seed: neighbouring seeds call everything in turn."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    found = EdgePolicy()
    for number in range(CALLS):
        name = CALLED[(seed * CALLS + number) % len(CALLED)]
        found.calls[number] = (name, call(name, chance, _NAMES).written)
    return found


def edge_documents(seed: int, policy: EdgePolicy) -> list[InputDocument]:
    """Return questions with numbers and texts at the edges: some about all values, and one about each call alone."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    deliveries = [1] * 5 + [number + 2 for number in policy.calls]
    return [_document(chance, delivery) for delivery in deliveries]


def _document(chance: random.Random, delivery: int) -> InputDocument:
    properties: dict[str, object] = {name: chance.choice(ASKED_NUMBERS) for name in _NAMES["number"]}
    properties |= {name: chance.choice(ASKED_TEXTS) for name in _NAMES["text"]}
    return input_document(
        Request(
            action="edges.ask",
            properties=properties,
            resource=Resource(type="edge", id="e", properties={}),
            time=chance.choice((0, 1_795_528_800_000_000, 2**53 - 1)),
            nats_subject="task.edges.ask",
            kind="task",
            message_id="0",
            caller=Caller(
                subject="spiffe://example.org/agent/a",
                trust_domain="example.org",
                tenant="",
                user=User(present=False, id="", scope=(), claims={}),
                chain=("spiffe://example.org/agent/a",),
            ),
            delivery=delivery,
        )
    )
