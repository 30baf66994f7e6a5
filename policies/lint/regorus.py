"""regorus' interpreter. Only this module imports it, and turns its untyped answers into values.

Exactly version 0.12.0 of `Engine` is used, because the table of forms is verified for this version only. Later versions of
the interpreter are slower by half. The bytecode VM (`Rvm`) answers true for an `every` whose body is undefined.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, Protocol, Self, cast

from regorus import Engine  # type: ignore[import-untyped]  # it has neither stubs nor annotations

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.lint.module import Module, PolicyRefused, Problem

# With RUST_BACKTRACE set, regorus makes a backtrace for every error, which blocks the event loop for some 40 ms. So a sender
# that can make decisions fail could block all others. This disables backtraces of errors; those of panics stay.
os.environ.setdefault("RUST_LIB_BACKTRACE", "0")

_PLACE: Final = re.compile(r"\A\s*--> (?P<file>[^\n]+):(?P<line>\d+):(?P<column>\d+)\n")
_FINE: Final = Problem.of_whole("", "", "")
"""No problem."""
_ERROR: Final = re.compile(r"^error: (?P<text>.*)$", re.MULTILINE)
_BACKTRACE: Final = "\n\nStack backtrace:"
"""regorus adds one if RUST_BACKTRACE is set; it says nothing about the policy."""


class _Engine(Protocol):
    """The used part of `regorus.Engine`, which is untyped."""

    def add_policy(self, path: str, rego: str, /) -> str: ...
    def add_data_json(self, data: str, /) -> None: ...
    def set_input_json(self, document: str, /) -> None: ...
    def eval_rule_as_json(self, rule: str, /) -> str: ...
    def eval_query_as_json(self, query: str, /) -> str: ...
    def get_ast_as_json(self) -> str: ...
    def set_gather_prints(self, gather: bool, /) -> None: ...
    def take_prints(self) -> list[str]: ...
    def set_enable_coverage(self, enable: bool, /) -> None: ...
    def clear_coverage_data(self) -> None: ...
    def get_coverage_report_as_json(self) -> str: ...


class Interpreter:
    """One compiled policy with its data, bound to the thread that compiled it.

    After a panic `broken` is true, and the engine is not used again: its state is unknown.
    """

    def __init__(self, modules: Iterable[Module], data: bytes, *, gather: bool = False, cover: bool = False) -> None:
        """Compile `modules` over the JSON object `data`; raise `PolicyRefused` with file and line.

        This does not check forms (`check_bundle` does): regorus accepts many forms that OPA decides differently. With
        `gather`, texts that the policy prints are kept for `prints`; otherwise regorus writes them to stderr. With `cover`,
        evaluated lines are kept for `covered_lines`.
        """
        self._thread = threading.get_ident()
        self.broken = False
        engine, problem = _compile(modules, (data,))
        if engine is None:
            raise PolicyRefused([problem])
        self._engine = engine
        if gather:
            engine.set_gather_prints(True)
        if cover:
            engine.set_enable_coverage(True)

    @classmethod
    async def in_turns(cls, modules: Iterable[Module], parts: Sequence[bytes]) -> Self:
        """Compile as the constructor does, with turns of the event loop between the `parts` of the data (`in_parts`)."""
        first, *others = parts
        interpreter = cls(modules, first)
        problem = None
        try:
            problem = await interpreter._read(others)
        finally:
            if problem is not _FINE:
                del interpreter._engine  # in this thread: the exception keeps `interpreter`, and may reach any thread
        if problem is not _FINE:
            raise PolicyRefused([problem])
        return interpreter

    async def _read(self, parts: Iterable[bytes]) -> Problem:
        for part in parts:
            await asyncio.sleep(0)
            text = _failure(self._engine.add_data_json, part.decode())
            if text is not None:
                return problem_of(text, "data.json")
        text = _failure(self._engine.eval_query_as_json, "true")
        return _FINE if text is None else problem_of(text, "data.json")

    def add(self, parts: Iterable[bytes]) -> bool:
        """Add the JSON objects `parts` to the compiled policy's data; return False if that failed: then use it no more."""
        self._check_thread()
        if any(_failure(self._engine.add_data_json, part.decode()) is not None for part in parts):
            return False
        # regorus analyses the modules again at the next question.
        return _failure(self._engine.eval_query_as_json, "true") is None

    def prints(self) -> list[str]:
        """Return the texts that were printed since the last call, each without the place of its `print`."""
        return [text.partition(": ")[2] for text in self._engine.take_prints()]

    def covered_lines(self) -> frozenset[tuple[str, int]]:
        """Return the file and line of each line that was evaluated since the last call; a line counts from 1."""
        self._check_thread()
        report = json.loads(self._engine.get_coverage_report_as_json())
        self._engine.clear_coverage_data()
        return frozenset((file["path"], line) for file in report["files"] for line in file["covered"])

    def evaluate(self, rule: str, document: bytes) -> object:
        """Return the value of `rule` (`data.` and dotted names) for the JSON input `document`, as JSON values.

        A rule without a value gives the text `<undefined>`, which is never a decision. Raises `PolicyFailed` with the place
        if evaluation fails. regorus' own text is left out, because it quotes values of the input.
        """
        self._check_thread()
        if self.broken:
            raise PolicyFailed("the interpreter broke")
        try:
            self._engine.set_input_json(document.decode())
            answer = self._engine.eval_rule_as_json(rule)
        except BaseException as error:  # noqa: BLE001  a panic is no Exception; `_text_of` raises other errors again
            place = place_of(_text_of(error), rule)
            self.broken = not isinstance(error, RuntimeError | ValueError)
            raise PolicyFailed(f"{place} cannot be evaluated") from None
        return cast("object", json.loads(answer))

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("an interpreter is used by the thread that made it")


