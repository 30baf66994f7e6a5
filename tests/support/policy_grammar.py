"""Whole policies and the questions to them, made from a seed: the same number gives the same text, data and documents.

What is written is mostly of the right types, so that most policies are admitted, and now and then not: looking something
up that is not there, taking a value of unknown type for a text, calling a builtin with what it was not compared for,
an `else` after a value that may be undefined. Each value that a policy comes to is told in an obligation.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from support.edge_values import NUMBERS as EDGE_NUMBERS
from support.edge_values import closed_call, whole

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.request import Caller, Request, Resource, User, input_document

__all__ = ["documents", "policy", "world"]

WRONG = 0.001
"""The share of expressions of another type than fits."""
EDGE = 0.02
"""The share of numbers, and of calls, at the edges: calls come from the tables that admit (`edge_values`)."""
SUSPECT = 0.06
"""The share of conditions that the engines are known to see otherwise, and that no policy may hold."""

TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "aba",
    "A b",
    "😀",
    "a😀b",
    "ü☃",
    "a.b",
    "a/b",
    "0",
    "1",
    "e\u0301",
    "x\u0000y",
    " \u00a0t\n",
    "é",
    "true",
)
NUMBERS = (0, 1, 1, 2, 3, 7, 10, 100, -1, -7, 2**53 - 1, -(2**53) + 1)
PROPERTIES = ("owner", "amount", "tags", "flag", "odd", "missing")
REGEXES = ("^a", "^[a-z]*$", "b$", "^.{2}$", "^(a|b)+$", "^[^a]*$", "a?b", "", "^$", "(a{2,3}b?)+", "^[ab.]{1,3}$")
GLOBS = ("a*", "**", "a/**/b", "a/**/b", "**/b")
TRIMS = ["trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix"]
AFFIXES = ["strings.any_prefix_match", "strings.any_suffix_match"]
GUARDS = ["is_string", "is_number", "is_array", "is_set", "is_boolean", "is_null", "is_object"]
KINDS = ("text", "number", "boolean", "texts", "numbers", "names")


def world(seed: int) -> dict[str, Json]:
    """Return data for policies: people, limits, lists and odd things under digits and empty names."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    odd: list[Json] = [*TEXTS, *NUMBERS, True, [1, "a"], {"a": 1}]
    people: dict[str, Json] = {
        name: {
            "level": chance.choice(NUMBERS),
            "groups": [chance.choice(TEXTS) for _ in range(chance.randrange(4))],
            "manages": {chance.choice(TEXTS): chance.random() < 0.7 for _ in range(chance.randrange(3))},
            "active": chance.random() < 0.6,
        }
        for name in chance.sample(TEXTS, 6)
    }
    for person in people.values():
        if isinstance(person, dict) and chance.random() < 0.3:
            del person[chance.choice(list(person))]
    return {
        "people": people,
        "limits": {chance.choice(TEXTS): chance.choice(NUMBERS) for _ in range(4)},
        "texts": [chance.choice(TEXTS) for _ in range(chance.randrange(1, 4))],
        "numbers": [chance.choice(NUMBERS) for _ in range(chance.randrange(1, 4))],
        "revoked": {chance.choice(TEXTS): chance.random() < 0.5 for _ in range(chance.randrange(4))},
        "odd": [chance.choice(odd) for _ in range(3)],
        "empty": {},
        "none": [],
    }


