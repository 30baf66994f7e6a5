"""Shapes of checks that are no comparison, and what makes each weaker (for `weakenings.py`).

A clause of `and` or `or` dropped; in a call, another parameter of the same type in place of one; `max` for `min` and vice
versa; a field less in a key of a cache, and in a text or list that is hashed. The default of `x or ''` is not dropped: what
comes without it is false as well, and of another type, which the type checker refuses.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["HELPER", "Surroundings", "asked_shape", "call_helper", "shaped"]

HELPER: Final = "__weaker__"
"""The name under which a weakened module finds a `Weaker`."""
_EXTREMES: Final = {"min": "max", "max": "min"}
_HASHES: Final = frozenset({"sha256", "H", "leaf_hash", "leaf_of", "node_hash", "hmac.new"})
_ENCODING: Final = frozenset({"encode", "pack"})
_SHOWING: Final = frozenset({"print", "isinstance", "warning", "info", "error", "debug", "message", "observe"})
"""Calls, by the last part of their name, whose arguments decide nothing: they are printed, logged or counted."""
_LOGGING: Final = frozenset({"print", "warning", "info", "error", "debug"})
"""Of these the calls of which no part decides anything."""


class Surroundings:
    """What stands around each expression of a function: its parent, and the parameters by type."""

    def __init__(self, function: ast.AST) -> None:
        self._name = getattr(function, "name", "")
        self._parents = {id(child): parent for parent in ast.walk(function) for child in ast.iter_child_nodes(parent)}
        self._types: dict[str, str] = {}
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            self._types = {one.arg: ast.unparse(one.annotation) for one in listed if one.annotation is not None}

    def parent(self, node: ast.AST) -> ast.AST | None:
        """Return what `node` is a direct part of."""
        return self._parents.get(id(node))

    def alike(self, parent: ast.AST, node: ast.expr) -> list[str]:
        """Return the other parameters of the type of `node`, if it is a parameter that is handed on as an argument."""
        call = self.parent(parent) if isinstance(parent, ast.keyword) else parent
        if not isinstance(node, ast.Name) or node.id not in self._types or not isinstance(call, ast.Call):
            return []
        if node is call.func or ast.unparse(call.func).rpartition(".")[2] in _SHOWING or self.is_told(call):
            return []
        return [name for name, type_ in self._types.items() if name != node.id and type_ == self._types[node.id]]

    def is_key(self, parent: ast.AST, node: ast.expr) -> bool:
        """Return whether `node` is a tuple that something is kept under: what is named a key, or what `..._key` returns."""
        if not isinstance(node, ast.Tuple) or len(node.elts) < 2:
            return False
        if isinstance(parent, ast.Return):
            return self._name.endswith("key")
        targets = parent.targets if isinstance(parent, ast.Assign) else [getattr(parent, "target", None)]
        return any(isinstance(one, ast.Name) and one.id.endswith("key") for one in targets)

    def is_hashed(self, parent: ast.AST) -> bool:
        """Return whether a part of `parent` is hashed, perhaps once it is encoded."""
        if isinstance(parent, ast.Attribute) and parent.attr == "encode":
            call = self.parent(parent)
            return call is not None and self.is_hashed(self.parent(call) or call)
        if not isinstance(parent, ast.Call):
            return False
        name = ast.unparse(parent.func)
        return name in _HASHES or (name in _ENCODING and self.is_hashed(self.parent(parent) or parent))

    def is_told(self, node: ast.AST) -> bool:
        """Return whether `node` is a part of what is raised or logged: it tells why, and decides nothing."""
        above = self.parent(node)
        while isinstance(above, ast.expr | ast.keyword):
            if isinstance(above, ast.Call) and ast.unparse(above.func).rpartition(".")[2] in _LOGGING:
                return True
            above = self.parent(above)
        return isinstance(above, ast.Raise)


def shaped(around: Surroundings, parent: ast.AST, node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """Yield each weaker form of `node`, and what it is called."""
    before = ast.unparse(node)
    if isinstance(node, ast.BoolOp) and not around.is_told(node):
        for index, clause in enumerate(node.values):
            if _narrows(clause) or _is_default(node, index):
                continue
            rest = [other for place, other in enumerate(node.values) if place != index]
            weak = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            yield weak, f"{before} [{ast.unparse(clause)} dropped]"
    elif _is_extreme(node):
        assert isinstance(node, ast.Call)  # noqa: S101  asked above
        assert isinstance(node.func, ast.Name)  # noqa: S101  asked above
        other = _EXTREMES[node.func.id]
        yield ast.Call(ast.Name(other, ast.Load()), node.args, node.keywords), f"{before} [{other}]"
    elif isinstance(node, ast.JoinedStr) and around.is_hashed(parent):
        for index, part in enumerate(node.values):
            if isinstance(part, ast.FormattedValue):
                rest = [other for place, other in enumerate(node.values) if place != index]
                yield ast.JoinedStr(rest), f"{before} [without {ast.unparse(part.value)}]"
    elif isinstance(node, ast.List | ast.Tuple) and (around.is_key(parent, node) or around.is_hashed(parent)):
        for index, part in enumerate(node.elts):
            rest = [other for place, other in enumerate(node.elts) if place != index]
            yield type(node)(rest, ast.Load()), f"{before} [without {ast.unparse(part)}]"
    else:
        for name in around.alike(parent, node):
            what = ast.unparse(parent.func if isinstance(parent, ast.Call) else parent)
            yield ast.Name(name, ast.Load()), f"{what} of {before} [{name} instead]"


def asked_shape(
    around: Surroundings, path: str, number: int, parent: ast.AST, node: ast.expr
) -> Callable[[ast.AST], ast.expr] | None:
    """Return what replaces `node` where its function is probed; `None` where only a run can tell, and for no check."""
    at = [ast.Constant(path), ast.Constant(number)]
    if isinstance(node, ast.BoolOp):
        op = ast.Constant(type(node.op).__name__)
        narrowing = [_narrows(clause) or _is_default(node, index) for index, clause in enumerate(node.values)]

        def clauses(_: ast.AST) -> ast.expr:
            place, values = number, list[ast.expr]()
            for clause, kept in zip(node.values, narrowing, strict=True):
                if kept:
                    values.append(clause)
                    continue
                values.append(
                    call_helper("clause", at[0], ast.Constant(place), op, clause, ast.Constant(_acts(clause)))
                )
                place += 1
            return ast.BoolOp(node.op, values)

        return clauses
    if _is_extreme(node):

        def extreme(_: ast.AST) -> ast.expr:
            assert isinstance(node, ast.Call)  # noqa: S101  asked above
            assert isinstance(node.func, ast.Name)  # noqa: S101  asked above
            called = call_helper("extreme", *at, ast.Constant(node.func.id), *node.args)
            called.keywords = node.keywords
            return called

        return extreme
    if others := around.alike(parent, node):
        return lambda _: call_helper("argument", *at, node, *(ast.Name(one, ast.Load()) for one in others))
    return None


def call_helper(name: str, *arguments: ast.expr) -> ast.Call:
    """Return the call of a function of the helper."""
    return ast.Call(ast.Attribute(ast.Name(HELPER, ast.Load()), name, ast.Load()), list(arguments), [])


def _is_extreme(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _EXTREMES


def _narrows(clause: ast.expr) -> bool:
    """Return whether a clause asks for a type alone: without it the others would raise, which no check relies on."""
    if isinstance(clause, ast.UnaryOp):
        return _narrows(clause.operand)
    if isinstance(clause, ast.Call):
        return isinstance(clause.func, ast.Name) and clause.func.id == "isinstance"
    if not isinstance(clause, ast.Compare) or not isinstance(clause.ops[0], ast.Is | ast.IsNot):
        return False
    other = clause.comparators[0]
    typed = isinstance(clause.left, ast.Call) and ast.unparse(clause.left.func) == "type"
    return typed or (isinstance(other, ast.Constant) and other.value is None)


def _is_default(node: ast.BoolOp, index: int) -> bool:
    """Return whether a clause is the last of an `or`, and a literal that is false: what there is if the others are false."""
    clause = node.values[index]
    if not isinstance(node.op, ast.Or) or index != len(node.values) - 1:
        return False
    if isinstance(clause, ast.Constant):
        return not clause.value
    return (isinstance(clause, ast.Dict) and not clause.keys) or (
        isinstance(clause, ast.List | ast.Tuple) and not clause.elts
    )


def _acts(clause: ast.expr) -> bool:
    """Return whether a clause does something beside saying yes or no, which is left undone without it."""
    return any(isinstance(one, ast.Await | ast.NamedExpr) for one in ast.walk(clause))
