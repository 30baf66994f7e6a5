"""Find the checks in a module's source, and compile the module with one of them weakened (for `check_weakening.py`).

Weaker means: a text compared by prefix, an ID by its path only, either without case, `<` for `<=` and vice versa, only the
first or the last of several elements, one part less under a hash, an await left out that only orders. `weakening_shapes.py`
has the others: a clause dropped, an argument swapped, `min` for `max`, a field left out of a key or of what is hashed.
"""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import CodeType
from typing import Any, Final

from weakening_shapes import HELPER, Surroundings, asked_shape, call_helper, shaped

__all__ = ["HELPER", "Probe", "Weakening", "Weaker", "find_weakenings", "functions_of", "probed"]

_ALIKE: Final = ("prefix", "path", "case")
_BOUNDS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip
_BOUND_NAMES: Final = {"Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge"}
_REFUSING: Final = ("check", "need", "prove", "take", "verify")
"""Prefixes of functions that return only if they do not refuse."""
_ENDS: Final = {"startswith": "starts", "endswith": "ends"}
_ORDERING: Final = frozenset({"before.wait"})
"""Calls that are awaited only for their order."""


@dataclass(frozen=True, kw_only=True)
class Weakening:
    """One weakened comparison, and the code of the whole module with it."""

    module: str
    function: str
    number: int
    """Its number within its function."""
    line: int
    what: str
    shaped: bool
    """Whether it is one of `weakening_shapes.py`, and no comparison, hash or await."""
    make: Callable[[], CodeType]
    """Compile the module with this one weaker."""

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.what}"


class Weaker:
    """The functions that weakened code calls instead of its comparisons."""

    def prefix(self, one: object, other: object) -> bool:
        """Compare texts by the shorter of the two, and bytes by all but the last."""
        left, right = _text(one), _text(other)
        if left and right:
            return left.startswith(right) or right.startswith(left)
        if type(one) is bytes and type(other) is bytes and one and other:
            return one[:-1] == other[:-1] if len(one) == len(other) else one.startswith(other) or other.startswith(one)
        return bool(one == other)

    def path(self, one: object, other: object) -> bool:
        """Compare SPIFFE IDs by what follows their trust domain."""
        left, right = _text(one), _text(other)
        if left is not None and right is not None and left.startswith("spiffe://") and right.startswith("spiffe://"):
            return left.split("/")[3:] == right.split("/")[3:]
        return bool(one == other)

    def case(self, one: object, other: object) -> bool:
        """Compare texts without case."""
        left, right = _text(one), _text(other)
        if left is not None and right is not None:
            return left.casefold() == right.casefold()
        return bool(one == other)

    def holds(self, how: str, one: object, many: object) -> bool:
        """Return whether `many` holds something that `how` finds like `one`."""
        found = bool(one in many)  # type: ignore[operator]  # whatever it is, the module asked this
        if found or _text(one) is None or not isinstance(many, Iterable) or isinstance(many, str | bytes):
            return found
        return any(getattr(self, how)(one, other) for other in many)

    def starts(self, whole: object, part: object) -> bool:
        """Return whether a text begins with another, without case."""
        return _at_an_end("startswith", whole, part)

    def ends(self, whole: object, part: object) -> bool:
        """Return whether a text ends with another, without case."""
        return _at_an_end("endswith", whole, part)

    def first(self, many: Iterable[object]) -> list[object]:
        """Return the first of several."""
        return list(many)[:1]

    def last(self, many: Iterable[object]) -> list[object]:
        """Return the last of several."""
        return list(many)[-1:]


