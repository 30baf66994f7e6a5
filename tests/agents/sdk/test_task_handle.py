"""Handles: one spelling, one error, what each end of a task is raised as, and waiting that leaves the task alone."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from support.envelopes import NAMES
from support.results import CALL, TASK

from sealbus.agents.sdk.task_handle import TaskHandle, failure_of, parse_handle
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import Code, Denied, EnvelopeError, HandlingError, ObligationUnknown

ACTION = "pricing.update"
PENDING = PendingRequest.of(TASK)


class Item(BaseModel):
    item: str


class Told:
    """Stands for the reader of statuses: gives what it was told, and then waits if it was told to."""

    def __init__(self, *statuses: Status, waits: bool = False) -> None:
        self.told = statuses
        self.waits = waits
        self.asked: list[tuple[int, bool]] = []
        self.open = 0

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        self.asked.append((after, follow))
        self.open += 1
        try:
            for status in self.told:
                yield status
            if self.waits and follow:
                await asyncio.Event().wait()
        finally:
            self.open -= 1


def handle(told: Told | None = None, *, pending: PendingRequest = PENDING, action: str = ACTION) -> TaskHandle:
    return TaskHandle(task=AskedTask(pending=pending, action=action), reader=cast("StatusReader", told or Told()))


def done(body: bytes = b'{"item":"42"}', typ: str = "application/json") -> Status:
    return Status(state=State.COMPLETED, result=Content(body=body, typ=typ), sequence=1)


actions = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True), min_size=1, max_size=4).map(".".join)
pendings = st.builds(
    PendingRequest,
    digest=st.binary(min_size=32, max_size=32),
    id=st.binary(min_size=16, max_size=16),
    aud=st.from_regex(r"[a-z0-9_-]{1,60}", fullmatch=True)
    .filter(lambda name: not name.startswith("id-"))
    .map(NAMES.id_of),
    end=st.integers(0, 2**53 - 1),
)


@given(pendings, actions)
def test_a_handle_is_read_as_it_was_written(pending: PendingRequest, action: str) -> None:
    text = str(handle(pending=pending, action=action))
    assert parse_handle(text) == AskedTask(pending=pending, action=action)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def refused(text: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_handle(text)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)
    assert caught.value.detail.isascii()


@given(st.text() | st.binary(max_size=300).map(lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode()))
def test_any_other_text_is_one_error(text: str) -> None:
    refused(text)


def read(text: str) -> AskedTask | EnvelopeError:
    try:
        return parse_handle(text)
    except EnvelopeError as error:
        return error


@given(st.integers(0, 10_000), st.characters())
def test_a_handle_with_one_character_changed_is_another_or_an_error(place: int, character: str) -> None:
    text = handle().text
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    found = read(changed)
    if isinstance(found, EnvelopeError):
        assert (found.code, found.step) == (Code.MALFORMED, 0)
    else:
        assert handle(pending=found.pending, action=found.action).text == changed


def made(**entries: object) -> str:
    """Return the text of a handle with other entries."""
    raw = urlsafe_b64decode(handle().text + "==")
    fields = cast("dict[str, object]", decode(raw, step=0))
    fields = {key: value for key, value in (fields | entries).items() if value is not None}
    return urlsafe_b64encode(encode(fields)).rstrip(b"=").decode()  # type: ignore[arg-type]  # what a test puts there


def test_the_maker_of_bad_handles_makes_good_ones() -> None:
    assert parse_handle(made()) == handle().task
    assert made(act="stock.look") != handle().text


@pytest.mark.parametrize(
    "text",
    [
        "",
        handle().text + "=",
        handle().text + "\n",
        " " + handle().text,
        handle().text[:-1],
        handle().text * 40,
        made(v=2),
        made(v=None),
        made(act=None),
        made(act=""),
        made(act="pricing..update"),
        made(act="pricing.>"),
        made(act="pricing.update\u00e9"),
        made(act=b"pricing.update"),
        made(req=None),
        made(req=b""),
        made(req=PENDING.encode() + b"\x00"),
        made(req=PendingRequest.of(CALL).encode()),
        made(more=1),
        PENDING.to_text(),
    ],
)
def test_a_handle_is_read_strictly(text: str) -> None:
    refused(text)


def test_what_is_too_long_is_not_even_decoded() -> None:
    with pytest.raises(EnvelopeError, match="too long"):
        parse_handle("A" * 1_000_000)


def test_a_handle_shows_what_it_is_about_and_nothing_more() -> None:
    shown = handle()
    assert (shown.message_id, shown.digest, shown.end, shown.action) == (
        TASK.id.hex(),
        TASK.digest,
        TASK.end,
        ACTION,
    )
    assert str(shown) == shown.text
    assert shown == handle()
    assert "reader" not in repr(shown)


async def test_a_result_is_given_as_its_type() -> None:
    told = Told(Status(state=State.WORKING), done())
    assert await handle(told).result(Item) == Item(item="42")
    assert await handle(told).result() == {"item": "42"}
    nothing: object = await handle(Told(done(b"null"))).result()
    assert nothing is None
    assert await handle(Told(done(b"\x00", "application/octet-stream"))).result(bytes) == b"\x00"
    assert told.asked == [(-1, True)] * 2
    assert told.open == 0


async def test_a_result_of_another_type_is_told_without_quoting_it() -> None:
    with pytest.raises(HandlingError) as caught:
        await handle(Told(done(b'{"item":17}'))).result(Item)
    assert caught.value.code is Code.BAD_RESULT
    assert "17" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (Status(state=State.REJECTED, code="denied", reasons=("not_owner",)), Denied, Code.DENIED),
        (
            Status(state=State.REJECTED, code="obligation_unknown", reasons=("not_owner",)),
            ObligationUnknown,
            Code.OBLIGATION_UNKNOWN,
        ),
        (Status(state=State.REJECTED, code="bad_body"), RemoteError, Code.BAD_BODY),
        (Status(state=State.FAILED, code="handler_failed"), RemoteError, Code.HANDLER_FAILED),
        (Status(state=State.FAILED, code="sold_out"), RemoteError, "sold_out"),
        (Status(state=State.FAILED), RemoteError, Code.BAD_RESULT),
        (Status(state=State.CANCELED), RemoteError, Code.CANCELED),
        (Status(state=State.EXPIRED, code="expired"), CallExpired, Code.EXPIRED),
    ],
)
async def test_each_other_end_has_its_error(status: Status, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught:
        await handle(Told(status)).result(Item)
    assert getattr(caught.value, "code", None) == code
    if isinstance(caught.value, Denied):
        assert caught.value.reasons == ("not_owner",)
    assert type(failure_of(status)) is error


async def test_waiting_ends_and_the_task_does_not() -> None:
    told = Told(Status(state=State.WORKING), waits=True)
    with pytest.raises(TimeoutError, match=r"pricing.update: .* still open"):
        await handle(told).result(Item, timeout=0.01)
    assert told.open == 0
    told.told, told.waits = (done(),), False
    assert await handle(told).result(Item) == Item(item="42")


async def test_the_newest_status_is_what_is_stored_now() -> None:
    assert await handle(Told(waits=True)).status() is None
    told = Told(Status(state=State.WORKING), Status(state=State.WORKING, note="again", sequence=1), waits=True)
    found = await handle(told).status()
    assert found is not None
    assert found.note == "again"
    assert told.asked == [(-1, False)]


async def test_statuses_go_on_after_a_number() -> None:
    told = Told(done())
    async with aclosing(handle(told).statuses(after=7)) as statuses:
        assert [one async for one in statuses] == [done()]
    assert told.asked == [(7, True)]
