"""Type inference: no evaluation can fail, and no part is undefined where the engines would differ.

If an evaluation ends with an error, the engines disagree about everything around it: OPA leaves out rules that its index
excludes, stops at a first solution, and evaluates the parts of an expression in its own order; regorus evaluates all of
them, from the left. So every value is given a type, from the policy's text, its data and the shape of its questions, and
each builtin and operator accepts only types for which it cannot fail. The result is then a value or undefined, in both.

The types of a function's arguments are those of its calls. If there are too many different ones they count as unknown,
so that the time this takes is bounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint.module import LIBRARY, TEST_SUFFIX, Problem
from sealbus.policies.lint.rules import RuleTable, data_aliases
from sealbus.policies.lint.syntax import (
    Array,
    Assign,
    Body,
    Call,
    Comprehension,
    Expression,
    File,
    Infix,
    Membership,
    Names,
    Negation,
    Number,
    ObjectLiteral,
    Place,
    Plain,
    Reference,
    Rule,
    Scalar,
    SetLiteral,
    SomeIn,
    SomeNames,
    Statement,
    Text,
    Variable,
    children,
    leading_names,
)
from sealbus.policies.types.builtins import BUILTINS, GUARDS, OPERATORS, mixed
from sealbus.policies.types.conflicts import conflicts, iterates, solutions_of, unique
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.questions import APPROVAL_REQUEST, CONNECT_REQUEST, REQUEST, batch_of
from sealbus.policies.types.value import (
    ANY,
    BOOLEAN,
    NEVER,
    NULL,
    TEXT,
    UNBOUNDED,
    DataPath,
    Type,
    array_of,
    join,
    join_all,
    narrowed,
    number,
    object_of,
    record,
    row_of,
    set_of,
)

__all__ = ["CALLS", "type_problems"]

CALLS: Final = 16
"""Different argument types with which one function is analysed before they count as unknown."""
LIBRARY_CALLS: Final = 2_048
"""The same for a function of the library, which each of many teams calls with conditions of its own."""

_Key: TypeAlias = "tuple[tuple[str, str], ...]"
"""A name, and the names and variables of the lookups in it."""

_REQUESTS: Final[dict[Names, Type]] = {
    ("sealbus", "authz", "decide"): REQUEST,
    ("sealbus", "platform", "denials"): REQUEST,
    ("sealbus", "connect", "decide"): CONNECT_REQUEST,
    ("sealbus", "approval", "decide"): APPROVAL_REQUEST,
}
_STEPS: Final = (1 << 16, 1 << 32, DEFAULT_LIMITS.max_integer, 1 << 64, 1 << 128, UNBOUNDED)
"""Bounds of numbers that functions are called with."""
_KEYS: Final = frozenset({"text", "boolean", "null", "number"})
_TEAMS: Final = ("sealbus", "teams")


def type_problems(files: Iterable[File], data: Json, roots: Iterable[DataPath] = ((),)) -> list[Problem]:
    """Return every place of `files` that could fail for some question, or mean something else to OPA's compiler.

    `files` have passed the other checks. `data` is known below `roots`; the rest may be anything.
    """
    table = RuleTable(one for one in files if not one.path.endswith(TEST_SUFFIX))
    problems: set[Problem] = set()
    try:
        problems.update(conflicts(table.definitions, table.kind))
        _Analysis(table=table, data=DataTypes(data, roots), problems=problems).run()
        _Analysis(table=table, data=DataTypes(data, (), known=False), problems=problems, compiling=True).run()
    except RecursionError:
        text = "an expression is too long, or too many functions call one another in a row: name the parts"
        problems.add(Problem(file="the bundle", line=0, column=0, form="nesting", text=text))
    return sorted(problems)


@dataclass(slots=True, kw_only=True)
class _Frame:
    """What is known at one place of a rule of `file`."""

    file: File
    names: dict[str, Type] = field(default_factory=dict)
    asked: dict[_Key, frozenset[str]] = field(default_factory=dict)
    """The types that earlier statements have checked, of a name or of a lookup in it."""
    inferred: dict[str, frozenset[str]] = field(default_factory=dict)
    """What OPA's compiler takes the arguments of a function to be: it says what the function may be called with."""
    stated: set[_Key] = field(default_factory=set)
    """What was an earlier statement by itself, and so has a value."""

    def inner(self) -> _Frame:
        return _Frame(
            file=self.file,
            names=dict(self.names),
            asked=dict(self.asked),
            inferred=dict(self.inferred),
            stated=set(self.stated),
        )


