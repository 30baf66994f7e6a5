"""Find the checks in a module's source, and make the module without one of them (for `check_removal.py`)."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType

__all__ = ["Removal", "find_removals", "unseen_refusals"]

_OTHERS_FAULT = frozenset({"EnvelopeError", "BundleRefused", "_refused", "_malformed", "_misshapen", "error.at_step"})
"""The exceptions of refusals. A `SealError` or `ConfigurationError` is about our own side."""
_VALUE_ERRORS = frozenset({"encoding.codec", "encoding.jws", "encoding.strict_json", "trust.bundles"})
"""Modules that refuse by `ValueError`, which their callers give a code."""
_REFUSING = ("check", "verify", "prove", "judge", "remember")
"""Prefixes of functions that return only if they do not refuse."""
_WRITING = frozenset(
    {
        "encoding.codec.encode",
        "encoding.codec._ordered",
        "message.user_context.mint_context",
        "trust.spiffe_id.TrustDomain.id",
    }
)
"""Functions that only senders call."""
_ASKED_ELSEWHERE = frozenset({"is_text", "is_action", "is_grant", "is_subject", "is_uuid7", "covers"})
"""Predicates that conditions of other modules ask; the answer that refuses is False."""
_NOT_REFUSING = frozenset({"roots.remember"})
"""Caching a verified root saves time and refuses nothing."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """One check, disabled: the whole module's code without it."""

    module: str
    function: str
    line: int
    what: str
    step: int | None
    """The step number in the check itself, if any."""
    code: CodeType

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.what}"


def find_removals(module: str, source: str) -> list[Removal]:
    """Return every removal of one check from `source`."""
    tree = ast.parse(source)
    functions = dict(_functions(tree, ""))
    removals: list[Removal] = []
    asked = _predicates(module, functions)
    for path, function in functions.items():
        if f"{module}.{path}" in _WRITING:
            continue
        fires = asked.get(function.name)
        for node, undo, what in _sites(module, function, fires):
            code = compile(ast.fix_missing_locations(tree), f"{module}.py", "exec")
            undo()
            removals.append(
                Removal(
                    module=module,
                    function=path,
                    line=node.lineno,
                    what=what,
                    step=_step(node, functions),
                    code=code,
                )
            )
    return removals


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module by their qualified name; what is inside them belongs to them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield f"{prefix}{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


Site = tuple[ast.stmt, Callable[[], None], str]


def _sites(module: str, function: ast.FunctionDef, fires: bool | None) -> Iterator[Site]:
    """Disable one check of `function` after the other; the caller undoes each before the next."""
    for statement, statements, after in _statements(function):
        if isinstance(statement, ast.If):
            condition_fires = _fires(module, statement, after, fires)
            if condition_fires is not None:
                yield from _conditions(statement, condition_fires)
        elif isinstance(statement, ast.Expr) and _is_refusing_call(statement.value):
            yield from _replaced(statements, statement, ast.Pass())
        elif isinstance(statement, ast.Return) and fires is not None and statement.value is not None:
            value = statement.value
            for variant in _disabled(value, fires):
                statement.value = variant
                yield statement, _restorer(statement, "value", value), _told(value, variant)
        elif isinstance(statement, ast.Raise) and _is_hook(module, function, statement):
            yield from _replaced(statements, statement, ast.Pass())
    for handler in (node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)):
        # Without its code, a refusal is an error like any other.
        last = handler.body[-1]
        if _is_refusal(module, last):
            yield from _replaced(handler.body, last, ast.Raise())


def _statements(function: ast.FunctionDef) -> Iterator[tuple[ast.stmt, list[ast.stmt], ast.stmt | None]]:
    """Yield each statement with its list and the statement that runs next, if that is evident."""
    next_of: dict[ast.stmt, ast.stmt | None] = {}
    for statements in _blocks(function):
        for index, statement in enumerate(statements):
            last = index + 1 == len(statements)
            next_of.setdefault(statement, None if last else statements[index + 1])
            if isinstance(statement, ast.Try):
                # After the last statement of what is tried comes what follows the whole.
                next_of[statement.body[-1]] = next_of[statement]
    for statements in _blocks(function):
        for statement in list(statements):
            yield statement, statements, next_of[statement]


def _replaced(statements: list[ast.stmt], statement: ast.stmt, other: ast.stmt) -> Iterator[Site]:
    index = statements.index(statement)
    statements[index] = ast.copy_location(other, statement)
    yield statement, _setter(statements, index, statement), f"{ast.unparse(statement)} -> {ast.unparse(other)}"


def _is_hook(module: str, function: ast.FunctionDef, statement: ast.Raise) -> bool:
    """Return whether `function` does nothing but refuse, whatever calls it."""
    documented = isinstance(function.body[0], ast.Expr)
    return _is_refusal(module, statement) and function.body[documented:] == [statement]


def unseen_refusals(module: str, source: str) -> list[str]:
    """Return the refusals in `source` in a shape that `find_removals` does not know, so that none is missed."""
    tree = ast.parse(source)
    unseen = []
    for path, function in _functions(tree, ""):
        if f"{module}.{path}" in _WRITING:
            continue
        seen: set[ast.stmt] = {node.body[-1] for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)}
        for statement, _, after in _statements(function):
            if isinstance(statement, ast.If) and _fires(module, statement, after, None) is not None:
                seen |= {statement.body[-1], *statement.orelse[-1:], *([after] if after is not None else [])}
            elif isinstance(statement, ast.Raise) and _is_hook(module, function, statement):
                seen.add(statement)
        unseen += [
            f"{module}.{path}: line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(function)
            if isinstance(node, ast.Raise) and _is_refusal(module, node) and node not in seen
        ]
    return unseen


