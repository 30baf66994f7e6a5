"""`TaskHandle`: reads a submitted task's status and result, in any process of the same identity and after a restart.

A handle's text is the unpadded base64url of an encoded map (SPEC.md section 1) of `v` 1, `act`, the task's action, and `req`,
the request as SPEC.md section 7 writes it. It holds nothing secret; trust a handle as much as the place where you keep it.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, overload

from typing_extensions import TypeVar

from sealbus.agents.sdk.bodies import Body, body_of, decoded
from sealbus.bus.gate.status_reader import AskedTask, ReadsStatuses
from sealbus.bus.sending.answer import CallExpired, RemoteError, code_of
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE, PartsReading
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import Code, Denied, EnvelopeError, ObligationUnknown, SealbusError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import is_token

Item = TypeVar("Item")
Other = TypeVar("Other")
Res_co = TypeVar("Res_co", covariant=True, default=object)

_TEXT_BYTES: Final = 8_192
"""More than the longest handle: a SPIFFE ID of 2,048 bytes and an action, in base64."""
_VERSION: Final = 1


class Part(NamedTuple, Generic[Item]):
    """One part of a result; `number` counts from 0 in each attempt of the handler."""

    number: int
    value: Item


class Canceller(Protocol):
    """Sends cancels; implemented in `sealbus.agents.sdk.sender`."""

    async def cancel(
        self, task: AskedTask, *, reason: str, operator: bool, user: Statement | None, timeout: float
    ) -> None:
        """Have the agent of `task` stop it, and all messages that follow from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHandle(Generic[Res_co]):
    """A task of ours. `await handle.result()`; keep `str(handle)`, and read it again with `client.handle(text)`.

    The result's type is known if a declared handler was submitted; otherwise use `handle.result(SomeType)`. `subject`,
    `stream` and `sequence` are where the task was stored; they are empty in a handle that was read from text.
    """

    task: AskedTask = field(repr=False)
    reader: ReadsStatuses = field(repr=False, compare=False)
    canceller: Canceller | None = field(default=None, repr=False, compare=False)
    gives: Body[object] | None = field(default=None, repr=False, compare=False)
    subject: str = ""
    stream: str = ""
    sequence: int = 0

    @property
    def action(self) -> str:
        """The requested action."""
        return self.task.action

    @property
    def message_id(self) -> str:
        """The task's id, 32 hex digits."""
        return self.task.pending.id.hex()

    @property
    def digest(self) -> bytes:
        """The hash of the task's header, which names it in audit records."""
        return self.task.pending.digest

    @property
    def end(self) -> int:
        """The end of the task's life, in microseconds since the Unix epoch; a result may come until then."""
        return self.task.pending.end

    @property
    def text(self) -> str:
        """The handle as URL-safe text."""
        return handle_text(self.task)

    def __str__(self) -> str:
        return self.text

    def statuses(self, *, after: int = -1) -> AsyncGenerator[Status, None]:
        """Yield the task's statuses with numbers above `after`, as they come and up to the final one.

        Use it inside `contextlib.aclosing` if you may stop early. At `end` the last status is `expired`. Raises as
        `StatusReader.statuses` does: a result that our own policy refuses raises `Denied`.
        """
        return self.reader.statuses(self.task, after=after)

    @overload
    def parts(self) -> AsyncGenerator[Part[object], None]: ...
    @overload
    def parts(self, returns: type[Other]) -> AsyncGenerator[Part[Other], None]: ...
    async def parts(self, returns: type[Other] | None = None) -> AsyncGenerator[Part[Any], None]:
        """Yield the parts of the task's result as they come, each as `returns`; ends once the task is done.

        They are in order and without gaps. If an attempt of the handler fails after some parts, the next attempt begins with
        number 0: drop the parts of the attempt before. Use it inside `contextlib.aclosing` if you may stop early. Raises as
        `result` does, and `HandlingError` (`bad_result`) if parts are missing, or are not those of the result.
        """
        gives: Body[Any] = body_of(returns) if returns is not None else self.gives or body_of(object)
        reading = PartsReading()
        async with aclosing(self.statuses()) as statuses:
            async for status in statuses:
                if status.part is not None:
                    reading.take(status)
                    yield Part(status.number, decoded(gives, status.part))
                elif status.final:
                    if status.result is None:
                        raise failure_of(status)
                    reading.check(status.result)

    async def status(self, *, timeout: float = 10.0) -> Status | None:
        """Return the newest stored status; None until the task's agent has stored a status.

        Raises as `statuses` does, `TimeoutError` if the stream could not be read within `timeout` seconds.
        """
        newest: Status | None = None
        async with asyncio.timeout(timeout), aclosing(self.reader.statuses(self.task, follow=False)) as statuses:
            async for status in statuses:
                newest = status
        return newest

    @overload
    async def result(self, *, timeout: float = ...) -> Res_co: ...
    @overload
    async def result(self, returns: type[Other], *, timeout: float = ...) -> Other: ...
    async def result(self, returns: type[Other] | None = None, *, timeout: float = 60.0) -> Res_co | Other:
        """Wait until the task is done, at most `timeout` seconds, and return its result, as `returns` if that is given.

        If the handler answers in parts, the result is the list of them.

        Raises `Denied` with its reasons if the other side's policy or ours denies, `RemoteError` with the other side's code
        for any other failure there, `CallExpired` once `end` has passed, `HandlingError` (`bad_result`) for a result of
        another type, and `TimeoutError` while the task is still open: you may call this again.
        """
        last: Status | None = None
        parts: list[Content] = []
        reading = PartsReading()
        try:
            async with asyncio.timeout(timeout), aclosing(self.statuses()) as statuses:
                async for status in statuses:
                    last = status
                    if status.part is not None:
                        if reading.take(status):
                            parts.clear()
                        parts.append(status.part)
        except TimeoutError as error:
            state = " ".join(filter(None, (last.state, last.code, last.note))) if last is not None else ""
            raise TimeoutError(
                f"{self.action}: not done within {timeout:g} s, and still open{f' ({state})' if state else ''}"
            ) from error
        if last is None:
            raise CallExpired(f"{self.action}: its statuses ended without a final one")
        if last.result is None:
            raise failure_of(last)
        reading.check(last.result)
        type_: Any = returns if returns is not None else self.gives.type if self.gives is not None else object
        if last.result.typ != PARTS_TYPE:
            result: Res_co | Other = decoded(body_of(type_), last.result)
            return result
        # The type of a declared handler is that of one part; `returns` is the type of the whole list.
        whole: Body[Any] = body_of(list[type_] if returns is None else type_)
        joined: Res_co | Other = whole.together(parts)
        return joined

    async def cancel(
        self, reason: str = "", *, operator: bool = False, user: Statement | None = None, timeout: float = 10.0
    ) -> None:
        """Cancel the task, and all messages that follow from it and were not submitted as detached.

        Returns once the agent has decided and recorded the cancel and it is in force. From 5 s later on, no process begins
        any of these messages; running handlers are cancelled when the cancel reaches them, usually within milliseconds. What
        was done stays done. The task ends as `canceled`, or as it ended before; `result` shows which. `reason` is a line for
        people, at most 256 bytes, shown to readers of the task's status. `user` is the context of the user who cancels. As
        `operator`, you may cancel another workload's task, if the agent's policy allows that.

        Raises `Denied` if the agent's policy denies, `CallExpired` once the task's end has passed, `TimeoutError` if the
        agent has not answered in `timeout` seconds: the cancel then takes effect when the agent handles it. `RemoteError`
        with `overloaded` means that 8,192 of our cancels are in force at that agent, and this one is not. `Overloaded` means
        that this process follows 1,024 tasks and cancels already; nothing was sent. Otherwise raises as `result`.
        """
        if self.canceller is None:
            raise SealError("this handle only reads")
        await self.canceller.cancel(self.task, reason=reason, operator=operator, user=user, timeout=timeout)