@dataclass(slots=True, kw_only=True)
class _Analysis:
    """One analysis of all rules; `compiling` as OPA's compiler does, which knows neither data nor arguments."""

    table: RuleTable
    data: DataTypes
    problems: set[Problem]
    compiling: bool = False
    rules: dict[Names, Type] = field(default_factory=dict)
    calls: dict[Names, dict[tuple[Type, ...], Type]] = field(default_factory=lambda: defaultdict(dict))
    taken: dict[tuple[Place, str], frozenset[str]] = field(default_factory=dict)
    """What OPA's compiler takes the arguments of a function for, by definition and name: what its bodies do with them."""

    def run(self) -> None:
        for path, definitions in self.table.definitions.items():
            if self.table.kind(path) != "function":
                self.rule(path)
            elif self.compiling:
                self.function(path, [ANY] * len(definitions[0][1].arguments))
            else:
                request = REQUEST if path[:2] == _TEAMS and path[3:] == ("decide",) else _REQUESTS.get(path)
                if request is not None and len(definitions[0][1].arguments) == 1:
                    self.function(path, [request])
        if not self.compiling:
            # A function that is never called is analysed as if with any arguments; but the library's then decides nothing.
            for path, definitions in self.table.definitions.items():
                never = self.table.kind(path) == "function" and not self.calls[path]
                if never and path[: len(LIBRARY)] != LIBRARY:
                    self.function(path, [ANY] * len(definitions[0][1].arguments))

    def refuse(self, frame: _Frame, place: Place, form: str, text: str) -> None:
        if not self.compiling or form in ("match", "type"):
            self.problems.add(Problem(file=frame.file.path, line=place.line, column=place.column, form=form, text=text))

    # Rules

    def rule(self, path: Names) -> Type:
        found = self.rules.get(path)
        if found is None:
            found = join_all(self.definition(_Frame(file=file), rule) for file, rule in self.table.definitions[path])
            self.rules[path] = found
        return found

    def function(self, path: Names, arguments: Sequence[Type]) -> Type:
        seen = self.calls[path]
        key = tuple([_stepped(one) for one in arguments])
        most = LIBRARY_CALLS if path[: len(LIBRARY)] == LIBRARY else CALLS
        if key not in seen and len(seen) >= most:
            key = (ANY,) * len(arguments)
        found = seen.get(key)
        if found is None:
            results: list[Type] = []
            for file, rule in self.table.definitions[path]:
                frame = _Frame(file=file)
                for pattern, given in zip(rule.arguments, key, strict=True):
                    self.bind(frame, pattern, given)
                results.append(self.definition(frame, rule))
            found = seen[key] = join_all(results)
        return found

    def definition(self, frame: _Frame, rule: Rule) -> Type:
        """Return the type of one definition's value."""
        if not rule.bodies:
            return self.headed(frame, rule, rule.value, None)
        results: list[Type] = []
        for number_of, body in enumerate(rule.bodies):
            inner = frame.inner()
            self.body(inner, body)
            self.take(inner, rule)
            value = body.value if body.is_else else rule.value
            results.append(self.headed(inner, rule, value, body))
            followed = number_of + 1 < len(rule.bodies) and rule.bodies[number_of + 1].is_else
            if followed and value is not None and not self.certain(inner, value):
                text = "an else follows, and this may be undefined: name it in the body (x := ...), then use x"
                self.refuse(inner, value.place, "else", text)
        return join_all(results)

    def take(self, frame: _Frame, rule: Rule) -> None:
        for argument in rule.arguments if self.compiling else ():
            if isinstance(argument, Variable):
                names = frame.inferred.get(argument.name) or frame.asked.get((("", argument.name),), ANY.names)
                key = (rule.place, argument.name)
                self.taken[key] = self.taken.get(key, frozenset()) | names

    def headed(self, frame: _Frame, rule: Rule, value: Expression | None, body: Body | None) -> Type:
        """Return what a head gives after its body."""
        parts = _looked_up(rule)
        if rule.key is not None or parts:
            said = [one for one in (*parts, rule.key, value) if one is not None]
            if solutions_of(body) or any(map(iterates, said)):
                for one in said:
                    if not self.certain(frame, one):
                        # regorus forgets all solutions where the last has no head, and fails where another has none.
                        text = "this may be undefined for one of several solutions: name it in the body (x := ...)"
                        self.refuse(frame, one.place, "head", text)
        if rule.key is not None:
            key = self.expression(frame, rule.key)
            self.unmixed(frame, rule.key.place, key)
            found = set_of(key)
        else:
            found = BOOLEAN if value is None else self.expression(frame, value)
        for part in reversed(parts):
            found = object_of(self.key_of(frame, part), found)
        return found

    # Bodies

    def body(self, frame: _Frame, body: Body) -> None:
        for statement in body.statements:
            self.statement(frame, statement)

    def statement(self, frame: _Frame, statement: Statement) -> None:
        match statement:
            case Plain(expression=Assign() as assigned):
                self.assign(frame, assigned.left, assigned.right, self.expression(frame, assigned.right))
            case Plain(expression=expression):
                self.stated(frame, expression)
                self.learn(frame, expression)
            case Negation(expression=expression):
                self.stated(frame, expression)
            case SomeNames():
                pass
            case SomeIn():
                collection = self.expression(frame, statement.collection)
                self.collection(frame, statement.collection, collection)
                if statement.key is not None:
                    self.bind(frame, statement.key, self.data.keys(collection))
                self.bind(frame, statement.value, self.data.items(collection))
            case _:
                collection = self.expression(frame, statement.collection)
                inner = frame.inner()
                found = [self.data.items(collection)]
                if len(statement.names) == 2:
                    found.insert(0, self.data.keys(collection))
                for name, one in zip(statement.names, found, strict=True):
                    self.bind(inner, name, one)
                self.body(inner, statement.body)

    def stated(self, frame: _Frame, expression: Expression) -> None:
        """Analyse a statement, or what is under `not`: there a missing side of `in` is false in both engines."""
        if isinstance(expression, Membership):
            self.sides(frame, expression)
            return
        self.expression(frame, expression)
        if self.compiling and isinstance(expression, Infix) and expression.operator == "Eq":
            left, right = (self.expression(frame, side) for side in (expression.left, expression.right))
            if _incomparable(left, right):
                text = "OPA refuses this: the two sides are never equal, or are objects of other names. Compare their parts"
                self.refuse(frame, expression.place, "match", text)
            self.infer(frame, expression.left, _named(frame, expression.right, right))
            self.infer(frame, expression.right, _named(frame, expression.left, left))

    def collection(self, frame: _Frame, said: Expression, one: Type) -> None:
        if not one.names <= {"array", "set", "object"}:
            self.unfit(frame, said, one, "`some ... in` takes an array, set or object", ("array",))

    def assign(self, frame: _Frame, pattern: Expression, said: Expression, one: Type) -> None:
        """Bind the names of `pattern` to `said`, part by part if both are written out as arrays."""
        if isinstance(pattern, Array) and isinstance(said, Array) and len(pattern.items) == len(said.items):
            for item, part in zip(pattern.items, said.items, strict=True):
                self.assign(frame, item, part, self.expression(frame, part))
        else:
            self.bind(frame, pattern, one)

    def bind(self, frame: _Frame, pattern: Expression, one: Type) -> None:
        if isinstance(pattern, Variable):
            frame.names[pattern.name] = one
        elif isinstance(pattern, Array):
            if not one.data and _never_equal(row_of(*[ANY] * len(pattern.items)), one):
                self.refuse(frame, pattern.place, "match", "what is taken apart here is never such an array")
            for item in pattern.items:
                self.bind(frame, item, self.data.items(one))

    def learn(self, frame: _Frame, expression: Expression) -> None:
        """Note what is known once `expression` holds."""
        key = self.key(frame, expression)
        if key is not None:
            frame.stated.add(key)
        match expression:
            case Call(name=(name,), arguments=(asked,)) if name in GUARDS:
                known = self.expression(frame, asked).names
                if self.compiling and known and not known & GUARDS[name]:
                    # OPA continues with the type that it knows, and refuses operations on the other.
                    self.refuse(frame, asked.place, "match", f"{name} is never true of this")
                self.note(frame, asked, GUARDS[name])
            case Infix(operator="Eq", left=left, right=right):
                names = self.expression(frame, left).names & self.expression(frame, right).names
                self.note(frame, left, names)
                self.note(frame, right, names)
            case Membership(key=None, value=value, collection=collection):
                self.note(frame, value, self.data.items(self.expression(frame, collection)).names)
            case _:
                pass

    def note(self, frame: _Frame, expression: Expression, names: frozenset[str]) -> None:
        key = self.key(frame, expression)
        # From what holds nothing OPA's compiler learns nothing.
        if key is not None and (names or not self.compiling):
            frame.asked[key] = frame.asked.get(key, names) & names

    def compiled(self, frame: _Frame, expression: Expression, names: frozenset[str]) -> None:
        """Note what OPA's compiler takes a name to be from where it stands: an argument, an operand, a key."""
        if self.compiling and isinstance(expression, Variable):
            self.note(frame, expression, names)

    def infer(self, frame: _Frame, expression: Expression, names: frozenset[str]) -> None:
        """Note what OPA's compiler takes an argument to be from what it stands beside first, whether or not that holds."""
        if self.compiling and isinstance(expression, Variable) and names and names != ANY.names:
            frame.inferred.setdefault(expression.name, frame.asked.get((("", expression.name),), names))

    def key(self, frame: _Frame, expression: Expression) -> _Key | None:
        """Return a key for `expression` if it is a name, or a lookup in one by names and variables."""
        if isinstance(expression, Variable):
            return (("", expression.name),)
        if not isinstance(expression, Reference) or not isinstance(expression.head, Variable):
            return None
        steps: list[tuple[str, str]] = [("", expression.head.name)]
        for part in expression.path:
            step = self.step(frame, part)
            if step is None:
                return None
            steps.append(step)
        return tuple(steps)

    def step(self, frame: _Frame, part: Expression) -> tuple[str, str] | None:
        if isinstance(part, Text):
            return ".", part.value
        if isinstance(part, Number):
            return "[", part.written
        if isinstance(part, Variable) and part.name not in frame.names:
            return None
        key = self.key(frame, part)
        return None if key is None else ("[", repr(key))

    def certain(self, frame: _Frame, expression: Expression) -> bool:
        """Return whether `expression` has a value whenever the statements before it hold."""
        match expression:
            case Scalar() | Text() | Number() | Comprehension():
                return True
            case Variable():
                return expression.name in frame.names
            case Reference():
                return self.key(frame, expression) in frame.stated
            case Call():
                path, builtin = self.called(frame, expression), BUILTINS.get(".".join(expression.name))
                known = self.total(path) if path is not None else builtin is not None and not builtin.partial
                return known and all(self.certain(frame, one) for one in expression.arguments)
            case _:
                return all(self.certain(frame, one) for one in children(expression))

    def total(self, function: Names) -> bool:
        """Return whether `function` has a value whatever it is given: one of its definitions asks nothing."""
        for file, rule in self.table.definitions[function]:
            if not rule.bodies and rule.value is not None and all(isinstance(one, Variable) for one in rule.arguments):
                frame = _Frame(file=file)
                for one in rule.arguments:
                    self.bind(frame, one, ANY)
                return self.certain(frame, rule.value)
        return False

    # Expressions

    def expression(self, frame: _Frame, expression: Expression) -> Type:
        match expression:
            case Scalar():
                return NULL if expression.value is None else BOOLEAN
            case Text():
                return TEXT
            case Number():
                return number(abs(int(expression.written)))
            case Variable() | Reference():
                return self.reference(frame, expression)
            case Array():
                return row_of(*[self.expression(frame, item) for item in expression.items])
            case SetLiteral():
                items = join_all([self.expression(frame, item) for item in expression.items])
                self.unmixed(frame, expression.place, items)
                return set_of(items)
            case ObjectLiteral():
                return self.object(frame, expression)
            case Comprehension():
                return self.comprehension(frame, expression)
            case Call():
                return self.call(frame, expression)
            case Infix():
                return self.infix(frame, expression)
            case Membership():
                for side in children(expression):
                    if not self.certain(frame, side):
                        text = "`in` as a value needs sides that have one: name this first (x := ...), then use x"
                        self.refuse(frame, side.place, "in", text)
                self.sides(frame, expression)
                return BOOLEAN
            case _:
                # Refused by its form: a minus before anything but digits, an assignment inside of an expression.
                return NEVER

    def sides(self, frame: _Frame, expression: Membership) -> None:
        *keys, value, collection = [self.expression(frame, side) for side in children(expression)]
        if keys and "set" in collection.names:
            text = "a set has no keys to regorus, and its items as keys to OPA: ask for one name, x in set"
            self.refuse(frame, expression.place, "in", text)
        pairs = [(value, self.data.items(collection)), *((key, self.data.keys(collection)) for key in keys)]
        if self.compiling and any(_incomparable(one, other) for one, other in pairs):
            text = "OPA refuses this: nothing of this type, or no object of these names, is in there. Compare the parts"
            self.refuse(frame, expression.place, "match", text)
        elif self.compiling and not keys:
            self.infer(frame, expression.value, pairs[0][1].names)

    def object(self, frame: _Frame, expression: ObjectLiteral) -> Type:
        keys, values = expression.items[::2], expression.items[1::2]
        found = [self.expression(frame, value) for value in values]
        if all(isinstance(key, Text) for key in keys):
            return record({key.value: one for key, one in zip(keys, found, strict=True) if isinstance(key, Text)})
        return object_of(join_all([self.key_of(frame, key) for key in keys]), join_all(found))

    def key_of(self, frame: _Frame, said: Expression) -> Type:
        """Return the type of an object's key, whose text in an answer must be the same for both engines."""
        one = self.expression(frame, said)
        text = "an object's key is a text, a boolean, null or a number within 2^53"
        if not one.names <= _KEYS:
            self.unfit(frame, said, one, text, sorted(_KEYS))
        elif one.most > DEFAULT_LIMITS.max_integer:
            self.refuse(frame, said.place, "number", f"{text}: take the number as a text, by format_int or sprintf")
        return one

    def comprehension(self, frame: _Frame, expression: Comprehension) -> Type:
        inner = frame.inner()
        self.body(inner, expression.body)
        terms = [self.expression(inner, term) for term in expression.terms]
        if expression.kind == "array":
            # OPA gives an empty literal the type of an array without items.
            return array_of(terms[0]) if terms[0].names else row_of()
        if expression.kind == "set":
            self.unmixed(frame, expression.place, terms[0])
            return set_of(terms[0])
        self.key_of(inner, expression.terms[0])
        if not unique(expression.terms[0], expression.terms[1], expression.body):
            text = (
                "two values might meet under one key, which is an error: take the key from `some key, value in` alone"
            )
            self.refuse(frame, expression.place, "conflict", text)
        return object_of(terms[0], terms[1])

    def unmixed(self, frame: _Frame, place: Place, items: Type) -> None:
        if mixed(items):
            text = "sets and objects beside one another are put in order otherwise: keep them apart"
            self.refuse(frame, place, "order", text)

    def infix(self, frame: _Frame, expression: Infix) -> Type:
        left, right = (self.expression(frame, side) for side in (expression.left, expression.right))
        sides = OPERATORS[expression.operator].sides
        match expression.operator:
            case "Eq" | "Ne":
                return BOOLEAN
            case "Lt" | "Le" | "Gt" | "Ge":
                if mixed(left, right):
                    text = "sets and objects are put in order otherwise: compare what is in them"
                    self.refuse(frame, expression.place, "order", text)
                return BOOLEAN
            case "Union" | "Intersection":
                self.operands(frame, expression, (left, right), sides)
                return set_of(join(self.data.items(left), self.data.items(right)))
            case "Sub" if "set" in left.names | right.names and "number" not in left.names & right.names:
                self.operands(frame, expression, (left, right), ("set",))
                return left
            case "Mod":
                if not isinstance(expression.right, Number) or not int(expression.right.written):
                    text = "right of % stands a literal that is not 0"
                    self.refuse(frame, expression.right.place, "type", text)
                self.operands(frame, expression, (left, right), sides)
                return number(right.most)
            case "Mul":
                self.operands(frame, expression, (left, right), sides)
                if left.names | right.names <= {"number"} and left.most * right.most > UNBOUNDED:
                    text = (
                        "this product may be over 2^256, and no engine bounds the time of larger ones: multiply at most four "
                        "numbers of the question or the data, or remainders (x % 1000); a function's are known from its calls"
                    )
                    self.refuse(frame, expression.place, "number", text)
                return number(left.most * right.most)
            case _:
                self.operands(frame, expression, (left, right), sides[:1])
                return number(left.most + right.most)

    def operands(self, frame: _Frame, expression: Infix, types: Sequence[Type], names: tuple[str, ...]) -> None:
        for side, one in zip((expression.left, expression.right), types, strict=True):
            self.compiled(frame, side, frozenset({*names, "set"} if expression.operator == "Sub" else names))
            if not one.names <= set(names):
                self.unfit(frame, side, one, f"this takes a {names[0]}", names)

    def unfit(self, frame: _Frame, said: Expression, one: Type, text: str, names: Iterable[str]) -> None:
        wrong, right = one.names - set(names), one.names & set(names)
        if self.compiling and (right or not wrong):
            # OPA refuses what is impossible, and checks the rest at evaluation.
            return
        if wrong and right:
            guards = " or ".join(sorted(guard for guard, known in GUARDS.items() if known & right))
            text += f", and this may be {' or '.join(sorted(wrong))}: ask before, by {guards}"
        elif wrong:
            text += f", and this is {' or '.join(sorted(wrong))}"
        elif not one.scalar:
            text += ": collect what fits before, such as [x | some x in xs; is_string(x)]"
        self.refuse(frame, said.place, "type", text)

    # Calls

    def pattern(self, rule: Rule, number_of: int) -> Type:
        """Return the type of what one definition of a function takes."""
        argument = rule.arguments[number_of]
        names = self.taken.get((rule.place, argument.name)) if isinstance(argument, Variable) else None
        return _pattern(argument) if names is None else narrowed(ANY, names)

    def called(self, frame: _Frame, expression: Call) -> Names | None:
        """Return the path of the called function, or None for a builtin."""
        path = self.table.resolve(expression.name, frame.file.package, data_aliases(frame.file))
        return path if path is not None and self.table.kind(path) == "function" else None

    def call(self, frame: _Frame, expression: Call) -> Type:
        types = [self.expression(frame, argument) for argument in expression.arguments]
        path = self.called(frame, expression)
        if path is not None:
            found = self.function(path, [ANY] * len(types) if self.compiling else types)
            for number_of, (said, one) in enumerate(zip(expression.arguments, types, strict=True)):
                pattern = join_all(self.pattern(rule, number_of) for _, rule in self.table.definitions[path])
                if _never_equal(one, pattern):
                    self.refuse(frame, said.place, "match", "no definition of the function takes this")
                self.infer(frame, said, pattern.names)
            return found
        name = ".".join(expression.name)
        builtin = BUILTINS[name]
        for number_of, (argument, said, one) in enumerate(
            zip(builtin.arguments, expression.arguments, types, strict=True), 1
        ):
            self.compiled(frame, said, frozenset(argument.names))
            if not argument.fits(said, one, self.data):
                self.unfit(frame, said, one, f"argument {number_of} of {name} is {argument.text}", argument.names)
        return builtin.result(expression.arguments, types, self.data)

    # References

    def reference(self, frame: _Frame, expression: Variable | Reference) -> Type:
        head = expression.head if isinstance(expression, Reference) else expression
        path = expression.path if isinstance(expression, Reference) else ()
        if not isinstance(head, Variable):
            found, key, alias = self.expression(frame, head), None, False
        elif head.name in frame.names:
            key = (("", head.name),)
            found, alias = self.narrowed(frame, frame.names[head.name], key), False
        elif head.name == "input":
            request = _REQUESTS.get((*frame.file.package[:2], "decide"), REQUEST)
            found, key, alias = ANY if self.compiling else batch_of(request), (("", "input"),), False
        else:
            return self.outside(frame, expression)
        return self.steps(frame, found, path, key, alias=alias)

    def outside(self, frame: _Frame, expression: Variable | Reference) -> Type:
        """Return the type of a reference to rules or data."""
        aliases = data_aliases(frame.file)
        names = leading_names(expression)
        full = self.table.resolve(names, frame.file.package, aliases) or ()
        before = len(full) - len(names)
        path = expression.path if isinstance(expression, Reference) else ()
        alias = names[0] in aliases
        for length in range(1, len(full) + 1):
            if self.table.kind(full[:length]):
                alias = alias or names[0] == "data"
                rest = path[length - before - 1 :]
                if not rest and any(map(_deep, self.table.definitions[full[:length]])):
                    # Where it has no entry, it is undefined to regorus, and empty to OPA.
                    text = "this rule is looked up by key, r[x], and never taken as a whole"
                    self.refuse(frame, expression.place, "lookup", text)
                return self.steps(frame, self.rule(full[:length]), rest, None, alias=alias)
        rest = path[len(names) - 1 :]
        if self.table.around(full):
            text = "rules are looked up by names that are written: name the rule, then look into it"
            self.refuse(frame, rest[0].place if rest else expression.place, "lookup", text)
            return ANY
        key: _Key = (("", "data"), *((".", name) for name in full))
        return self.steps(frame, self.narrowed(frame, self.data.at(full), key), rest, key, alias=alias)

    def steps(self, frame: _Frame, found: Type, path: Sequence[Expression], key: _Key | None, *, alias: bool) -> Type:
        for part in path:
            if isinstance(part, Text):
                below = self.data.field(found, part.value)
            elif isinstance(part, Variable) and self.unbound(frame, part):
                if part.name != "_":
                    frame.names[part.name] = self.data.keys(found)
                below = self.data.items(found)
            else:
                index, below = self.expression(frame, part), self.data.items(found)
                if "object" in found.names and index.names and index.names <= {"array", "set", "object"}:
                    # OPA's compiler finds some of these nowhere.
                    text = "an object is looked up by a text, number or boolean"
                    self.refuse(frame, part.place, "lookup", text)
                if alias and "number" in index.names and "object" in found.names:
                    text = "a number may look up a text here, in OPA only: name the object first (o := ...), then o[x]"
                    self.refuse(frame, part.place, "lookup", text)
            if self.nowhere(frame, found, part, below):
                self.refuse(frame, part.place, "match", "there is nothing here, ever")
            self.compiled(frame, part, self.data.keys(found).names)
            if found.names == {"set"}:
                # A lookup in a set gives the key itself.
                sought = self.sought(frame, part).names
                below = narrowed(below, sought) if sought else below
            step = self.step(frame, part)
            key = None if key is None or step is None else (*key, step)
            found = below if key is None else self.narrowed(frame, below, key)
        return found

    def sought(self, frame: _Frame, part: Expression) -> Type:
        return ANY if isinstance(part, Variable) and self.unbound(frame, part) else self.expression(frame, part)

    def nowhere(self, frame: _Frame, one: Type, part: Expression, below: Type) -> bool:
        """Return whether OPA's compiler knows that `part` finds nothing in a value of type `one`.

        It also infers types from the calls that an argument is passed to: these are seen here without `compiling`.
        """
        if not one.names or one.data or one.open:
            return False
        known = False
        if self.compiling:
            known = one.scalar or (isinstance(part, Text) and not below.names)
            known = known or (isinstance(part, Number) and 0 <= max(one.lengths, default=-1) <= int(part.written))
        if isinstance(part, Variable) and self.unbound(frame, part):
            return known or (self.compiling and one.lengths == {0})
        if isinstance(part, Text) and not self.compiling:
            return False
        return known or _never_equal(self.expression(frame, part), self.data.keys(one))

    def unbound(self, frame: _Frame, variable: Variable) -> bool:
        """Return whether a reference gives `variable` its value: it is of `some x` and has none yet."""
        if variable.name in frame.names:
            return False
        return self.table.resolve((variable.name,), frame.file.package, data_aliases(frame.file)) is None and (
            variable.name not in ("input", "data")
        )

    def narrowed(self, frame: _Frame, one: Type, key: _Key) -> Type:
        asked = frame.asked.get(key)
        return one if asked is None else narrowed(one, asked)


