"""A policy with prints before and after each literal, so that its next decision shows what happened.

The prints change no answer. regorus runs a statement once its variables are known. So a print names the variables that its
literal uses (before), or gives a value (after), and runs at the right time. Each print has its own line, because a line has
at most 1,024 columns. The policy passed the form checks before it is rewritten. The result would not, and is never stored.

`trace` reads the prints. Each has one word and a number:

==== ==============================================================================
p    a literal is about to be evaluated
v    the values of the literal's references, as JSON texts by the functions of `shown`
q    the literal held
e    the body held, for one solution
a    a named value was computed, as in `{"not_owner": within_reach(user)}`
==== ==============================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.parse import SourceText, as_kind, as_list, as_map, offsets
from sealbus.policies.lint.regorus import parse_module

SHOWN: Final = 6
"""Most references of one literal whose values are printed."""
CHARACTERS: Final = 200
"""Most characters of a text that are printed. One more character shows that it was cut."""
ITEMS: Final = 8
"""Most items of an array or a set that are printed. For a longer one, only their number is printed."""

_FUNCTIONS: Final = f"""package PACKAGE

s(x) := json.marshal(substring(x, 0, {CHARACTERS + 1})) if {{
	is_string(x)
}} else := json.marshal({{"members": count(x)}}) if {{
	is_object(x)
}} else := json.marshal({{"items": count(x)}}) if {{
	listed(x)
	count(x) > {ITEMS}
}} else := text if {{
	listed(x)
	items := [item | some one in x; item := leaf(one)]
	text := json.marshal(items)
}} else := json.marshal(x)

first(found) := s(found[0])

listed(x) if is_array(x)
listed(x) if is_set(x)

leaf(x) := substring(x, 0, {CHARACTERS + 1}) if {{
	is_string(x)
}} else := "(more)" if {{
	is_object(x)
}} else := "(more)" if {{
	listed(x)
}} else := x

named(number, x) := x if print("a", number)
"""

Names: TypeAlias = tuple[str, ...]


_QUOTES: Final = (b'"', b"`")
_REFERENCES: Final = ("Var", "RefDot", "RefBrack")
_COMPREHENSIONS: Final = ("ArrayCompr", "SetCompr", "ObjectCompr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One literal of a body, with its place and its text.

    `shown` are the references whose values are printed, as written. `uses` are the rules that its evaluation may run.
    `every` is the number of an `every`'s body. A `negation` fails if its expression holds.
    """

    body: int
    file: str
    line: int
    written: str
    shown: tuple[str, ...] = ()
    uses: frozenset[Names] = frozenset()
    every: int | None = None
    negation: bool = False
    copies: bool = False
    """Whether the literal only copies a value to another name. regorus defers copies to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBody:
    """One body: its rule, its first line, its first literal, and the texts of its head."""

    rule: Names
    file: str
    line: int
    first: int
    every: bool = False
    texts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The rewritten modules, and the meanings of the numbers in their prints.

    `marks` has the site and the name of each named value. `heads` has, by name, the rules that compute named values in heads,
    as in `else := denied(request, {"too_much": small_enough(request)})`; no literal evaluates these. `untraced` are the files
    without prints, because with them they would be too large to parse, or because they use the name `print`.
    """

    modules: tuple[Module, ...]
    sites: tuple[Site, ...]
    bodies: tuple[WrittenBody, ...]
    marks: tuple[tuple[int, str], ...]
    heads: Mapping[str, frozenset[Names]]
    untraced: tuple[str, ...] = ()


def rewrite(modules: Iterable[Module], names: Iterable[str]) -> Rewritten:
    """Return `modules`, which passed the form checks, with added prints; `names` are the top names of their data.

    Raises `PolicyRefused` if a module cannot be parsed.
    """
    parsed = [_Parsed.of(module) for module in modules]
    package = _free({*names, *(file.scope.package[0] for file in parsed)}, "shown")
    table = _Table(package=package, rules=_Rules.of(parsed))
    written: list[Module] = []
    untraced: list[str] = []
    for file in parsed:
        if "print" in _variables(file.tree):
            untraced.append(file.module.path)
            written.append(file.module)
            continue
        try:
            value = _free(_variables(file.tree), "value")
            written.append(_File(source=file.source, scope=file.scope, table=table, value=value).write(file))
        except PolicyRefused:
            untraced.append(file.module.path)
            written.append(file.module)
    written.append(Module(path=f"{package}.rego", text=_FUNCTIONS.replace("PACKAGE", package)))
    return Rewritten(
        modules=tuple(written),
        sites=tuple(site for site in table.sites if site is not None),
        bodies=tuple(table.bodies),
        marks=tuple(table.marks),
        heads={name: frozenset(rules) for name, rules in table.heads.items()},
        untraced=tuple(untraced),
    )


