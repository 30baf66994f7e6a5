"""Targets: bodies of control messages and statuses, parts of heads that are texts, and answers of other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

from fuzz.targets import Target, check_refusal
from pydantic import BaseModel

from sealbus.agents.edge.http.problem import problem_of
from sealbus.agents.sdk.bodies import JSON, MSGPACK, Body
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.bus.inspection.refused import RefusedMessages
from sealbus.bus.sending import status as statuses
from sealbus.bus.sending.answer import RemoteError, answer_of
from sealbus.bus.sending.approval import APPROVAL_TYPE, encode_approval, parse_approval
from sealbus.bus.sending.cancel import CANCEL_TYPE, encode_cancel, parse_cancel
from sealbus.bus.sending.message import ERROR_TYPE, Content
from sealbus.bus.sending.status import STATUS_TYPE
from sealbus.bus.streams.durability import describe_sync
from sealbus.bus.work.schedules.request import SCHEDULE_TYPE, encode_schedule, parse_schedule
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.denial import remedies_of, via_of
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import (
    BadBody,
    BusUnavailable,
    ConfigurationError,
    Denied,
    PolicyFailed,
    PolicyUnavailable,
)
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.documents import canonical, checked_document, parse_data
from sealbus.policies.opa.wire import parse_reply, parse_single_reply


def approval(data: bytes) -> None:
    """The body of an approval."""
    _reads_back(data, APPROVAL_TYPE, parse_approval, encode_approval)


def cancel(data: bytes) -> None:
    """The body of a cancel."""
    _reads_back(data, CANCEL_TYPE, parse_cancel, encode_cancel)


def schedule(data: bytes) -> None:
    """The body of a schedule, and when it ticks."""
    try:
        request = parse_schedule(data, SCHEDULE_TYPE)
    except BadBody as error:
        check_refusal(error)
        return
    with suppress(ValueError):
        assert parse_schedule(*encode_schedule(request)) == request
    if request.planned is not None:
        with suppress(ValueError):
            request.planned.check_from(1_764_000_000_000_000)


def _reads_back(data: bytes, typ: str, parse: Callable[[bytes, str], object], encode: Callable[..., Content]) -> None:
    try:
        request = parse(data, typ)
    except BadBody as error:
        check_refusal(error)
        return
    assert parse(*encode(request)) == request


def status(data: bytes) -> None:
    """The body of a status, final or not."""
    for fin in (False, True):
        try:
            parsed = statuses.parse(data, STATUS_TYPE, fin=fin, sequence=1)
        except BadBody as error:
            check_refusal(error)
            continue
        assert statuses.parse(*statuses.encode(parsed), fin=fin, sequence=1) == parsed


def denial(data: bytes) -> None:
    """What a denial tells."""
    with suppress(ValueError):
        told = parse_object(data, depth=8)
        remedies_of(told.get("remedy"))
        via_of(told.get("via"))


def error_reply(data: bytes) -> None:
    """An agent's reply that states an error, and what an edge makes of it."""
    header = SimpleNamespace(typ=ERROR_TYPE, iss=SpiffeId("spiffe://example.org/agent/pricing"))
    try:
        answer_of(cast("VerifiedResult", SimpleNamespace(body=data, header=header)))
    except (Denied, RemoteError) as error:
        problem_of(error)


class _Order(BaseModel):
    item: str
    count: int = 1
    notes: list[str] = []
    more: dict[str, float] = {}


_ORDER = Body(_Order)


def handler_body(data: bytes) -> None:
    """The body of a message to a handler, as JSON and as msgpack."""
    for typ in (JSON, MSGPACK):
        try:
            order = _ORDER.decode(data, typ)
        except BadBody as error:
            check_refusal(error)
        else:
            assert _ORDER.decode(*_ORDER.encode(order)) == order


def input_document(data: bytes) -> None:
    """An input document of a record."""
    try:
        checked_document(data)
    except PolicyFailed as error:
        check_refusal(error)
        return
    assert parse_data(canonical(parse_data(data))) == parse_data(data)


def opa_answer(data: bytes) -> None:
    """An answer of OPA, whose status is the first byte."""
    code, body = (200, 401, 500)[data[0] % 3] if data else 200, data[1:]
    for parse in (lambda: parse_reply(code, body, 2), lambda: parse_single_reply(code, body)):
        try:
            parse()
        except (PolicyFailed, PolicyUnavailable) as error:
            check_refusal(error)


def refusals(data: bytes) -> None:
    """The count of refused messages of an agent."""
    RefusedMessages.parse("refusals.inventory", data)


def agent_schema(data: bytes) -> None:
    """The schemas of an agent."""
    try:
        AgentSchema.parse(data)
    except ConfigurationError as error:
        check_refusal(error)


def varz(data: bytes) -> None:
    """The monitoring document of a NATS server."""
    try:
        describe_sync(data)
    except (ConfigurationError, BusUnavailable) as error:
        check_refusal(error)


TARGETS: Mapping[str, Target] = {
    "approval": approval,
    "cancel": cancel,
    "schedule": schedule,
    "status": status,
    "denial": denial,
    "error_reply": error_reply,
    "handler_body": handler_body,
    "input_document": input_document,
    "opa_answer": opa_answer,
    "refusals": refusals,
    "agent_schema": agent_schema,
    "varz": varz,
}