def _looked_up(rule: Rule) -> Sequence[Expression]:
    """Return the parts of a head that stand for keys, after the rule's name."""
    if not isinstance(rule.head, Reference) or rule.kind == "function":
        return ()
    return rule.head.path[len(leading_names(rule.head)) - 1 :]


def _deep(definition: tuple[File, Rule]) -> bool:
    """Say whether a rule is made key by key, at more than one depth."""
    _, rule = definition
    return len(_looked_up(rule)) + (rule.key is not None) > 1


def _stepped(one: Type) -> Type:
    """Return a number's type with the next of a few bounds: functions are called with many numbers."""
    return number(next(step for step in _STEPS if one.most <= step)) if one.names == {"number"} else one


def _named(frame: _Frame, expression: Expression, one: Type) -> frozenset[str]:
    """Return the types of an expression of the type `one`, for a name without what guards have asked: OPA heeds none."""
    if not isinstance(expression, Variable):
        return one.names
    return frame.inferred.get(expression.name) or frame.names.get(expression.name, one).names


def _never_equal(left: Type, right: Type) -> bool:
    """Return whether OPA's compiler knows that two values differ in type, at any depth of arrays."""
    if not left.names or not right.names:
        return False
    if not left.names & right.names:
        return True
    if not left.names == right.names == {"array"} or left.items is None or right.items is None:
        return False
    if left.lengths and right.lengths and not left.lengths & right.lengths:
        return True
    return _never_equal(left.items, right.items)