class Probe(Weaker):
    """The functions that probed code calls: they compare as usual, and note which weakening would differ.

    `found` has (function, number) of each, `asked` of those that could for what is compared: no number has a prefix. Whoever
    runs the tests takes and clears them after each.
    """

    def __init__(self) -> None:
        self.found: set[tuple[str, int]] = set()
        self.asked: set[tuple[str, int]] = set()
        self.entered: set[str] = set()

    def enter(self, function: str) -> None:
        """Note that a function runs."""
        self.entered.add(function)

    def compare(self, function: str, number: int, op: str, one: object, other: object) -> bool:
        """Compare, and note which of the three likenesses, or the other bound, says something else."""
        if op in _BOUND_NAMES:
            self.asked.add((function, number))
            if one == other:
                self.found.add((function, number))
            return bool(getattr(operator, _BOUND_NAMES[op])(one, other))
        inside, negative = op in ("In", "NotIn"), op in ("NotEq", "NotIn")
        strict = bool(one in other) if inside else bool(one == other)  # type: ignore[operator]
        for place, how in enumerate(_ALIKE):
            weak = self.holds(how, one, other) if inside else getattr(self, how)(one, other)
            many = other if inside and isinstance(other, Iterable) and not isinstance(other, str | bytes) else [other]
            # What is neither text nor bytes has no likeness, and its container may be as long as a network of addresses.
            comparable = type(one) is bytes or _text(one) is not None
            if comparable and (not inside or many is other) and any(_fits(how, one, each) for each in many):
                self.asked.add((function, number + place))
            if weak != strict:
                self.found.add((function, number + place))
        return strict is not negative

    def end(self, function: str, number: int, name: str, whole: object, part: object) -> bool:
        """Ask for a beginning or an end, and note where case matters."""
        strict = bool(getattr(whole, name)(part))
        if type(part) is str and any(map(str.isalpha, part)):
            self.asked.add((function, number))
        if _at_an_end(name, whole, part) != strict:
            self.found.add((function, number))
        return strict

    def clause(self, function: str, number: int, op: str, value: object, acts: bool) -> object:
        """Return a clause of `and` or `or`, and note that it decides, or `acts` beside that."""
        self.asked.add((function, number))
        if acts or bool(value) is (op == "Or"):
            self.found.add((function, number))
        return value

    def extreme(self, function: str, number: int, name: str, *values: Any, **options: Any) -> object:
        """Return the `min` or `max` of `values`, and note that the other is another."""
        self.asked.add((function, number))
        listed = values if len(values) > 1 else (list(values[0]),)
        least, most = min(*listed, **options), max(*listed, **options)
        if least != most:
            self.found.add((function, number))
        return least if name == "min" else most

    def argument(self, function: str, number: int, value: object, *others: object) -> object:
        """Return an argument, and note which of the others is not the same."""
        for place, other in enumerate(others):
            self.asked.add((function, number + place))
            if other is not value and other != value:
                self.found.add((function, number + place))
        return value

    def many(self, function: str, number: int, many: Iterable[object]) -> Iterable[object]:
        """Return `many`, and note that the first or the last of them is not all."""
        listed = list(many)
        self.asked |= {(function, number), (function, number + 1)}
        if len(listed) > 1:
            self.found |= {(function, number), (function, number + 1)}
        return listed


def _fits(how: str, one: object, other: object) -> bool:
    """Return whether `how` can find two things alike that are not the same."""
    left, right = _text(one), _text(other)
    if left is None or right is None:
        return how == "prefix" and type(one) is bytes and type(other) is bytes
    if how == "path":
        return left.startswith("spiffe://") and right.startswith("spiffe://")
    return how == "prefix" or any(map(str.isalpha, left + right))


def _at_an_end(name: str, whole: object, part: object) -> bool:
    if type(whole) is str and type(part) is str:
        return bool(getattr(whole.casefold(), name)(part.casefold()))
    return bool(getattr(whole, name)(part))


def _text(value: object) -> str | None:
    """Return the text that `value` is, or that an ID or trust domain is written as; an enumeration's members are no texts."""
    if isinstance(value, Enum):
        return None
    for found in (value, getattr(value, "value", None), getattr(value, "name", None)):
        if type(found) is str:
            return found
    return None


def find_weakenings(module: str, source: str) -> list[Weakening]:
    """Return every weakening of one comparison in the functions of `source`."""
    tree = ast.parse(source)
    found: dict[str, Weakening] = {}
    for path, function in _functions(tree, ""):
        for number, (line, what, is_shaped) in enumerate(_weakened(function)):
            # One text may stand twice in a function; the second is another check.
            key, count = f"{module}.{path}: {what}", 2
            while key in found:
                key, count = f"{module}.{path}: {what} ({count})", count + 1
            found[key] = Weakening(
                module=module,
                function=path,
                number=number,
                line=line,
                shaped=is_shaped,
                what=key.removeprefix(f"{module}.{path}: "),
                make=_maker(module, source, path, number),
            )
    return list(found.values())


