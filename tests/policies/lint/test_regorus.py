"""regorus behind its one door."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from functools import partial
from traceback import walk_tb

import pytest
from regorus import Engine  # type: ignore[import-untyped]  # it has neither stubs nor annotations

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.lint import regorus as home
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter, parse_module


@pytest.fixture(autouse=True)
def _dropped_where_it_was_made() -> Iterator[None]:
    """Collect what a caught error keeps alive with its frames: an engine must be dropped on the thread that made it."""
    yield
    gc.collect()


def module(text: str) -> Module:
    return Module(path="a/b.rego", text=f"package p\n\n{text}\n")


def test_values_are_json_values() -> None:
    interpreter = Interpreter([module('r := {"n": input.n, "s": {2, 1}, "d": data.d}')], b'{"d": null}')
    assert interpreter.evaluate("data.p.r", b'{"n": 5}') == {"n": 5, "s": [1, 2], "d": None}
    assert interpreter.evaluate("data.p.r", b"{}") == "<undefined>"


def test_a_failure_says_where_and_quotes_nothing() -> None:
    interpreter = Interpreter([module("r := count(input.secret)")], b"{}")
    with pytest.raises(PolicyFailed) as failed:
        interpreter.evaluate("data.p.r", b'{"secret": 4711}')
    assert failed.value.detail == "a/b.rego:3:17 cannot be evaluated"
    assert interpreter.evaluate("data.p.r", b'{"secret": [1]}') == 1
    assert not interpreter.broken


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 200 + b"]" * 200])
def test_a_document_that_is_no_json(document: bytes) -> None:
    interpreter = Interpreter([module("r := 1")], b"{}")
    with pytest.raises(PolicyFailed, match=r"data\.p\.r cannot be evaluated"):
        interpreter.evaluate("data.p.r", document)


def test_what_does_not_compile_is_refused_with_its_place() -> None:
    with pytest.raises(PolicyRefused) as refused:
        Interpreter([module("r {")], b"{}")
    [problem] = refused.value.problems
    assert (problem.file, problem.line, problem.column, problem.form) == ("a/b.rego", 3, 3, "compile")
    assert problem.text == "`if` keyword is required before rule body"


def test_rules_that_nobody_asks_are_analysed_as_well() -> None:
    with pytest.raises(PolicyRefused, match=r"a/b\.rego:4:13: use of undefined variable"):
        Interpreter([module("r := 1\nq := 1 if { y > 1 }")], b"{}")


def test_data_that_is_no_object() -> None:
    with pytest.raises(PolicyRefused, match=r"data\.json") as refused:
        Interpreter([], b"[]")
    assert refused.value.problems[0].line == 0


PARTS = [b'{"d": {"a": {"x": 1}}}', b'{"d": {"a": {"y": 2}}}', b'{"d": {"b": []}}']


async def test_the_loop_has_a_turn_between_two_parts_of_the_data() -> None:
    compiling = asyncio.create_task(Interpreter.in_turns([module("r := data.d")], PARTS))
    turns = 0
    while not compiling.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= len(PARTS)
    assert (await compiling).evaluate("data.p.r", b"{}") == {"a": {"x": 1, "y": 2}, "b": []}


@pytest.mark.filterwarnings("error")
async def test_what_fails_between_two_parts_is_dropped_by_its_thread() -> None:
    async def failure(parts: list[bytes], *, cancel: bool) -> BaseException:
        compiling = asyncio.create_task(Interpreter.in_turns([module("r := 1")], parts))
        await asyncio.sleep(0)
        if cancel:
            compiling.cancel()
        await asyncio.wait({compiling})
        try:
            await compiling
        except (PolicyRefused, asyncio.CancelledError) as error:
            return error
        raise AssertionError

    kept = [await failure([*PARTS, b'{"d": {"b": 1}}'], cancel=False), await failure(PARTS, cancel=True)]
    assert isinstance(kept[0], PolicyRefused)
    assert kept[0].problems[0].file == "data.json"
    assert isinstance(kept[1], asyncio.CancelledError)
    held = [value for error in kept for frame, _ in walk_tb(error.__traceback__) for value in frame.f_locals.values()]
    engines = [value for value in held if isinstance(getattr(value, "__self__", value), Engine)]
    assert not engines
    # A traceback may keep an interpreter, which has no engine any more.
    assert not any(hasattr(value, "_engine") for value in held if isinstance(value, Interpreter))


def test_the_lines_of_each_evaluation_are_told_apart() -> None:
    policy = module("r if {\n\tinput.a == 1\n\tinput.b == 2\n}")
    interpreter = Interpreter([policy], b"{}", cover=True)
    first = policy.text.split("\n").index("\tinput.a == 1") + 1
    interpreter.evaluate("data.p.r", b'{"a": 1, "b": 2}')
    assert {(policy.path, first), (policy.path, first + 1)} <= interpreter.covered_lines()
    interpreter.evaluate("data.p.r", b'{"a": 2}')
    assert (policy.path, first + 1) not in interpreter.covered_lines()
    assert interpreter.covered_lines() == frozenset()


def test_an_interpreter_belongs_to_its_thread() -> None:
    interpreter = Interpreter([module("r := 1")], b"{}")
    errors: list[BaseException] = []

    def ask() -> None:
        for use in (partial(interpreter.evaluate, "data.p.r", b"{}"), partial(interpreter.add, [b"{}"])):
            try:
                use()
            except RuntimeError as error:
                errors.append(error)

    # A collection in that thread would drop interpreters of other tests there, which belong to this one.
    gc.disable()
    try:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    finally:
        gc.enable()
    assert ["thread" in str(error) for error in errors] == [True, True]


def test_data_is_added_and_a_value_is_not_replaced() -> None:
    interpreter = Interpreter([module("r := data.x.b")], b'{"x": {"a": 1}}')
    assert interpreter.evaluate("data.p.r", b"{}") == "<undefined>"
    assert interpreter.add([b'{"x": {"b": [2]}}', b'{"y": 1}'])
    assert interpreter.evaluate("data.p.r", b"{}") == [2]
    for data in (b'{"x": {"b": [3]}}', b"[]", b"{"):
        assert not Interpreter([module("r := 1")], b'{"x": {"b": [2]}}').add([data])


class PanicException(BaseException):  # the name that pyo3 gives it
    pass


class Panicking:
    def set_input_json(self, _: str) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")


def test_a_panic_is_a_failure_and_breaks_the_interpreter() -> None:
    interpreter = Interpreter([module("r := 1")], b"{}")
    interpreter._engine = Panicking()  # type: ignore[assignment]
    with pytest.raises(PolicyFailed, match="cannot be evaluated"):
        interpreter.evaluate("data.p.r", b"{}")
    assert interpreter.broken
    with pytest.raises(PolicyFailed, match="broke"):
        interpreter.evaluate("data.p.r", b"{}")


class Interrupted:
    def set_input_json(self, _: str) -> None:
        raise KeyboardInterrupt


def test_an_interruption_is_not_swallowed() -> None:
    interpreter = Interpreter([module("r := 1")], b"{}")
    interpreter._engine = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        interpreter.evaluate("data.p.r", b"{}")


def test_backtraces_are_left_out() -> None:
    problem = home.problem_of("plain trouble\nhere\n\nStack backtrace:\n 0: secret", "a.rego")
    assert str(problem) == "a.rego: plain trouble here [compile]"


@pytest.mark.slow
def test_an_expression_that_is_too_long_for_us() -> None:
    with pytest.raises(PolicyRefused, match="too long"):
        parse_module(module("r := 1" + " +\n1" * 1500))
