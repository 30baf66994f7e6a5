"""The embedded engines: regorus' interpreter in this process, with a bundle that may be replaced at any time.

`EmbeddedEngine` uses the package from PyPI. Its interpreter runs in the thread of the event loop. A decision takes tens of
microseconds, and a long batch yields to the event loop between slices. A single decision cannot be interrupted, so the
deadline is checked only between slices. `policies.engines.native` uses our own build.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Self, TypeVar

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.bundle.check import BATCH, DECISION
from sealbus.policies.bundle.denials import denied_path, is_denied
from sealbus.policies.bundle.files import STARTER, remembered_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import BundleFile, InForce
from sealbus.policies.bundle.signing import BundleVerifier
from sealbus.policies.decision.approval import APPROVAL
from sealbus.policies.decision.connect import CONNECT, ConnectAnswer, ConnectDecision, parse_connect
from sealbus.policies.decision.decision import parse_decision
from sealbus.policies.decision.documents import DataDocument, InputDocument, canonical, checked_document, in_parts
from sealbus.policies.decision.engine import Answer, EngineStatus, Parse
from sealbus.policies.entered import Entered
from sealbus.policies.lint.regorus import Interpreter

_logger: Final = logging.getLogger(__name__)

SLICE: Final = 32
"""Decisions in one turn of the event loop, which take about 1 ms."""
DEADLINE: Final = 1.0

T = TypeVar("T")


class Compiled(ABC):
    """A compiled bundle, which answers questions. `engine` is the engine's name in its decisions."""

    def __init__(self, bundle: Bundle, engine: str, deadline: float) -> None:
        self.bundle = bundle
        self._engine: Final = engine
        self._deadline: Final = deadline

    @abstractmethod
    async def decide(self, inputs: Sequence[bytes]) -> list[Answer]:
        """Return one answer for each input document, in order; `PolicyUnavailable` for those not decided in time."""

    @abstractmethod
    def extend(self, bundle: Bundle) -> bool:
        """Decide by `bundle` from now on, which extends the present one; return False if it must be compiled instead."""

    @abstractmethod
    def decide_single(self, rule: str, document: bytes, parse: Parse[T]) -> T | PolicyFailed | PolicyUnavailable:
        """Return the value of `rule` for `document`, as `parse` reads it."""

    def _answer(self, value: object, micros: int, parse: Parse[T], revision: str) -> T | PolicyFailed:
        try:
            return parse(value, revision=revision, engine=self._engine, micros=micros)
        except PolicyFailed as error:
            return _without_traceback(error)


def extension_of(bundle: Bundle, present: Bundle) -> tuple[tuple[str, DataDocument], ...]:
    """Return the steps from `present` to `bundle` (`Extension`), if a compiled policy may simply be given their data.

    None if `bundle` is no extension of it, or denies an id again: of two denials of one id regorus would make one.
    """
    steps = bundle.extension.since(present.revision) if bundle.extension is not None else ()
    denied = {denied_path(added) for _, added in steps}
    if len(denied) < len(steps) or any(is_denied(present.data, added) for _, added in steps):
        return ()
    return steps


