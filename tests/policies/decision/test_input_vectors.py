"""The vectors of input documents: we and the independent writer ask the same question, and refuse the same documents."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import cast

import pytest
from independent import input_documents as independent
from independent import verify_export
from support.vectors import Given, load, octets
from vectors.issuing import SECOND

from sealbus.bus.gate.authorizer import request_about
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.policies.decision.documents import checked_document
from sealbus.policies.decision.request import NO_RESOURCE, NOT_PARKED, GivenApproval, Parked, Resource, input_document

VECTORS = load("inputs.json")


def approval_of(said: Given) -> GivenApproval:
    time = int(datetime.fromisoformat(said["time"]).timestamp()) * SECOND
    hashes = {name: bytes.fromhex(said[name]) for name in ("message", "record")}
    return GivenApproval(**(said | {"time": time} | hashes))


def ours(case: Given) -> bytes:
    chain = tuple(parse_header(bytes.fromhex(raw)) for raw in case["headers"])
    payload = bytes.fromhex(case["context"]) if case["context"] is not None else None
    arrival = None
    if case["delivery"] is not None:
        arrival = StreamArrival(
            subject=chain[-1].to, header_block=b"", stream="TASKS", sequence=1, stored=case["time"], created=0,
            delivery=case["delivery"],
        )  # fmt: skip
    message = SimpleNamespace(
        header=chain[-1], chain=chain, context=parse_payload(payload) if payload is not None else None, arrival=arrival
    )
    resource = Resource(**case["resource"]) if case["resource"] is not None else NO_RESOURCE
    request = request_about(
        cast("VerifiedMessage", message), case["action"], case["properties"], resource, now=case["time"]
    )
    return input_document(
        replace(
            request,
            approvals=tuple(map(approval_of, case["approvals"])),
            parked=Parked(**case["parked"]) if case["parked"] is not None else NOT_PARKED,
        )
    )


def theirs(case: Given) -> bytes:
    payload = bytes.fromhex(case["context"]) if case["context"] is not None else None
    return independent.input_document(
        [verify_export.read_header(bytes.fromhex(raw)) for raw in case["headers"]],
        verify_export.read_context(payload) if payload is not None else None,
        **{
            name: case[name] for name in ("action", "properties", "resource", "time", "delivery", "approvals", "parked")
        },
    )


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
def test_the_question_about_a_message(case: Given) -> None:
    document = bytes.fromhex(case["document"])
    assert ours(case) == document
    assert theirs(case) == document
    assert checked_document(document) == document
    independent.check_document(document)


@pytest.mark.parametrize("case", VECTORS["reject"], ids=lambda case: case["name"])
def test_what_no_engine_is_asked(case: Given) -> None:
    document = octets(case["document"])
    with pytest.raises(PolicyFailed):
        checked_document(document)
    with pytest.raises(verify_export.Bad):
        independent.check_document(document)