def documents(seed: int, count: int) -> list[InputDocument]:
    """Return `count` questions as the gate would ask them."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    return [_document(chance) for _ in range(count)]


def _document(chance: random.Random) -> InputDocument:
    def properties() -> dict[str, object]:
        values: dict[str, object] = {
            "owner": chance.choice(TEXTS),
            "amount": chance.choice(NUMBERS),
            "tags": [chance.choice(TEXTS) for _ in range(chance.randrange(4))],
            "flag": chance.random() < 0.5,
            "odd": chance.choice([*TEXTS, *NUMBERS, True, False, [], ["a", 1, True], [0]]),
        }
        for name in list(values):
            if chance.random() < 0.15:
                values[name] = values["odd"]
            if chance.random() < 0.15:
                del values[name]
                values.setdefault("odd", "a")
        return values

    subject = chance.choice(TEXTS)
    return input_document(
        Request(
            action=chance.choice(TEXTS),
            properties=properties(),
            resource=Resource(type=chance.choice(TEXTS), id=chance.choice(TEXTS), properties=properties()),
            time=chance.choice((0, 1_795_528_800_000_000, 2**53 - 1)),
            nats_subject="task.a.b",
            kind=chance.choice(("task", "call")),
            message_id="0",
            caller=Caller(
                subject=subject,
                trust_domain="example.org",
                tenant=chance.choice(TEXTS),
                user=User(
                    present=chance.random() < 0.7,
                    id=chance.choice(TEXTS),
                    scope=tuple(chance.choice(TEXTS) for _ in range(chance.randrange(3))),
                    claims=properties(),
                ),
                chain=tuple(chance.choice(TEXTS) for _ in range(chance.randrange(4))),
            ),
            delivery=chance.choice((1, 2, 5)),
        )
    )


def policy(seed: int) -> str:
    """Return one policy with the entry points that every policy has."""
    chances = random.Random(seed), random.Random(-1 - seed)  # noqa: S311  the same each time
    return _Writer(*chances).policy()


@dataclass(slots=True)
class _Function:
    name: str
    arguments: tuple[str, ...]
    gives: str


@dataclass(slots=True)
class _Names:
    """The names of one place with their kinds; `seen` are all of the rule, which may not be declared again."""

    kinds: dict[str, str]
    seen: set[str]
    every: set[str] = field(default_factory=set)
    """Those of an `every`, which may not look anything up under `not`."""

    def inner(self) -> _Names:
        return _Names(kinds=dict(self.kinds), seen=self.seen, every=set(self.every))

    def of(self, kind: str) -> list[str]:
        return [name for name, one in self.kinds.items() if one == kind]


@dataclass(slots=True)
class _Writer:
    chance: random.Random
    edges: random.Random
    """Decides apart what is replaced by a value at the edges: otherwise a seed makes the policy that it always made."""
    functions: list[_Function] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def one(self, options: list[str]) -> str:
        return self.chance.choice(options)

    def new(self, names: _Names, kind: str) -> str:
        self.count += 1
        name = f"x{self.count}"
        names.kinds[name] = kind
        names.seen.add(name)
        return name

    # Expressions

    def expression(self, kind: str, names: _Names, depth: int = 2) -> str:
        if self.chance.random() < WRONG:
            kind = self.chance.choice(KINDS)
        options: list[Callable[[], str]] = [lambda: self.literal(kind)]
        known = names.of(kind)
        if known:
            options += [lambda: self.one(known)] * 4
        if "request" in names.kinds:
            options += [lambda: self.asked(kind)] * 2
        fitting = [name for name, one in self.rules.items() if one == kind]
        if fitting:
            options.append(lambda: self.one(fitting))
        if depth:
            options += [lambda: self.built(kind, names, depth - 1)] * 4
        return self.chance.choice(options)()

    def literal(self, kind: str) -> str:
        def text() -> str:
            return json.dumps(self.chance.choice(TEXTS), ensure_ascii=False)

        def number() -> str:
            drawn = str(self.chance.choice(NUMBERS))
            return whole(self.edges.choice(EDGE_NUMBERS)).written if self.edges.random() < EDGE else drawn

        match kind:
            case "text":
                return text()
            case "number":
                return number()
            case "boolean":
                return self.chance.choice(("true", "false"))
            case "texts":
                return f"[{', '.join(text() for _ in range(self.chance.randrange(4)))}]"
            case "numbers":
                return f"[{', '.join(number() for _ in range(self.chance.randrange(4)))}]"
            case "names":
                return f"{{{', '.join(text() for _ in range(self.chance.randrange(1, 4)))}}}"
            case _:
                return self.chance.choice((text(), number(), "null", "true", "[]", "{}", '{"a": [1]}', "set()"))

    def asked(self, kind: str) -> str:
        fields = {
            "text": (
                *("subject.id", "action.name", "context.tenant", "context.user.id", "resource.id", "context.time"),
                *("context.user.type", "context.user.domain"),
            ),
            "number": ("context.delivery", "v", "context.user.auth_time"),
            "boolean": ("context.user.present", "context.grant.limited"),
            "texts": ("context.chain", "context.user.scope", "context.grant.actions"),
        }
        if kind in fields:
            return f"request.{self.chance.choice(fields[kind])}"
        return self.literal(kind)

    def unknown(self, names: _Names) -> str:
        """Return something whose type, or presence, only the question decides."""
        where = self.one(["resource.properties", "action.properties", "context.user.claims"])
        options = [f"request.{where}.{self.chance.choice(PROPERTIES)}"] * 3
        rules = [name for name, kind in self.rules.items() if kind in ("limits", "names", "texts")]
        for name in names.of("text"):
            options += [f"{rule}[{name}]" for rule in rules]
            options += [f"data.world.revoked[{name}]", f"data.world.people[{name}].level", f"request.{where}[{name}]"][
                : 3 if "request" in names.kinds else 2
            ]
        options += ["data.world.people.a.active", "data.world.odd[0]", "data.world.empty.a", "data.world.texts[1]"]
        return self.one(options if "request" in names.kinds else options[3:])

    def built(self, kind: str, names: _Names, depth: int) -> str:
        def part(of: str) -> str:
            return self.expression(of, names, depth)

        options: list[Callable[[], str]]
        match kind:
            case "text":
                options = [
                    lambda: f"concat({part('text')}, {part(self.one(['texts', 'names']))})",
                    lambda: (
                        f"replace({part('text')}, {json.dumps(self.one(['a', 'b', '😀', '.', 'ab']))}, {part('text')})"
                    ),
                    lambda: f"substring({part('text')}, {self.one(['0', '1', '2'])}, {part('number')})",
                    lambda: f"{self.one(TRIMS)}({part('text')}, {part('text')})",
                    lambda: f"{self.one(['trim_space', 'strings.reverse'])}({part('text')})",
                    lambda: f'sprintf("%v-%v%%", [{part(self.one(["text", "number", "boolean"]))}, {part("text")}])',
                    lambda: f"format_int({part('number')}, {self.one(['2', '8', '10', '16'])})",
                    lambda: f"type_name({part(self.chance.choice(KINDS))})",
                    lambda: f"{self.one(['max', 'min'])}({part(self.one(['texts', 'names']))})",
                    lambda: self.indexed(names, "texts"),
                    lambda: f"object.get({self.mapping(names, depth)}, {part('text')}, {part('text')})",
                    lambda: "time.weekday(time.parse_rfc3339_ns(request.context.time))",
                ]
                if "request" not in names.kinds:
                    options.pop()
            case "number":
                options = [
                    lambda: f"count({part(self.one(['texts', 'numbers', 'names']))})",
                    lambda: f"count({part('text')})" if self.chance.random() < 0.2 else part("number"),
                    lambda: f"({part('number')} {self.one(['+', '-', '*'])} {part('number')})",
                    lambda: f"({part('number')} % {self.one(['2', '3', '7'])})",
                    lambda: f"abs({part('number')})",
                    lambda: f"sum({part('numbers')})",
                    lambda: f"{self.one(['max', 'min'])}({part('numbers')})",
                    lambda: f"object.get({self.limits(names)}, {part('text')}, {part('number')})",
                    lambda: self.indexed(names, "numbers"),
                ]
            case "boolean":
                options = [
                    lambda: f"({part('text')} {self.one(['==', '!=', '<', '<=', '>', '>='])} {part('text')})",
                    lambda: f"({part('number')} {self.one(['==', '!=', '<', '<=', '>', '>='])} {part('number')})",
                    lambda: f"{self.one(['startswith', 'endswith', 'contains'])}({part('text')}, {part('text')})",
                    lambda: f"regex.match({json.dumps(self.one(list(REGEXES)))}, {part('text')})",
                    lambda: f"{self.one(AFFIXES)}({part(self.one(['text', 'texts', 'names']))}, {part('names')})",
                    lambda: f"{self.one(GUARDS)}({part(self.chance.choice(KINDS))})",
                    lambda: f"object.subset({part('names')}, {part('names')})",
                    lambda: f"({self.named(names, 'text')} in {self.named(names, self.one(['texts', 'names']))})",
                ]
                if self.chance.random() < SUSPECT:
                    glob = json.dumps(self.one(list(GLOBS)))
                    options = [
                        lambda: f'glob.match({glob}, ["/"], {self.one([part("text"), json.dumps("a/b")])})',
                        lambda: f"({part('text')} in {self.unknown(names)})",
                        lambda: f"object.subset({part('texts')}, {part('texts')})",
                    ]
            case "texts":
                options = [
                    lambda: f"split({part('text')}, {part('text')})",
                    lambda: f"array.concat({part('texts')}, {part('texts')})",
                    lambda: f"array.reverse({part('texts')})",
                    lambda: (
                        f"array.slice({part('texts')}, {self.one(['0', '1', '2'])}, {self.one(['0', '1', '3', '9'])})"
                    ),
                    lambda: f"sort({part(self.one(['texts', 'names']))})",
                    lambda: self.comprehension("text", names, depth, "[]"),
                ]
            case "numbers":
                options = [
                    lambda: f"sort({part('numbers')})",
                    lambda: f"array.concat({part('numbers')}, {part('numbers')})",
                    lambda: self.comprehension("number", names, depth, "[]"),
                ]
            case "names":
                options = [
                    lambda: f"({part('names')} {self.one(['|', '&', '-'])} {part('names')})",
                    lambda: f"object.keys({self.mapping(names, depth)})",
                    lambda: f"union({{{part('names')}, {part('names')}}})",
                    lambda: f"intersection({{{part('names')}, {part('names')}}})",
                    lambda: self.comprehension("text", names, depth, "{}"),
                ]
            case _:
                options = [lambda: self.literal(kind)]
        drawn = self.chance.choice(options)()
        if kind in ("text", "number", "boolean") and self.edges.random() < EDGE:
            return closed_call(kind, self.edges)
        return drawn

    def mapping(self, names: _Names, depth: int) -> str:
        value = self.expression("text", names, depth)
        options = [f'{{"a": {value}, "b": "b"}}', f'object.remove({{"a": {value}, "c": ""}}, ["c"])']
        options += [
            f'object.union({{"a": "x"}}, {{"a": {value}}})',
            f'object.filter({{"a": {value}, "b": "b"}}, {{"a"}})',
        ]
        return self.one(options)

    def indexed(self, names: _Names, kind: str) -> str:
        known = [*names.of(kind), f"data.world.{kind}"]
        return f"{self.one(known)}[{self.one(['0', '1', *names.of('number')])}]"

    def limits(self, names: _Names) -> str:
        """Return an object of numbers."""
        options = ["data.world.limits", *(name for name, kind in self.rules.items() if kind == "limits")]
        inner = names.inner()
        key, value = self.new(inner, "text"), self.new(inner, "number")
        line = "; ".join(self.statement(inner, 0)) if self.chance.random() < 0.5 else f"{value} > 0"
        options.append(
            f'{{{key}: {value} | some {key}, {value} in data.world.limits; {line}; {value} != 7; {key} != ""}}'
        )
        return self.one(options)

    def named(self, names: _Names, kind: str) -> str:
        return self.one(names.of(kind) or [self.literal(kind)])

    def comprehension(self, kind: str, names: _Names, depth: int, brackets: str) -> str:
        inner = names.inner()
        lines = self.iteration(inner) + [
            line for _ in range(self.chance.randrange(2)) for line in self.statement(inner, 0)
        ]
        said = self.expression(kind, inner, min(depth, 1))
        term = self.new(inner, kind)
        lines.append(f"{term} := {said}")
        return f"{brackets[0]}{term} | {'; '.join(lines)}{brackets[1]}"

    # Statements

    def iteration(self, names: _Names) -> list[str]:
        draw = self.chance.random()
        if draw < 0.16:
            index, item = self.new(names, "number"), self.new(names, "text")
            lines = [f"some {index}, {item} in {self.expression('texts', names, 0)}", f'{index} < 2; {item} != "b"']
        elif draw < 0.45:
            kind = self.one(["texts", "numbers", "names"])
            collection = self.expression(kind, names, 0)
            item = self.new(names, {"texts": "text", "numbers": "number", "names": "text"}[kind])
            lines = [f"some {item} in {collection}"]
        elif draw < 0.75:
            key = self.new(names, "text")
            value = self.new(names, "unknown")
            what = self.one(["people", "limits", "revoked", "empty"])
            lines = [f"some {key}, {value} in data.world.{what}", f"{value} != {key}"]
            if what == "limits":
                names.kinds[value] = "number"
        else:
            index, item = self.new(names, "number"), self.new(names, "text")
            lines = [f"some {index}", f"{item} := data.world.texts[{index}]"]
            names.kinds[item] = "text"
        return lines

    def statement(self, names: _Names, depth: int) -> list[str]:
        options = [
            self.assigned,
            self.guarded,
            self.compared,
            self.compared,
            self.looked_up,
            self.paired,
            self.negated,
            self.negated,
        ]
        if depth:
            options += [self.every, self.called, self.called]
        return self.chance.choice(options)(names, depth)

    def assigned(self, names: _Names, depth: int) -> list[str]:
        known = names.of("text")
        if known and self.chance.random() < 0.1:
            copied = self.one(known)
            return [f"{self.new(names, 'text')} := {copied}"]
        if self.chance.random() < 0.1:
            values = [self.expression("text", names, 1), self.expression("number", names, 1)]
            return [f"[{self.new(names, 'text')}, {self.new(names, 'number')}] := [{', '.join(values)}]"]
        if self.chance.random() < 0.1:
            value = self.expression("texts", names, 1)
            return [f"[{self.new(names, 'text')}, {self.new(names, 'text')}] := {value}"]
        if self.chance.random() < 0.25:
            value = self.unknown(names)
            return [f"{self.new(names, 'unknown')} := {value}"]
        kind = self.chance.choice(KINDS)
        value = self.expression(kind, names, 2 if depth else 1)
        return [f"{self.new(names, kind)} := {value}"]

    def guarded(self, names: _Names, _: int) -> list[str]:
        value = self.unknown(names)
        name = self.new(names, "unknown")
        kind, guard = self.chance.choice((("text", "is_string"), ("number", "is_number"), ("boolean", "is_boolean")))
        names.kinds[name] = kind
        return [f"{name} := {value}", f"{guard}({name})"]

    def compared(self, names: _Names, _: int) -> list[str]:
        draw = self.chance.random()
        if draw < 0.2:
            text = self.expression("text", names)
            several = self.expression(self.one(["texts", "names"]), names)
            item, collection = self.new(names, "text"), self.new(names, "unknown")
            return [f"{item} := {text}", f"{collection} := {several}", f"{item} in {collection}"]
        if draw < 0.4:
            return [f"{self.unknown(names)} {self.one(['==', '!=', '<', '>='])} {self.unknown(names)}"]
        if draw < 0.6:
            said = self.expression(self.chance.choice(KINDS), names, 1)
            name = self.new(names, "unknown")
            return [f"{name} := {said}", f"{self.unknown(names)} {self.one(['==', '!='])} {name}"]
        said = self.expression("boolean", names)
        if " | " in said:
            name = self.new(names, "boolean")
            return [f"{name} := {said}", name]
        # A line that started with a parenthesis would call the line before.
        return [said[1:-1] if said.startswith("(") else said]

    def looked_up(self, names: _Names, _: int) -> list[str]:
        return [self.unknown(names)]

    def paired(self, names: _Names, _: int) -> list[str]:
        """Ask for a key with its value, or for a rule that is made key by key."""
        deep = [name for name, kind in self.rules.items() if kind == "deep"]
        if deep and self.chance.random() < 0.7:
            name, key = self.one(deep), self.named(names, "text")
            key = '"a"' if "\\" in key else key  # a key with an escape is refused
            if self.chance.random() < 0.02:
                return [self.one([f"count({name}) != 1", f"not {key} in {name}"])]
            if self.chance.random() < 0.3:
                return [f"some {self.new(names, 'text')} in {name}[{key}]"]
            return [self.one([f"{key} in {name}[{key}]", f"{name}[{key}]"])]
        draw = self.chance.random()
        if draw < 0.02:
            return [f"{self.named(names, 'text')}, {self.named(names, 'text')} in {self.expression('names', names, 0)}"]
        if draw < 0.5:
            return [f"{self.named(names, 'number')}, {self.named(names, 'text')} in data.world.texts"]
        return [f"{self.named(names, 'text')}, {self.named(names, 'number')} in data.world.limits"]

    def negated(self, names: _Names, _: int) -> list[str]:
        options = [f"not {name}" for name in (*names.of("boolean"), *names.of("unknown"))]
        for name in [one for one in names.of("text") if one not in names.every]:
            options += [f"not data.world.revoked[{name}]", f'not {name} == "a"', f'not startswith({name}, "a")']
            options += [f"not {name} in {one}" for one in names.of("texts")]
            options += [f"not data.world.people[{name}].active"]
        for function in self.callable(names):
            options += [f"not {self.call(function, names, simple=True)}"] * 3
        return [self.one(options or ["not false"])]

    def called(self, names: _Names, _: int) -> list[str]:
        options = self.callable(names)
        if not options:
            return ["true"]
        function = self.chance.choice(options)
        called = self.call(function, names)
        if function.gives == "boolean" and self.chance.random() < 0.5:
            return [called]
        return [f"{self.new(names, function.gives)} := {called}"]

    def unused(self, text: str) -> list[_Function]:
        """Return the functions that nothing calls in `text`, which would be checked as if anything could."""
        return [one for one in self.functions if re.search(rf"[ (]{one.name}\(", text) is None]

    def callable(self, names: _Names) -> list[_Function]:
        return [one for one in self.functions if "request" in names.kinds or "request" not in one.arguments]

    def call(self, function: _Function, names: _Names, *, simple: bool = False) -> str:
        given = [self.named(names, kind) if simple else self.expression(kind, names, 1) for kind in function.arguments]
        given = ["request" if kind == "request" else one for kind, one in zip(function.arguments, given, strict=True)]
        return f"{function.name}({', '.join(given)})"

    def every(self, names: _Names, _: int) -> list[str]:
        known = [name for name in names.of("text") if name.startswith("x")]
        before: list[str] = []
        if known and self.chance.random() < SUSPECT:
            copied = self.one(known)
            before = [f"{self.new(names, 'text')} := {copied}"]
        inner = names.inner()
        if self.chance.random() < 0.3:
            key, value = self.new(inner, "text"), self.new(inner, "unknown")
            inner.every |= {key, value}
            head = (
                f"every {key}, {value} in {self.one(['data.world.revoked', 'data.world.people', 'data.world.empty'])}"
            )
            lines = [f"{value} != {key}"]
        else:
            kind = self.one(["texts", "numbers", "names"])
            collection = self.expression(kind, names, 1)
            item = self.new(inner, {"texts": "text", "numbers": "number", "names": "text"}[kind])
            inner.every.add(item)
            head, lines = f"every {item} in {collection}", [f"{item} != {self.literal('text')}"]
            if kind != "numbers" and self.chance.random() < 0.5:
                lines = [self.one([f"data.world.revoked[{item}]", f'{item} != ""', f'count(split({item}, "a")) < 3'])]
        if names.of("text") and self.chance.random() < 0.5:
            sought = names.of("text")[-1] if before else self.one(names.of("text"))
            lines.append(f"data.world.{self.one(['revoked', 'people'])}[{sought}]")
        lines += [line for _ in range(self.chance.randrange(2)) for line in self.statement(inner, 0)]
        return [*before, f"{head} {{ {'; '.join(lines)} }}"]

    def body(self, names: _Names, least: int = 1) -> list[str]:
        return [line for _ in range(self.chance.randrange(least, least + 3)) for line in self.statement(names, 1)]

    # Rules

    def policy(self) -> str:
        rules = [rule for _ in range(self.chance.randrange(1, 4)) for rule in self.constant()]
        for _ in range(self.chance.randrange(1, 5)):
            rules += self.function()
        return "\n\n".join(
            [
                "package sealbus.authz",
                "decision := decide(input)",
                "batch := [decide(request) | some request in input.batch]",
                *rules,
                self.decide("\n".join(rules)),
            ]
        )

    def constant(self) -> Iterator[str]:
        self.count += 1
        name = f"r{self.count}"
        names = _Names(kinds={}, seen=set())
        draw = self.chance.random()
        if draw < 0.1:
            lines = self.body(names.inner(), 0)
            key, value = self.new(names, "text"), self.new(names, "number")
            yield f"{name}[{key}] := {value} if {{ {'; '.join([f'some {key}, {value} in data.world.limits', *lines])} }}"
            self.rules[name] = "limits"
        elif draw < 0.14:
            inner = names.inner()
            lines = self.iteration(inner) + self.body(inner, 0)
            key = self.headed(inner, lines)
            yield f"{name}[{key}] := {self.expression('number', inner, 1)} if {{ {'; '.join(lines)} }}"
            self.rules[name] = "limits"
        elif draw < 0.35:
            kind = self.chance.choice(KINDS)
            value = self.expression(kind, names)
            yield f"{name} := {value}"
            self.rules[name] = kind
        elif draw < 0.6:
            inner = names.inner()
            lines = self.iteration(inner) + self.body(inner, 0)
            value = self.headed(inner, lines)
            yield f"{name} contains {value} if {{ {'; '.join(lines)} }}"
            self.rules[name] = "names"
        elif draw < 0.66:
            inner = names.inner()
            lines = self.iteration(inner) + self.body(inner, 0)
            key, value = self.headed(inner, lines), self.headed(inner, lines)
            yield f"{name}[{key}] contains {value} if {{ {'; '.join(lines)} }}"
            self.rules[name] = "deep"
        elif draw < 0.8:
            lines = self.body(names.inner())
            yield f"default {name} := false"
            yield f"{name} if {{ {'; '.join(lines)} }}"
            self.rules[name] = "boolean"
        else:
            inner = names.inner()
            lines = self.body(inner)
            said = self.expression("text", inner, 1)
            value = self.new(inner, "text")
            lines.append(f"{value} := {said}")
            yield f"{name} := {value} if {{ {'; '.join(lines)} }}"
            self.rules[name] = "text"

    def headed(self, names: _Names, lines: list[str]) -> str:
        """Return a text for a head, named in the body mostly: elsewhere it may be undefined for some solutions."""
        draw = self.chance.random()
        if draw < 0.02:
            key = self.named(names, "text")
            return self.one([f"data.world.people[{key}].groups[0]", f"min(data.world.people[{key}].groups)"])
        if draw < 0.5:
            return self.named(names, "text")
        said = self.expression("text", names, 0 if draw < 0.6 else 1)
        if draw < 0.6:
            return said
        name = self.new(names, "text")
        lines.append(f"{name} := {said}")
        return name

    def function(self) -> Iterator[str]:
        self.count += 1
        name = f"f{self.count}"
        kinds = tuple(self.chance.choice((*KINDS, "request")) for _ in range(self.chance.randrange(1, 3)))
        if kinds.count("request") > 1:
            kinds = ("request",)
        arguments = ["request" if kind == "request" else f"a{self.count}{number}" for number, kind in enumerate(kinds)]
        gives = self.chance.choice(("boolean", "boolean", *KINDS))
        head = f"{name}({', '.join(arguments)})"
        result = _Function(name=name, arguments=kinds, gives=gives)

        def names() -> _Names:
            return _Names(kinds=dict(zip(arguments, kinds, strict=True)), seen=set(arguments))

        def branch() -> tuple[list[str], str]:
            inner = names()
            lines = self.body(inner)
            if gives == "boolean" and self.chance.random() < 0.6:
                return lines, self.chance.choice(("true", "true", "false"))
            if self.chance.random() < 0.15:
                return lines, self.unknown(inner)
            return lines, self.expression(gives, inner, 1)

        draw = self.chance.random()
        if draw < 0.15 and kinds[0] == "text":
            for literal in self.chance.sample(TEXTS, self.chance.randrange(1, 3)):
                lines, value = branch()
                self.count += 1
                inside = ", ".join([json.dumps(literal, ensure_ascii=False), *arguments[1:]])
                lines = [line.replace(arguments[0], '"b"') for line in [*lines, f"z{self.count} := {value}"]]
                yield f"{name}({inside}) := z{self.count} if {{ {'; '.join(lines)} }}"
        elif draw < 0.3 and gives == "boolean":
            if self.chance.random() < 0.3:
                yield f"default {name}({', '.join('_' for _ in arguments)}) := false"
            for _ in range(self.chance.randrange(1, 3)):
                yield f"{head} if {{ {'; '.join(branch()[0])} }}"
        else:
            written = ""
            branches = self.chance.randrange(1, 4)
            for number in range(branches):
                lines, value = branch()
                if not self.safe(value, lines) and self.chance.random() < 0.96:
                    self.count += 1
                    lines, value = [*lines, f"z{self.count} := {value}"], f"z{self.count}"
                written += f"{head if not number else ' else'} := {value} if {{ {'; '.join(lines)} }}"
            if self.chance.random() < 0.5:
                written += f" else := {self.literal(gives)}"
            yield written
        self.functions.append(result)

    @staticmethod
    def safe(value: str, lines: list[str]) -> bool:
        return value in lines or value in ("true", "false")

    def decide(self, rules: str) -> str:
        written = "decide(request) := "
        for allow in ("true", "false", "true"):
            names = _Names(kinds={"request": "request"}, seen={"request"})
            lines = self.body(names, 1 if allow == "true" else 0)
            told: list[str] = []
            for function in self.unused(rules + "\n ".join([written, *lines])) if allow == "false" else ():
                lines.append(f"not {self.call(function, names, simple=True)}")
            for kind in (self.chance.choice(KINDS), self.chance.choice(KINDS)):
                value = self.expression(kind, names)
                name = self.new(names, kind)
                lines.append(f"{name} := {value}")
                told.append(f'{{"v": {name}}}')
            told += [f'{{"v": {name}}}' for name in list(names.kinds)[1:12] if names.kinds[name] != "request"]
            written += (
                f'{{"allow": {allow}, "reasons": [], "obligations": told, "policy": "generated"}} if {{\n\t'
                + "\n\t".join([*lines, f"told := [{', '.join(told)}]"])
                + "\n} else := "
            )
        return written + '{"allow": false, "reasons": ["last"], "obligations": [], "policy": "generated"}'