def check_compiles(modules: Iterable[Module], parts: Iterable[bytes]) -> None:
    """Raise `PolicyRefused` unless `modules` compile over the `parts` of the data; may be called in any thread."""
    _, problem = _compile(modules, parts)
    if problem is not _FINE:
        raise PolicyRefused([problem])


@lru_cache(maxsize=256)  # the patterns of a policy are checked whenever it is loaded
def regex_compiles(pattern: str) -> bool:
    """Return whether regorus accepts the regular expression `pattern`, ASCII only. Rust bounds the compiled size."""
    engine = cast("_Engine", Engine())
    return _failure(engine.eval_query_as_json, f'regex.match({json.dumps(pattern)}, "")') is None


def parse_module(module: Module) -> object:
    """Return regorus' syntax tree of `module` as JSON values; raise `PolicyRefused` for a text that it cannot parse.

    The caller has bounded length, nesting and operators, because the parser's time is exponential in the nesting. May be
    called in any thread.
    """
    tree = _tree(module)
    if isinstance(tree, Problem):
        raise PolicyRefused([tree])
    try:
        return cast("object", json.loads(tree)[0]["ast"])
    except RecursionError as error:
        text = "an expression is too long: name its parts"
        raise PolicyRefused([Problem.of_whole(module.path, "nesting", text)]) from error


# An engine must be dropped by the thread that made it. So nothing is raised while an engine is in scope: the traceback would
# keep the engine alive, and carry it to wherever the exception goes.


def _compile(modules: Iterable[Module], parts: Iterable[bytes]) -> tuple[_Engine | None, Problem]:
    engine = cast("_Engine", Engine())
    for module in modules:
        text = _failure(engine.add_policy, module.path, module.text)
        if text is not None:
            return None, problem_of(text, module.path)
    for part in parts:
        text = _failure(engine.add_data_json, part.decode())
        if text is not None:
            return None, problem_of(text, "data.json")
    # regorus analyses modules at the first query. This query finds a bad rule before the policy is in force.
    text = _failure(engine.eval_query_as_json, "true")
    return (engine, _FINE) if text is None else (None, problem_of(text, "data.json"))


def _tree(module: Module) -> str | Problem:
    engine = cast("_Engine", Engine())
    text = _failure(engine.add_policy, module.path, module.text)
    return engine.get_ast_as_json() if text is None else problem_of(text, module.path)


def _failure(ask: Callable[..., object], *arguments: str) -> str | None:
    """Return the text of regorus' error, or None if it answers with a value."""
    try:
        ask(*arguments)
    except BaseException as error:  # noqa: BLE001  a panic is no Exception; `_text_of` raises other errors again
        return _text_of(error)
    return None


def _text_of(error: BaseException) -> str:
    """Return the text of an error of regorus; re-raise any other.

    A panic arrives as pyo3's `PanicException`, which is not an `Exception` and cannot be imported.
    """
    if isinstance(error, RuntimeError | ValueError) or type(error).__name__ == "PanicException":
        return str(error)
    raise error


def place_of(text: str, rule: str) -> str:
    """Return the place that an error of regorus names, or `rule`. The error's text is left out: it quotes the input."""
    problem = problem_of(text, rule)
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else rule


def problem_of(text: str, file: str) -> Problem:
    """Return a regorus error `text` as a `Problem`, at the place that it names, or else at line 0 of `file`."""
    text = text.split(_BACKTRACE, 1)[0]
    place = _PLACE.match(text)
    message = _ERROR.search(text)
    return Problem(
        file=place["file"] if place is not None else file,
        line=int(place["line"]) if place is not None else 0,
        column=int(place["column"]) if place is not None else 0,
        form="compile",
        text=message["text"] if message is not None else " ".join(text.split()),
    )