def _incomparable(left: Type, right: Type) -> bool:
    """Return whether OPA's compiler may refuse to compare two values: it knows the names that are written in objects.

    Of several objects in one collection only all their names together are known here, so this refuses more than OPA does.
    """
    if _never_equal(left, right):
        return True
    common = left.names & right.names
    if left.open or right.open or left.data or right.data or len(common) != 1:
        return False
    if common == {"array"}:
        # Without rows nothing is known of them: refused.
        return not any(_may_be_equal(one, other) for one in left.rows for other in right.rows)
    if common == {"set"} and any(
        one.items and not one.items.open and len(one.items.names) > 1 for one in (left, right)
    ):
        return True
    if common == {"object"}:
        others = dict(right.fields)
        numbered = any(one.keys is not None and not one.keys.names <= TEXT.names for one in (left, right))
        if numbered or [name for name, _ in left.fields] != list(others):
            return True
        if any(_incomparable(one, others[name]) for name, one in left.fields):
            return True
    pairs = ((left.keys, right.keys), (left.items, right.items))
    return any(one is not None and other is not None and _incomparable(one, other) for one, other in pairs)


def _may_be_equal(one: tuple[Type, ...] | Type, other: tuple[Type, ...] | Type) -> bool:
    """Return whether OPA's compiler compares two arrays (`Type.rows`): it does so place by place."""
    if isinstance(one, Type):
        one = (one,) * (1 if isinstance(other, Type) else len(other))
    if isinstance(other, Type):
        other = (other,) * len(one)
    return len(one) == len(other) and not any(map(_incomparable, one, other))


def _pattern(argument: Expression) -> Type:
    """Return the type that a function's argument pattern matches."""
    match argument:
        case Text():
            return TEXT
        case Number():
            return number(abs(int(argument.written)))
        case Scalar():
            return NULL if argument.value is None else BOOLEAN
        case Array():
            return row_of(*map(_pattern, argument.items))
        case _:
            return ANY