def _maker(module: str, source: str, path: str, number: int) -> Callable[[], CodeType]:
    def make() -> CodeType:
        tree = ast.parse(source)
        function = dict(_functions(tree, ""))[path]
        for place, _ in enumerate(_weakened(function)):
            if place == number:
                return compile(ast.fix_missing_locations(tree), f"{module}.py", "exec")
        raise LookupError(path)

    return make


def functions_of(source: str) -> list[str]:
    """Return the qualified names of the functions of a module."""
    return [path for path, _ in _functions(ast.parse(source), "")]


def probed(module: str, source: str) -> CodeType:
    """Compile the module with every comparison asked through a `Probe`."""
    tree = ast.parse(source)
    for path, function in _functions(tree, ""):
        _probe(path, function)
    return compile(ast.fix_missing_locations(tree), f"{module}.py", "exec")


def _probe(path: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Replace the comparisons of `function`, numbered as `_weakened` numbers what it makes of them."""
    number, replaced = 0, list[tuple[ast.AST, str, int | None, Callable[[ast.AST], ast.expr]]]()
    around = Surroundings(function)
    for parent, name, index, node in _places(function):
        count = len(_all_variants(around, parent, name, node)) if isinstance(node, ast.expr) else 1
        asked = _asked(around, path, number, parent, name, node) if isinstance(node, ast.expr) else None
        if asked is not None and count:
            replaced.append((parent, name, index, asked))
        number += count
    # From the inside out: what is asked refers to the nodes that it was made of.
    for parent, name, index, asked in reversed(replaced):
        if index is None:
            setattr(parent, name, asked(parent))
        else:
            getattr(parent, name)[index] = asked(parent)
    entered = ast.Expr(call_helper("enter", ast.Constant(path)))
    documented = isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant)
    function.body.insert(int(documented), ast.copy_location(entered, function.body[0]))


def _asked(
    around: Surroundings, path: str, number: int, parent: ast.AST, name: str, node: ast.expr
) -> Callable[[ast.AST], ast.expr] | None:
    place = [ast.Constant(path), ast.Constant(number)]
    if isinstance(node, ast.Compare):

        def compared(_: ast.AST) -> ast.expr:
            at, links = number, list[ast.expr]()
            operands = [node.left, *node.comparators]
            for spot, op in enumerate(node.ops):
                pair = operands[spot], operands[spot + 1]
                width = _width(node, op, *pair)
                if width:
                    links.append(
                        call_helper(
                            "compare", ast.Constant(path), ast.Constant(at), ast.Constant(type(op).__name__), *pair
                        )
                    )
                else:
                    links.append(ast.Compare(pair[0], [op], [pair[1]]))
                at += width
            return links[0] if len(links) == 1 else ast.BoolOp(ast.And(), links)

        return compared
    if isinstance(node, ast.Call) and _named(node.func, "all", "any") and isinstance(node.args[0], ast.GeneratorExp):

        def over_all(_: ast.AST) -> ast.expr:
            generator = node.args[0]
            assert isinstance(generator, ast.GeneratorExp)  # noqa: S101  asked above
            generator.generators[0].iter = call_helper("many", *place, generator.generators[0].iter)
            return node

        return over_all
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ENDS:
        ended = node.func
        return lambda _: call_helper("end", *place, ast.Constant(ended.attr), ended.value, node.args[0])
    if isinstance(parent, ast.For) and name == "iter":
        return lambda _: call_helper("many", *place, node)
    return asked_shape(around, path, number, parent, node)


def _width(node: ast.Compare, op: ast.cmpop, left: ast.expr, right: ast.expr) -> int:
    """Return how many weakenings one link of a comparison has."""
    if type(op) in _BOUNDS:
        return 1
    constant = any(isinstance(one, ast.Constant) and not isinstance(one.value, str | bytes) for one in (left, right))
    alike = len(node.ops) == 1 and isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) and not constant
    return len(_ALIKE) if alike else 0


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the functions and methods of a module by their qualified name; what is inside them belongs to them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


Place = tuple[ast.AST, str, int | None, "ast.expr | ast.Expr"]


def _places(function: ast.AST) -> list[Place]:
    """Return every expression in `function`, and every statement that only awaits, with where it stands."""
    found: list[Place] = []
    for parent in ast.walk(function):
        for name, value in ast.iter_fields(parent):
            if name in ("decorator_list", "returns", "annotation") or isinstance(parent, ast.arguments):
                continue
            if isinstance(value, ast.expr):
                found.append((parent, name, None, value))
            elif isinstance(value, list):
                found += [
                    (parent, name, index, item)
                    for index, item in enumerate(value)
                    if isinstance(item, ast.expr)
                    or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Await) and _orders(item.value))
                ]
    return found


def _weakened(function: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Weaken one comparison of `function` after the other, in place; what was done before is undone when asked for more."""
    around = Surroundings(function)
    for parent, name, index, node in _places(function):
        if isinstance(node, ast.expr):
            variants = _all_variants(around, parent, name, node)
        else:
            passing = ast.copy_location(ast.Pass(), node)
            variants = [(passing, f"{ast.unparse(node)} -> pass", False)]  # type: ignore[list-item]
        for variant, what, is_shaped in variants:
            if index is None:
                setattr(parent, name, variant)
            else:
                getattr(parent, name)[index] = variant
            yield node.lineno, what, is_shaped
            if index is None:
                setattr(parent, name, node)
            else:
                getattr(parent, name)[index] = node


def _all_variants(around: Surroundings, parent: ast.AST, name: str, node: ast.expr) -> list[tuple[ast.expr, str, bool]]:
    """Return each weaker form of an expression, what it is called, and whether it is a shape."""
    compared = [(variant, what, False) for variant, what in _variants(around, parent, name, node)]
    return compared or [(variant, what, True) for variant, what in shaped(around, parent, node)]


def _orders(value: ast.Await) -> bool:
    return isinstance(value.value, ast.Call) and ast.unparse(value.value.func) in _ORDERING


def _variants(around: Surroundings, parent: ast.AST, name: str, node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        for variant, how in _compared(node):
            yield variant, f"{before} {how}"
    elif isinstance(node, ast.Call) and _named(node.func, "all", "any") and isinstance(node.args[0], ast.GeneratorExp):
        for which in ("first", "last"):
            weak = copy.deepcopy(node)
            generator = weak.args[0]
            assert isinstance(generator, ast.GeneratorExp)  # noqa: S101  asked above
            generator.generators[0].iter = call_helper(which, generator.generators[0].iter)
            yield weak, f"{before} [{which} only]"
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and len(node.args) == 1
        and node.func.attr in _ENDS
    ):
        yield call_helper(_ENDS[node.func.attr], node.func.value, node.args[0]), f"{before} [by case]"
    elif isinstance(parent, ast.For) and name == "iter" and _refuses(parent):
        for which in ("first", "last"):
            yield call_helper(which, node), f"for {ast.unparse(parent.target)} in {before} [{which} only]"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and around.is_hashed(parent):
        parts = _summands(node)
        for index, part in enumerate(parts):
            rest = [other for place, other in enumerate(parts) if place != index]
            yield _sum(rest), f"{before} [without {ast.unparse(part)}]"


def _compared(node: ast.Compare) -> Iterator[tuple[ast.expr, str]]:
    operands = [node.left, *node.comparators]
    for place, op in enumerate(node.ops):
        left, right = operands[place], operands[place + 1]
        link = "" if len(node.ops) == 1 else f" at {ast.unparse(left)}"
        if type(op) in _BOUNDS:
            weak = copy.deepcopy(node)
            weak.ops[place] = _BOUNDS[type(op)]()
            yield weak, f"[bound{link}]"
        elif _width(node, op, left, right):
            for how in _ALIKE:
                called = (
                    call_helper(how, left, right)
                    if isinstance(op, ast.Eq | ast.NotEq)
                    else call_helper("holds", ast.Constant(how), left, right)
                )
                negative = isinstance(op, ast.NotEq | ast.NotIn)
                yield ast.UnaryOp(ast.Not(), called) if negative else called, f"[by {how}]"


def _refuses(loop: ast.For) -> bool:
    """Return whether something in `loop` may end its function."""
    return any(
        isinstance(node, ast.Raise | ast.Return)
        or (isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].lstrip("_").startswith(_REFUSING))
        for node in ast.walk(ast.Module(loop.body, []))
    )


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _sum(parts: list[ast.expr]) -> ast.expr:
    total = parts[0]
    for part in parts[1:]:
        total = ast.BinOp(total, ast.Add(), part)
    return total


def _named(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names