def _free(used: AbstractSet[str], name: str) -> str:
    while name in used:
        name += "_"
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    module: Module
    source: SourceText
    tree: dict[str, object]
    scope: _Scope

    @classmethod
    def of(cls, module: Module) -> _Parsed:
        source = SourceText(path=module.path, text=module.text.encode())
        tree = as_map(parse_module(module))
        aliases: dict[str, Names] = {}
        for node in as_list(tree["imports"]):
            path, alias = _leading(as_map(node)["refr"]), as_map(node).get("as")
            if path[0] == "data":
                aliases[path[-1] if alias is None else source.written(alias)] = path[1:]
        package = _leading(as_map(tree["package"])["refr"])
        return cls(module=module, source=source, tree=tree, scope=_Scope(package=package, aliases=aliases))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The meanings of the numbers in all files of a policy."""

    package: str
    rules: _Rules
    sites: list[Site | None] = field(default_factory=list)
    bodies: list[WrittenBody] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)
    heads: dict[str, set[Names]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """The surroundings of a body: its rule, the names with a value, and the `local` names that its own statements declare."""

    rule: Names
    known: frozenset[str]
    local: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    """Names of `some x`. The first literal that uses such a name gives it a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    source: SourceText
    scope: _Scope
    table: _Table
    value: str
    """A name that the file does not use."""
    insertions: list[tuple[int, str]] = field(default_factory=list)

    def write(self, parsed: _Parsed) -> Module:
        for node in as_list(parsed.tree["rules"]):
            kind, content = as_kind(node)
            if kind != "Spec":
                continue
            shape, head = as_kind(content["head"])
            arguments = _variables(head["args"]) if shape == "Func" else set()
            around = _Surroundings(
                rule=(*self.scope.package, *_leading(head["refr"])), known=frozenset({"input", "data", *arguments})
            )
            for body in as_list(content["bodies"]):
                query = as_map(as_map(body)["query"])
                source = as_map(body)["assign"] if as_map(body)["is_else"] is True else head
                for name, _, rules in self.named_calls(source):
                    self.table.heads.setdefault(name, set()).update(rules)
                if as_list(query["stmts"]):
                    self.body(query, around, frozenset(_texts(source)))
        return Module(path=self.source.path, text=self.inserted())

    def inserted(self) -> str:
        parts: list[bytes] = []
        at = 0
        # Sorted by place only: insertions at the same place stay in order.
        for place, text in sorted(self.insertions, key=lambda insertion: insertion[0]):
            parts += [self.source.text[at:place], text.encode()]
            at = place
        return b"".join((*parts, self.source.text[at:])).decode()

    def body(
        self, query: dict[str, object], around: _Surroundings, texts: frozenset[str], *, every: bool = False
    ) -> int:
        """Put prints into one body; return its number."""
        number = len(self.table.bodies)
        statements = [as_map(node) for node in as_list(query["stmts"])]
        start, end = offsets(query["span"])
        first = self.whole(statements[0])[0]
        line = self.source.place(statements[0]["span"]).line
        self.table.bodies.append(
            WrittenBody(
                rule=around.rule,
                file=self.source.path,
                line=line,
                first=len(self.table.sites),
                every=every,
                texts=texts,
            )
        )
        braces = first > start and self.source.text[start : start + 1] == b"{"
        if not braces:
            self.insert(first, "{")
        after = ""
        for statement in statements:
            around, before, follows = self.statement(statement, number, around)
            self.insert(self.whole(statement)[0], f"\n{after}{before}")
            after = follows
        closing = f'{after}print("e", {number}{_given(around.local)})\n'
        if braces:
            self.insert(end - 1, f"\n{closing}")
        else:
            self.insert(self.whole(statements[-1])[1], f"\n{closing}}}")
        return number

    def statement(
        self, statement: dict[str, object], body: int, around: _Surroundings
    ) -> tuple[_Surroundings, str, str]:
        """Return the surroundings after a statement, the text to insert before it, and the text to insert after it."""
        number, rules = len(self.table.sites), self.table.rules
        self.table.sites.append(None)
        kind, literal = as_kind(statement["literal"])
        start, end = self.whole(statement)
        used = _variables(literal)
        if kind == "SomeVars":
            declared = frozenset[str]()
            waiting = around.waiting | {self.source.written(variable) for variable in as_list(literal["vars"])}
        else:
            declared = _declared(kind, literal) | (around.waiting & used)
            waiting = around.waiting - used
        shown = dict.fromkeys(self.source.text[a:b].decode() for a, b in self.references(literal, around))
        looked = tuple(reference for reference in shown if "\n" not in reference)[:SHOWN]
        inner: int | None = None
        if kind == "Every":
            spans = [span for span in (literal["key"], literal["value"]) if span is not None]
            named = {self.source.written(span) for span in spans} - {"_"}
            inside = _Surroundings(rule=around.rule, known=around.known | around.local | named)
            inner = self.body(as_map(literal["query"]), inside, frozenset(), every=True)
        self.name_values(literal["domain"] if kind == "Every" else literal, number)
        self.table.sites[number] = Site(
            body=body,
            file=self.source.path,
            line=self.source.place(statement["span"]).line,
            written=self.source.text[start:end].decode(),
            shown=looked,
            uses=frozenset[Names]().union(*(rules.runs[rule] for rule in self.scope.named(literal, rules.below))),
            every=inner,
            negation=kind == "NotExpr",
            copies=_copies(kind, literal),
        )
        waits = _given(used & around.local)
        before = f'print("p", {number}{waits});\n'
        if looked:
            # The reference is in a comprehension, because regorus reads a reference by a name of an `every` as a loop:
            # without a value the `print` would fail, and the body with it.
            value = self.value
            values = ",\n".join(
                f"data.{self.table.package}.first([{value} | {value} := {reference}])" for reference in looked
            )
            before += f'print("v", {number}, {values}{waits});\n'
        known = _Surroundings(rule=around.rule, known=around.known, local=around.local | declared, waiting=waiting)
        return known, before, f'print("q", {number}{_given((used | declared) & known.local)});\n'

    def name_values(self, node: object, site: int) -> None:
        """Wrap the calls that are named values of an object: `{"not_owner": within_reach(user)}`."""
        for name, called, _ in self.named_calls(node):
            start, end = offsets(called["span"])
            self.insert(start, f"data.{self.table.package}.named({len(self.table.marks)},\n")
            self.insert(end, "\n)")
            self.table.marks.append((site, name))

    def named_calls(self, node: object) -> Iterator[tuple[str, dict[str, object], frozenset[Names]]]:
        """Yield the name, the call and its rules of each value of an object that calls a rule."""
        for kind, content in _kinds(node):
            for entry in as_list(content["fields"]) if kind == "Object" else ():
                _, key, value = as_list(entry)
                (form, name), (call, called) = as_kind(key), as_kind(value)
                rules = self.scope.named(called["fcn"], self.table.rules.below) if call == "Call" else frozenset()
                if form == "String" and rules:
                    yield str(name["value"]), called, rules

    def references(self, node: object, around: _Surroundings) -> Iterator[tuple[int, int]]:
        """Yield the spans of the references and names whose value is known before the literal is evaluated."""
        if isinstance(node, list):
            for item in node:
                yield from self.references(item, around)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in _REFERENCES and self.tellable({key: value}, around):
                    yield offsets(as_map(value)["span"])
                    for _, content in _kinds({key: value}):
                        # The keys of the lookup are shown beside it.
                        yield from self.references(content.get("index"), around)
                elif key not in ("fcn", "query", *_COMPREHENSIONS):
                    yield from self.references(value, around)

    def tellable(self, node: dict[str, object], around: _Surroundings) -> bool:
        names = _variables(node)
        if names in ({"input"}, {"data"}) and "Var" in node:
            return False
        inside = {kind for kind, _ in _kinds(node)}
        return names <= around.known | around.local | self.scope.aliases.keys() and not inside & {
            "Call",
            *_COMPREHENSIONS,
        }

    def insert(self, place: int, text: str) -> None:
        self.insertions.append((place, text))

    def whole(self, statement: dict[str, object]) -> tuple[int, int]:
        """Return the span of a statement with its quotes: the span of a text has none."""
        start, end = offsets(statement["span"])
        start -= self.source.text[start - 1 : start] in _QUOTES
        end += self.source.text[end : end + 1] in _QUOTES
        return start, end


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """The meanings of names in a file outside its rules."""

    package: Names
    aliases: Mapping[str, Names]

    def named(self, node: object, below: Mapping[Names, frozenset[Names]]) -> frozenset[Names]:
        """Return the rules that an expression names, or looks into; `below` has the rules under each path."""
        rules: set[Names] = set()
        for path in {self.absolute(names) for names in _paths(node) if names}:
            rules |= below.get(path, frozenset())
            rules |= {path[:most] for most in range(1, len(path)) if path[:most] in below.get(path[:most], ())}
        return frozenset(rules)

    def absolute(self, path: Names) -> Names:
        if path[0] == "data":
            return path[1:]
        return (*self.aliases.get(path[0], (*self.package, path[0])), *path[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The rules under each path (`below`), and the rules that each rule may run, directly or indirectly (`runs`)."""

    below: Mapping[Names, frozenset[Names]]
    runs: Mapping[Names, frozenset[Names]]

    @classmethod
    def of(cls, files: Iterable[_Parsed]) -> _Rules:
        nodes: dict[Names, list[tuple[_Scope, object]]] = {}
        for file in files:
            for node in as_list(file.tree["rules"]):
                kind, content = as_kind(node)
                head = content["refr"] if kind == "Default" else as_kind(content["head"])[1]["refr"]
                nodes.setdefault((*file.scope.package, *_leading(head)), []).append((file.scope, content))
        below: dict[Names, set[Names]] = {}
        for rule in nodes:
            for most in range(1, len(rule) + 1):
                below.setdefault(rule[:most], set()).add(rule)
        frozen = {path: frozenset(rules) for path, rules in below.items()}
        names = {
            rule: frozenset[Names]().union(*(scope.named(node, frozen) for scope, node in definitions)) - {rule}
            for rule, definitions in nodes.items()
        }
        return cls(below=frozen, runs={rule: _reached(rule, names) for rule in names})


def _reached(rule: Names, names: Mapping[Names, frozenset[Names]]) -> frozenset[Names]:
    reached, waiting = set[Names](), [rule]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting.extend(names[current])
    return frozenset(reached)


def _given(names: AbstractSet[str]) -> str:
    """Return arguments of `print` that make it wait for variables without printing their values."""
    return "".join(f", is_null({name})" for name in sorted(names))


def _leading(node: object) -> Names:
    """Return the plain names at the start of a reference."""
    parts: list[str | None] = []
    kind, content = as_kind(node)
    while kind in ("RefDot", "RefBrack"):
        if kind == "RefDot":
            parts.append(str(as_list(content["field"])[1]))
        else:
            index, literal = as_kind(content["index"])
            parts.append(str(literal["value"]) if index == "String" else None)
        kind, content = as_kind(content["refr"])
    if kind != "Var":
        return ()
    names = [str(content["value"])]
    for part in reversed(parts):
        if part is None:
            break
        names.append(part)
    return tuple(names)


def _kinds(node: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield every `{"Kind": {...}}` of an expression."""
    if isinstance(node, list):
        for item in node:
            yield from _kinds(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key[:1].isupper() and isinstance(value, dict):
                yield key, value
            yield from _kinds(value)


def _variables(node: object) -> set[str]:
    return {str(content["value"]) for kind, content in _kinds(node) if kind == "Var"}


def _texts(node: object) -> set[str]:
    return {str(content["value"]) for kind, content in _kinds(node) if kind == "String"}


def _paths(node: object) -> Iterator[Names]:
    """Yield the leading names of each reference in `node`, including references inside brackets."""
    if isinstance(node, list):
        for item in node:
            yield from _paths(item)
    elif isinstance(node, dict):
        for kind, content in node.items():
            if kind not in _REFERENCES:
                yield from _paths(content)
                continue
            yield _leading({kind: content})
            inner = as_map(content)
            while "refr" in inner:
                yield from _paths(inner.get("index"))
                kind, inner = as_kind(inner["refr"])
                if kind not in _REFERENCES:
                    yield from _paths({kind: inner})


def _declared(form: str, literal: dict[str, object]) -> frozenset[str]:
    """Return the variables that a statement declares for later statements."""
    names: set[str] = set()
    if form == "Expr":
        kind, content = as_kind(literal["expr"])
        names = _variables(content["lhs"]) if kind == "AssignExpr" else names
    elif form == "SomeIn":
        names = _variables([literal["key"], literal["value"]])
    return frozenset(names) - {"_"}


def _copies(form: str, literal: dict[str, object]) -> bool:
    if form != "Expr":
        return False
    kind, content = as_kind(literal["expr"])
    return kind == "AssignExpr" and as_kind(content["rhs"])[0] == "Var"