def _conditions(statement: ast.If, fires: bool) -> Iterator[Site]:
    test = statement.test
    for variant in _disabled(test, fires):
        statement.test = variant
        yield statement, _restorer(statement, "test", test), _told(test, variant)


def _fires(module: str, statement: ast.If, after: ast.stmt | None, returns: bool | None) -> bool | None:
    """Return which value of the condition refuses, or None if the statement is not a check.

    `returns` is the value by which the function itself refuses, if it is a predicate.
    """
    last = statement.body[-1]
    if _is_refusal(module, last):
        return True
    if statement.orelse and _is_refusal(module, statement.orelse[-1]):
        return False
    if isinstance(last, ast.Return):
        if after is not None and _is_refusal(module, after):
            return False
        if returns is not None and isinstance(last.value, ast.Constant) and last.value.value is returns:
            return True
    return None


def _disabled(test: ast.expr, fires: bool) -> Iterator[ast.expr]:
    """Yield `test` with one thing after the other that makes it `fires` left out."""
    never = ast.Constant(value=not fires)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        for inner in _disabled(test.operand, not fires):
            yield ast.UnaryOp(op=ast.Not(), operand=inner)
    elif isinstance(test, ast.BoolOp):
        alone = isinstance(test.op, ast.Or) is fires
        for index, operand in enumerate(test.values):
            for inner in _disabled(operand, fires):
                if alone or not isinstance(inner, ast.Constant):
                    yield ast.BoolOp(op=test.op, values=[*test.values[:index], inner, *test.values[index + 1 :]])
        if not alone:
            yield never
    elif isinstance(test, ast.Compare) and len(test.ops) > 1 and not fires:
        operands = [test.left, *test.comparators]
        links = [ast.Compare(operands[i], [op], [operands[i + 1]]) for i, op in enumerate(test.ops)]
        for index in range(len(links)):
            rest: list[ast.expr] = [link for place, link in enumerate(links) if place != index]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(op=ast.And(), values=rest)
    elif _is_over_all(test) and isinstance(test, ast.Call) and isinstance(test.args[0], ast.GeneratorExp):
        generator = test.args[0]
        for inner in _disabled(generator.elt, fires):
            if not isinstance(inner, ast.Constant):
                yield ast.Call(test.func, [ast.GeneratorExp(inner, generator.generators)], [])
        yield never
    elif not (isinstance(test, ast.Constant) and test.value is not fires):
        yield never


def _is_over_all(test: ast.expr) -> bool:
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id in ("all", "any")


def _predicates(module: str, functions: dict[str, ast.FunctionDef]) -> dict[str, bool]:
    """Return the functions of the module that conditions ask, with the answer that refuses."""
    defined = {function.name for function in functions.values() if _returns_bool(function)}
    asked = dict.fromkeys(defined & _ASKED_ELSEWHERE, False)
    while True:
        more = dict(asked)
        for function in functions.values():
            fires = asked.get(function.name)
            for statement, _, after in _statements(function):
                if isinstance(statement, ast.If):
                    refuses = _fires(module, statement, after, fires)
                    if refuses is not None:
                        more |= dict(_leaves(statement.test, refuses, defined))
                elif isinstance(statement, ast.Return) and fires is not None and statement.value is not None:
                    more |= dict(_leaves(statement.value, fires, defined))
        if more == asked:
            return asked
        asked = more


def _leaves(test: ast.expr, fires: bool, defined: set[str]) -> Iterator[tuple[str, bool]]:
    """Yield the names of predicates in a condition, with the answer that makes it `fires`."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _leaves(test.operand, not fires, defined)
    elif isinstance(test, ast.BoolOp):
        for operand in test.values:
            yield from _leaves(operand, fires, defined)
    elif isinstance(test, ast.Call):
        if _is_over_all(test) and isinstance(test.args[0], ast.GeneratorExp):
            yield from _leaves(test.args[0].elt, fires, defined)
        for node in ast.walk(test):
            if isinstance(node, ast.Name) and node.id in defined:
                yield node.id, fires


def _returns_bool(function: ast.FunctionDef) -> bool:
    return isinstance(function.returns, ast.Name) and function.returns.id == "bool"


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield every list of statements inside `node`, the outer before the inner."""
    for child in ast.walk(node):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(child, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield block


def _is_refusal(module: str, statement: ast.stmt) -> bool:
    if not (isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call)):
        return False
    called = ast.unparse(statement.exc.func)
    return called in _OTHERS_FAULT or (called == "ValueError" and module in _VALUE_ERRORS)


def _is_refusing_call(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = ast.unparse(value.func)
    return called.rpartition(".")[2].lstrip("_").startswith(_REFUSING) and called not in _NOT_REFUSING


def _step(node: ast.stmt, functions: dict[str, ast.FunctionDef]) -> int | None:
    """Return the number in `EnvelopeError(code, number, ...)`, here or in the function that makes the refusal."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            if call.func.id == "EnvelopeError" and len(call.args) > 1:
                number = call.args[1]
                return number.value or None if isinstance(number, ast.Constant) else None  # type: ignore[return-value]  # int by what is searched
            if call.func.id in _OTHERS_FAULT and call.func.id in functions:
                return _step(functions[call.func.id].body[-1], {})
    return None


def _told(before: ast.expr, after: ast.expr) -> str:
    return f"{ast.unparse(before)} -> {ast.unparse(ast.fix_missing_locations(after))}"


def _setter(statements: list[ast.stmt], index: int, statement: ast.stmt) -> Callable[[], None]:
    def undo() -> None:
        statements[index] = statement

    return undo


def _restorer(node: ast.If | ast.Return, name: str, value: ast.expr) -> Callable[[], None]:
    def undo() -> None:
        setattr(node, name, value)

    return undo
