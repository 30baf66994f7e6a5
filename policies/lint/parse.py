"""Conversion of regorus' syntax tree, JSON values, to the values of `syntax`. Unknown syntax is refused, never skipped."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import Module, PolicyRefused, Problem
from sealbus.policies.lint.regorus import parse_module

_COMPREHENSIONS: Final[Mapping[str, Literal["array", "set", "object"]]] = {
    "ArrayCompr": "array",
    "SetCompr": "set",
    "ObjectCompr": "object",
}


@lru_cache(maxsize=16)  # the library's files are in every bundle, and each bundle is checked in several places
def parse(module: Module) -> syntax.File:
    """Parse `module`; raise `PolicyRefused` with file and line for a text that regorus cannot parse."""
    reader = _Reader(source=SourceText(path=module.path, text=module.text.encode()))
    return reader.file(as_map(parse_module(module)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    source: SourceText

    def file(self, tree: dict[str, object]) -> syntax.File:
        package = syntax.leading_names(self.expression(as_map(tree["package"])["refr"]))
        return syntax.File(
            path=self.source.path,
            package=package,
            imports=tuple(self.imported(node) for node in as_list(tree["imports"])),
            rules=tuple(self.rule(node) for node in as_list(tree["rules"])),
        )

    def imported(self, node: object) -> syntax.Import:
        content = as_map(node)
        path = syntax.leading_names(self.expression(content["refr"]))
        alias = self.source.written(content["as"]) if content.get("as") is not None else path[-1]
        return syntax.Import(place=self.source.place(content["span"]), path=path, alias=alias)

    def rule(self, node: object) -> syntax.Rule:
        kind, content = as_kind(node)
        if kind == "Default":
            return syntax.Rule(
                place=self.source.place(content["span"]),
                kind="default",
                head=self.expression(content["refr"]),
                arguments=self.expressions(content["args"]),
                value=self.expression(content["value"]),
            )
        bodies = tuple(self.body(body) for body in as_list(content["bodies"]))
        shape, head = as_kind(content["head"])
        arguments: tuple[syntax.Expression, ...] = ()
        value = key = None
        kinds: dict[str, Literal["complete", "contains", "function"]] = {
            "Compr": "complete",
            "Set": "contains",
            "Func": "function",
        }
        if shape == "Set":
            key = self.expression(head["key"])
        else:
            value = self.assigned(head["assign"])
        if shape == "Func":
            arguments = self.expressions(head["args"])
        return syntax.Rule(
            place=self.source.place(content["span"]),
            kind=kinds[shape],
            head=self.expression(head["refr"]),
            arguments=arguments,
            value=value,
            key=key,
            bodies=bodies,
        )

    def assigned(self, node: object) -> syntax.Expression | None:
        return None if node is None else self.expression(as_map(node)["value"])

    def body(self, node: object) -> syntax.Body:
        content = as_map(node)
        query = self.query(content["query"])
        return syntax.Body(
            place=self.source.place(content["span"]),
            statements=query.statements,
            value=self.assigned(content["assign"]),
            is_else=content["is_else"] is True,
        )

    def query(self, node: object) -> syntax.Body:
        content = as_map(node)
        statements = tuple(self.statement(statement) for statement in as_list(content["stmts"]))
        return syntax.Body(place=self.source.place(content["span"]), statements=statements)

    def statement(self, node: object) -> syntax.Statement:
        content = as_map(node)
        modified = bool(content.get("with_mods"))
        kind, literal = as_kind(content["literal"])
        place = self.source.place(literal["span"])
        match kind:
            case "Expr":
                return syntax.Plain(place=place, expression=self.expression(literal["expr"]), modified=modified)
            case "NotExpr":
                return syntax.Negation(place=place, expression=self.expression(literal["expr"]), modified=modified)
            case "SomeVars":
                names = tuple(self.name(variable) for variable in as_list(literal["vars"]))
                return syntax.SomeNames(place=place, names=names, modified=modified)
            case "SomeIn":
                return syntax.SomeIn(
                    place=place,
                    key=None if literal["key"] is None else self.expression(literal["key"]),
                    value=self.expression(literal["value"]),
                    collection=self.expression(literal["collection"]),
                    modified=modified,
                )
            case "Every":
                named = [literal["key"], literal["value"]]
                return syntax.Every(
                    place=place,
                    names=tuple(self.name(variable) for variable in named if variable is not None),
                    collection=self.expression(literal["domain"]),
                    body=self.query(literal["query"]),
                    modified=modified,
                )
            case _:
                raise self.source.unknown(kind, literal["span"])

    def name(self, span: object) -> syntax.Variable:
        return syntax.Variable(place=self.source.place(span), name=self.source.written(span))

    def expressions(self, nodes: object) -> tuple[syntax.Expression, ...]:
        return tuple(self.expression(node) for node in as_list(nodes))

    def expression(self, node: object) -> syntax.Expression:
        kind, content = as_kind(node)
        place = self.source.place(content["span"])
        match kind:
            case "Var":
                return syntax.Variable(place=place, name=str(content["value"]))
            case "Bool" | "Null":
                return syntax.Scalar(place=place, value=content["value"] is True if kind == "Bool" else None)
            case "String" | "RawString":
                # Its span is the text between the quotes.
                return syntax.Text(
                    place=syntax.Place(line=place.line, column=place.column - 1), value=str(content["value"])
                )
            case "Number":
                return syntax.Number(place=place, written=self.source.written(content["span"]))
            case "RefDot" | "RefBrack":
                return self.reference(kind, content, place)
            case "Array":
                return syntax.Array(place=place, items=self.expressions(content["items"]))
            case "Set":
                return syntax.SetLiteral(place=place, items=self.expressions(content["items"]))
            case "Object":
                pairs = [as_list(entry)[1:] for entry in as_list(content["fields"])]
                return syntax.ObjectLiteral(
                    place=place, items=tuple(self.expression(item) for pair in pairs for item in pair)
                )
            case "Call":
                return self.call(content, place)
            case "ArithExpr" | "BoolExpr" | "BinExpr":
                return syntax.Infix(
                    place=place,
                    operator=str(content["op"]),
                    left=self.expression(content["lhs"]),
                    right=self.expression(content["rhs"]),
                )
            case "AssignExpr":
                return syntax.Assign(
                    place=place,
                    declares=content["op"] == "ColEq",
                    left=self.expression(content["lhs"]),
                    right=self.expression(content["rhs"]),
                )
            case "Membership":
                return syntax.Membership(
                    place=place,
                    key=None if content["key"] is None else self.expression(content["key"]),
                    value=self.expression(content["value"]),
                    collection=self.expression(content["collection"]),
                )
            case "UnaryExpr":
                return syntax.Negative(place=place, operand=self.expression(content["expr"]))
            case _ if kind in _COMPREHENSIONS:
                terms = [content["key"], content["value"]] if kind == "ObjectCompr" else [content["term"]]
                return syntax.Comprehension(
                    place=place,
                    kind=_COMPREHENSIONS[kind],
                    terms=tuple(self.expression(term) for term in terms),
                    body=self.query(content["query"]),
                )
            case _:
                raise self.source.unknown(kind, content["span"])

    def reference(self, kind: str, content: dict[str, object], place: syntax.Place) -> syntax.Reference:
        before = self.expression(content["refr"])
        part: syntax.Expression
        if kind == "RefDot":
            span, name = as_list(content["field"])
            part = syntax.Text(place=self.source.place(span), value=str(name))
        else:
            index, literal = as_kind(content["index"])
            if index == "String" and "\\" in self.source.written(literal["span"]):
                # regorus looks the key up with its escapes unresolved.
                at = self.source.place(literal["span"])
                text = "a key with an escape: name it first (k := ...), then look up k"
                raise PolicyRefused(
                    [Problem(file=self.source.path, line=at.line, column=at.column - 1, form="lookup", text=text)]
                )
            part = self.expression(content["index"])
        if isinstance(before, syntax.Reference):
            return syntax.Reference(place=place, head=before.head, path=(*before.path, part))
        return syntax.Reference(place=place, head=before, path=(part,))

    def call(self, content: dict[str, object], place: syntax.Place) -> syntax.Call:
        if not self.source.follows(as_kind(content["fcn"])[1]["span"], "("):
            text = "( must follow the name of the called function without a space"
            raise PolicyRefused([Problem.at(self.source.path, place, "compile", text)])
        return syntax.Call(
            place=place,
            name=syntax.leading_names(self.expression(content["fcn"])),
            arguments=self.expressions(content["params"]),
        )


def as_map(value: object) -> dict[str, object]:
    """Return `value`, which must be an object."""
    if not isinstance(value, dict):
        raise TypeError(f"regorus' syntax tree has a {type(value).__name__} where an object belongs")
    return value


def as_list(value: object) -> list[object]:
    """Return `value`, which must be an array."""
    if not isinstance(value, list):
        raise TypeError(f"regorus' syntax tree has a {type(value).__name__} where an array belongs")
    return value


def as_kind(node: object) -> tuple[str, dict[str, object]]:
    """Return kind and content of a node `{"Kind": {...}}` of regorus' syntax tree."""
    [(kind, content)] = as_map(node).items()
    return kind, as_map(content)


