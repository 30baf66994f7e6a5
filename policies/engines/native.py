"""The native engine: the embedded engine with our own build of regorus, the wheel of `native/engine` (`make engine`).

It decides a long batch in a thread of its own, while the event loop continues. A panic, a runaway and a too large answer are
failures of one question only. The admitted forms and builtins are the same as for the embedded engine, because decisions of
this engine must be explained, replayed and verified on machines without the wheel.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar, cast

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.bundle.check import BATCH, DECISION
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.bundle.signing import BundleVerifier
from sealbus.policies.decision.decision import parse_decision
from sealbus.policies.decision.documents import InputDocument, canonical, checked_document
from sealbus.policies.decision.engine import Answer, Parse
from sealbus.policies.engines.embedded import DEADLINE, Compiled, EmbeddedEngine, extension_of
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import place_of, problem_of

VERSION: Final = "0.1.2"
"""The only version of the wheel that may decide. Tests compare its answers with OPA's."""
INLINE: Final = 8
"""Most questions that are decided in the event loop. The hand-over to a thread takes as long as one question."""
SLICE: Final = 256
"""Questions of one hand-over. The event loop may cancel between two."""
EACH: Final = 0.25
"""Seconds for one evaluation, some thousand times its usual duration, so a runaway leaves time for the rest of its batch."""

T = TypeVar("T")

_Result: TypeAlias = "tuple[int, str | bytes | None]"
"""Microseconds, and one of: the answer in JSON, the text of an error as bytes, None if it is too late."""


class _Policy(Protocol):
    """A compiled policy of the wheel, which is untyped. Any thread may use it."""

    def ask(
        self, rule: str, batch: str | None, documents: Sequence[bytes], /, *, each: float, whole: float, apart: bool
    ) -> tuple[int, list[_Result]]: ...
    def add(self, parts: list[str], /) -> None: ...


class _Wheel(Protocol):
    __version__: str

    def Policy(self, modules: list[tuple[str, str]], data: str, /) -> _Policy: ...  # noqa: N802  its class


def _wheel() -> _Wheel:
    try:
        # It is untyped where it is installed, and not found elsewhere.
        import sealbus_regorus  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        text = "the native engine is not installed: make engine builds it, or set policy.engine to embedded"
        raise ConfigurationError(text) from error
    wheel = cast("_Wheel", sealbus_regorus)
    if wheel.__version__ != VERSION:
        text = f"sealbus-regorus {wheel.__version__} is installed, but this sealbus needs exactly {VERSION}"
        raise ConfigurationError(f"{text}: make engine")
    return wheel


class _Native(Compiled):
    def __init__(
        self, bundle: Bundle, engine: str, deadline: float, *, policy: _Policy, thread: ThreadPoolExecutor
    ) -> None:
        super().__init__(bundle, engine, deadline)
        self._policy = policy
        self._thread = thread
        self._revisions = [bundle.revision]
        """The revision by how many extensions were added."""

    def extend(self, bundle: Bundle) -> bool:
        """Add the data of the extension; a question that is being decided in the thread keeps the former revision."""
        steps = extension_of(bundle, self.bundle)
        if not steps:
            return False
        try:
            self._policy.add([canonical(added).decode() for _, added in steps])
        except ValueError:
            return False
        self._revisions += (*(before for before, _ in steps[1:]), bundle.revision)
        self.bundle = bundle
        return True

    async def decide(self, inputs: Sequence[bytes]) -> list[Answer]:
        until = time.monotonic() + self._deadline
        answers: list[Answer] = []
        for start in range(0, len(inputs), SLICE):
            answers.extend(await self._slice(inputs[start : start + SLICE], until))
        return answers

    async def _slice(self, inputs: Sequence[bytes], until: float) -> list[Answer]:
        checked = [_checked(document) for document in inputs]
        documents = [document for document in checked if isinstance(document, InputDocument)]

        def ask(*, apart: bool) -> tuple[int, list[_Result]]:
            left = until - time.monotonic()
            return self._policy.ask(DECISION, BATCH, documents, each=EACH, whole=left, apart=apart)

        if len(documents) <= INLINE:
            count, results = ask(apart=False)
        else:
            try:
                # The wheel checks its clock, but not inside a builtin.
                async with asyncio.timeout(until + EACH - time.monotonic()):
                    asking = asyncio.get_running_loop().run_in_executor(self._thread, partial(ask, apart=True))
                    count, results = await asking
            except TimeoutError:
                count, results = 0, [(0, None)] * len(documents)
        revision = self._revisions[count]
        following = iter(results)
        return [
            document
            if isinstance(document, PolicyFailed)
            else self._parsed(DECISION, next(following), parse_decision, revision)
            for document in checked
        ]

    def decide_single(self, rule: str, document: bytes, parse: Parse[T]) -> T | PolicyFailed | PolicyUnavailable:
        checked = _checked(document)
        if isinstance(checked, PolicyFailed):
            return checked
        count, [result] = self._policy.ask(rule, None, [checked], each=EACH, whole=self._deadline, apart=False)
        return self._parsed(rule, result, parse, self._revisions[count])

    def _parsed(
        self, rule: str, result: _Result, parse: Parse[T], revision: str
    ) -> T | PolicyFailed | PolicyUnavailable:
        micros, value = result
        if value is None:
            return PolicyUnavailable(
                f"not decided within {min(EACH, self._deadline):g} s, or {self._deadline:g} s for all"
            )
        if isinstance(value, bytes):
            return PolicyFailed(f"{place_of(value.decode(), rule)} cannot be evaluated")
        try:
            answer = json.loads(value)
        except ValueError:
            # The number has more digits than Python reads. No decision may hold it.
            return PolicyFailed(f"{rule} gives a number that is too long")
        return self._answer(answer, micros, parse, revision)


def _checked(document: bytes) -> InputDocument | PolicyFailed:
    try:
        return checked_document(document)
    except PolicyFailed as error:
        return error


class NativeEngine(EmbeddedEngine):
    """Decides as `EmbeddedEngine` does, with the wheel `sealbus-regorus`.

    Construction raises `ConfigurationError` if the wheel is not installed in exactly this version.
    """

    def __init__(
        self, policy: Path | InForce, *, deadline: float = DEADLINE, verifier: BundleVerifier | None = None
    ) -> None:
        super().__init__(policy, deadline=deadline, verifier=verifier)
        self._wheel = _wheel()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="native-engine")

    @property
    def name(self) -> str:
        """The engine's name in decisions."""
        return "native"

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        try:
            async with super()._run():
                yield
        finally:
            # There is no wait for the thread: its last question ends by itself.
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compile(self, bundle: Bundle) -> Compiled:
        # In a thread, because decisions by the former bundle must not wait for this.
        policy = await asyncio.to_thread(_policy, self._wheel, bundle)
        return _Native(bundle, self.name, self._deadline, policy=policy, thread=self._thread)


def _policy(wheel: _Wheel, bundle: Bundle) -> _Policy:
    modules = [(module.path, module.text) for module in bundle.modules]
    try:
        return wheel.Policy(modules, canonical(bundle.data).decode())
    except ValueError as error:
        raise PolicyRefused([problem_of(str(error), "the bundle")]) from None
