"""How statuses and results are printed, and which exit a task's end is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import cast

import click
import pytest

from sealbus.agents.cli.bus.task import finish, print_status
from sealbus.agents.sdk.bodies import JSON, OCTETS
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PartsTally
from sealbus.bus.sending.status import State, Status, sequence_of
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Denied, HandlingError


class Told:
    """Stands for a handle that has been told everything, or still waits."""

    action = "pricing.update"

    def __init__(self, *statuses: Status, waits: bool = False) -> None:
        self.told = statuses
        self.waits = waits

    def __str__(self) -> str:
        return "its-handle"

    async def statuses(self) -> AsyncGenerator[Status, None]:
        for status in self.told:
            yield status
        if self.waits:
            await asyncio.Event().wait()


async def finished(told: Told, *, as_json: bool = False, wait: float = 10.0) -> None:
    await finish(cast("TaskHandle", told), wait, as_json=as_json)


WORKING = Status(state=State.WORKING)


def done(body: bytes, typ: str = JSON) -> Status:
    return Status(state=State.COMPLETED, result=Content(body=body, typ=typ), sequence=1)


async def test_a_result_is_printed_alone(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    await finished(Told(WORKING, done(b'{"item": "\xc3\xa4"}')))
    await finished(Told(done(b"\x00\xff", OCTETS)))
    assert capsysbinary.readouterr().out == b'{"item":"\xc3\xa4"}\n\x00\xff'


def piece(number: int, body: bytes, delivery: int = 1) -> Status:
    part = Content(body=body, typ=JSON)
    return Status(state=State.WORKING, part=part, number=number, sequence=sequence_of(delivery, number))


async def test_the_parts_of_a_result_are_printed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    tally = PartsTally()
    for body in (b'"a"', b'"b"'):
        tally.add(Content(body=body, typ=JSON))
    whole = Status(state=State.COMPLETED, result=tally.result(), sequence=200_000)
    told = Told(piece(0, b'"x"'), piece(0, b'"a"', 2), piece(1, b'"b"', 2), whole)
    await finished(told)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ['"x"', '"a"', '"b"']
    assert "begin again" in printed.err
    await finished(told, as_json=True)
    assert json.loads(capsys.readouterr().out)["result"] == ["a", "b"]
    print_status(piece(0, b'"x"'), as_json=False)
    print_status(piece(0, b'"x"'), as_json=True)
    print_status(whole, as_json=True)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == '"x"'
    assert (json.loads(second)["part"], json.loads(second)["value"]) == (0, "x")
    assert json.loads(third)["result"]["parts"] == 2
    with pytest.raises(HandlingError):
        await finished(Told(piece(0, b'"a"'), whole))


async def test_as_json_it_is_all_of_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    await finished(Told(done(b"[1]")), as_json=True)
    await finished(Told(done(b"\x00", OCTETS)), as_json=True)
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first == {"state": "completed", "final": True, "sequence": 1, "type": JSON, "result": [1]}
    assert (second["type"], second["result"]) == (OCTETS, "AA==")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status(state=State.REJECTED, code="denied", reasons=("not_owner",)), Denied),
        (Status(state=State.FAILED, code="handler_failed", note="gave up"), RemoteError),
        (Status(state=State.EXPIRED, code="expired"), CallExpired),
    ],
)
async def test_every_other_end_is_an_error(
    status: Status, error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error):
        await finished(Told(status))
    assert capsys.readouterr().out == ""
    with pytest.raises(error):
        await finished(Told(status), as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["code"]) == (status.state, status.code)
    assert said.get("reasons", []) == list(status.reasons)
    assert said.get("note", "") == status.note


def test_a_denied_status_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    remedies = (Remedy(kind=RemedyKind.LOGIN, max_age=300),)
    status = Status(state=State.REJECTED, code="denied", reasons=("late",), remedies=remedies)
    print_status(status, as_json=False)
    assert capsys.readouterr().out == "rejected  denied  late\n  to do: log in again: sealbus login --max-age 300\n"
    print_status(status, as_json=True)
    assert json.loads(capsys.readouterr().out)["remedy"] == [{"kind": "login", "max_age": 300}]


async def test_who_waits_in_vain_is_told_the_handle() -> None:
    with pytest.raises(click.ClickException, match=r"pricing.update: not done within 0.01 s.*its-handle"):
        await finished(Told(WORKING, waits=True), wait=0.01)