def failure_of(status: Status) -> SealbusError:
    """Return the error to raise for a final status without a result."""
    if status.state is State.EXPIRED:
        return CallExpired("the task was not done before its end")
    if status.code == Code.DENIED:
        return Denied("the other side's policy denies this", *status.explanation)
    if status.code == Code.OBLIGATION_UNKNOWN:
        return ObligationUnknown("the other side does not honour an obligation of its policy", *status.explanation)
    if status.state is State.CANCELED:
        by = f" by {status.by}" if status.by is not None else ""
        return RemoteError(Code.CANCELED, f"the task was canceled{by}", status.note)
    return RemoteError(code_of(status.code or Code.BAD_RESULT), f"the task was {status.state}", status.note)


def handle_text(task: AskedTask) -> str:
    """Return the handle of a task as URL-safe text."""
    request = encode(
        {"v": _VERSION, "act": task.action, "req": task.pending.encode()}, text_bytes=DEFAULT_LIMITS.text_bytes
    )
    return urlsafe_b64encode(request).rstrip(b"=").decode()


def parse_handle(text: str) -> AskedTask:
    """Return the task that a handle's text names; raise `EnvelopeError` (`malformed`, step 0) for any other text."""
    if len(text) > _TEXT_BYTES:
        raise _malformed("too long")
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise _malformed("not base64url") from error
    # The decoder skips invalid characters, but a handle has one spelling.
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise _malformed("not canonical")
    keys = RecordMap(decode(raw, text_bytes=DEFAULT_LIMITS.text_bytes, step=0))
    action, request = keys.text("act"), keys.octets("req")
    keys.end()
    if not all(is_token(part) for part in action.split(".")):
        raise _malformed("act is not an action")
    pending = PendingRequest.parse(request)
    if pending.rpl is not None:
        raise _malformed("of a call, not of a task")
    return AskedTask(pending=pending, action=action)


def _malformed(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.MALFORMED, 0, f"handle: {detail}")