def offsets(span: object) -> tuple[int, int]:
    """Return where a span starts and ends, in bytes."""
    at = as_map(span)
    start, end = at["start"], at["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise TypeError("regorus' syntax tree has a span without offsets")
    return start, end


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """The text of the file `path` in UTF-8, in which spans are byte offsets."""

    path: str
    text: bytes
    lines: list[int] = field(init=False)
    """The offset of each line."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", [0, *(newline.end() for newline in re.finditer(b"\n", self.text))])

    def place(self, span: object) -> syntax.Place:
        """Return where `span` starts. Regorus' own column of a reference is that of its last part."""
        start, _ = offsets(span)
        line = bisect_right(self.lines, start)
        before = self.text[self.lines[line - 1] : start]
        return syntax.Place(line=line, column=len(before.decode()) + 1)

    def written(self, span: object) -> str:
        """Return the text at `span`."""
        start, end = offsets(span)
        return self.text[start:end].decode()

    def follows(self, span: object, text: str) -> bool:
        """Return whether `text` follows directly after `span`."""
        _, end = offsets(span)
        return self.text.startswith(text.encode(), end)

    def unknown(self, kind: str, span: object) -> PolicyRefused:
        """Return the refusal of a kind of syntax that has not been compared."""
        return PolicyRefused(
            [
                Problem.at(
                    self.path,
                    self.place(span),
                    "unknown",
                    f"{kind} is syntax that was not compared between the engines",
                )
            ]
        )