class _Interpreted(Compiled):
    """A bundle and its interpreter, which is replaced after a panic."""

    def __init__(self, bundle: Bundle, engine: str, deadline: float, interpreter: Interpreter) -> None:
        super().__init__(bundle, engine, deadline)
        self._interpreter = interpreter

    async def decide(self, inputs: Sequence[bytes]) -> list[Answer]:
        until = time.monotonic() + self._deadline
        answers: list[Answer] = []
        while len(answers) < len(inputs):
            if answers:
                await asyncio.sleep(0)
            if time.monotonic() > until:
                late = len(inputs) - len(answers)
                answers.extend(PolicyUnavailable(f"not decided within {self._deadline:g} s") for _ in range(late))
            else:
                answers.extend(self._slice(inputs[len(answers) : len(answers) + SLICE]))
        return answers

    def extend(self, bundle: Bundle) -> bool:
        """Add the data of the extension, in about a millisecond; a batch that is being decided goes on by it."""
        steps = extension_of(bundle, self.bundle)
        if not steps or self._interpreter.broken:
            return False
        if not self._interpreter.add([canonical(added) for _, added in steps]):
            return False
        self.bundle = bundle
        return True

    def decide_single(self, rule: str, document: bytes, parse: Parse[T]) -> T | PolicyFailed:
        started = time.perf_counter_ns()
        try:
            checked = document if isinstance(document, InputDocument) else checked_document(document)
            value = self._ask(rule, checked)
        except PolicyFailed as error:
            return _without_traceback(error)
        return self._answer(value, (time.perf_counter_ns() - started) // 1_000, parse, self.bundle.revision)

    def _slice(self, inputs: Sequence[bytes]) -> list[Answer]:
        """Decide many documents at once, which costs a fifth less. If one fails, all fail; then each is decided alone."""
        if len(inputs) > 1 and all(isinstance(document, InputDocument) for document in inputs):
            started = time.perf_counter_ns()
            try:
                values = self._ask(BATCH, b'{"batch":[' + b",".join(inputs) + b"]}")
            except PolicyFailed:
                values = None
            if isinstance(values, list) and len(values) == len(inputs):
                micros = (time.perf_counter_ns() - started) // (1_000 * len(inputs))
                return [self._answer(answer, micros, parse_decision, self.bundle.revision) for answer in values]
        return [self.decide_single(DECISION, document, parse_decision) for document in inputs]

    def _ask(self, rule: str, document: bytes) -> object:
        if self._interpreter.broken:
            self._interpreter = Interpreter(self.bundle.modules, canonical(self.bundle.data))
        return self._interpreter.evaluate(rule, document)


class EmbeddedEngine(Entered):
    """Decides by the bundle in force: `policy` is where it is put (`InForce`), or the bundle's file (`BundleFile`).

    Entering raises `PolicyRefused` for a first bundle that may not be put in force, and `ConfigurationError` for one that
    cannot be read. If a later bundle is refused, the old one stays in force, and `status` says why. `deadline` is in seconds,
    for one call of `decide`: documents that are not decided by then are `PolicyUnavailable`. With a `verifier`, the file's
    bundles must pass it and have a growing serial. It refuses unsigned, tampered, wrongly signed and older bundles.
    """

    def __init__(
        self, policy: Path | InForce, *, deadline: float = DEADLINE, verifier: BundleVerifier | None = None
    ) -> None:
        self._file: BundleFile | None = None
        if isinstance(policy, InForce):
            self._in_force = policy
        else:
            self._file = BundleFile(policy, verifier)
            self._in_force = self._file.in_force
        self._folder: Path | None = None
        self._deadline = deadline
        self._compiled: Compiled | None = None

    @classmethod
    def of_folder(cls, folder: Path | None = None, *, deadline: float = DEADLINE) -> Self:
        """Return an engine that decides by the policy in `folder` at entering; the default is the starter policy."""
        engine = cls(InForce(), deadline=deadline)
        engine._folder = folder or STARTER
        return engine

    @property
    def name(self) -> str:
        """The engine's name in decisions."""
        return "embedded"

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        if self._folder is not None:
            await self._in_force.put(await asyncio.to_thread(remembered_bundle, self._folder))
        if self._file is not None:
            await self._file.start()
        try:
            async with self._in_force.taken(self._take), asyncio.TaskGroup() as group:
                following = group.create_task(self._file.run()) if self._file is not None else None
                yield
                if following is not None:
                    following.cancel()
        finally:
            self._compiled = None

    async def _take(self, bundle: Bundle) -> None:
        if self._compiled is None or not self._compiled.extend(bundle):
            self._compiled = await self._compile(bundle)
        _logger.info("policy revision %s is in force", bundle.revision)

    async def _compile(self, bundle: Bundle) -> Compiled:
        parts = await asyncio.to_thread(lambda: tuple(in_parts(bundle.data)))
        # The interpreter is compiled in this thread, because only this thread may use it.
        return _Interpreted(bundle, self.name, self._deadline, await Interpreter.in_turns(bundle.modules, parts))

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order.

        Each has the revision that decided it: the one in force at the start, or one that extends it.
        """
        compiled = self._compiled
        if compiled is None:
            return [_not_entered() for _ in inputs]
        return await compiled.decide(inputs)

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the decision on one connection to NATS, with the cells of the bundle that decided."""
        compiled = self._compiled
        if compiled is None:
            return _not_entered()
        answer = compiled.decide_single(CONNECT, document, parse_connect)
        return replace(answer, cells=self._in_force.cells) if isinstance(answer, ConnectDecision) else answer

    async def approve(self, document: bytes) -> Answer:
        """Return the decision on who may approve."""
        compiled = self._compiled
        return _not_entered() if compiled is None else compiled.decide_single(APPROVAL, document, parse_decision)

    async def status(self) -> EngineStatus:
        """Return the revision in force, and why the newest bundle is not in force."""
        compiled = self._compiled
        if compiled is None:
            return EngineStatus(engine=self.name, revision="", problem="the engine is not entered")
        return EngineStatus(engine=self.name, revision=compiled.bundle.revision, problem=self._in_force.problem)


def _not_entered() -> PolicyUnavailable:
    return PolicyUnavailable("the engine is not entered")


def _without_traceback(error: PolicyFailed) -> PolicyFailed:
    """Return the same failure without its traceback.

    The traceback's frames hold the interpreter, which only its own thread may drop. The answer may reach any thread.
    """
    return PolicyFailed(error.detail)
