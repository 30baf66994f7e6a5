"""The body of the task on `control.<owner>.schedule`, which says what to send and when: composed and parsed. Pure.

::

    {"v":1,"name":"nightly","state":"on","do":{...},"when":{...},"overlap":"skip","catchup":60,"until":...}
    {"v":1,"name":"nightly","state":"paused"}            paused, removed, or on again, otherwise unchanged
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.work.schedules.rule import When, parse_when, when_json
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import is_grant
from sealbus.envelopes.message.kinds import RULES, Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

SCHEDULE_TYPE: Final = "application/vnd.sealbus.schedule.v1+json"
"""Media type of the body."""

BODY_BYTES: Final = 49_152
"""Most bytes of the body of each task."""
CATCHUP: Final = 60
"""Seconds that a tick may be late, by default."""
LASTS: Final = 366 * 86_400 * SECOND
"""Microseconds that a workload's schedule lasts at most, and by default."""

_BYTES: Final = 65_536
"""Most bytes of the message's body, so that the decision record holds it."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LIFE: Final = 3_600 * SECOND
"""Microseconds that the message may wait for its owner."""
_LONGEST: Final = 86_400
_SHORT: Final = frozenset({"v", "name", "state"})
_WHOLE: Final = _SHORT | {"do", "when", "overlap", "catchup", "until"}
_DO: Final = frozenset({"action", "typ", "partition", "grants", "life"})


class Overlap(StrEnum):
    """What happens to a tick if the task of the tick before has not ended."""

    SKIP = "skip"
    """The tick is left out."""
    QUEUE = "queue"
    """The tick waits. If several wait, the newest is sent."""


class ScheduleState(StrEnum):
    """Whether a schedule ticks."""

    ON = "on"
    PAUSED = "paused"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The task that is sent at each tick, and the times of ticks. Raises `ValueError`.

    `action` is `<agent>.<verb>`, or an own subject. Each task may wait for `life` seconds, and each tick may be late by
    `catchup` seconds. There are no ticks from `until` (microseconds) on.
    """

    action: str
    body: Content
    when: When
    until: int
    partition: str | None = None
    grants: tuple[str, ...] | None = None
    life: int | None = None
    overlap: Overlap = Overlap.SKIP
    catchup: int = CATCHUP

    def __post_init__(self) -> None:
        if not is_grant(self.action) or self.action.endswith("*") or "._" in self.action:
            raise ValueError("the action is <agent>.<verb>, or an own subject")
        if len(self.body.body) > BODY_BYTES:
            raise ValueError(f"the body of a task of a schedule has at most {BODY_BYTES} bytes")
        if not is_text(self.body.typ):
            raise ValueError("the media type is a short text")
        if self.partition is not None and not is_text(self.partition):
            raise ValueError("a partition is a short text")
        if self.grants is not None and (
            len(self.grants) > DEFAULT_LIMITS.text_items or not all(map(is_grant, self.grants))
        ):
            raise ValueError("grants are actions, or p.* for all that start with p.")
        if self.life is not None and (type(self.life) is not int or not 1 <= self.life <= _LONGEST):
            raise ValueError(f"life is 1 to {_LONGEST} whole seconds")
        if type(self.catchup) is not int or not 0 <= self.catchup <= _LONGEST:
            raise ValueError(f"catchup is 0 to {_LONGEST} whole seconds")
        if type(self.until) is not int or not 0 <= self.until <= DEFAULT_LIMITS.max_integer:
            raise ValueError("until is a time in microseconds")

    def check_from(self, now: int) -> None:
        """Raise `ValueError` if this cannot be asked for at `now` (microseconds): it lasts too long, or never ticks."""
        if not now < self.until <= now + LASTS + DEFAULT_LIMITS.clock_skew:
            raise ValueError("until is in the future, and at most 366 days away")
        first = self.when.after(now - _LIFE - DEFAULT_LIMITS.clock_skew)
        if first is None or first >= self.until:
            raise ValueError("it never ticks")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRequest:
    """A request to the owner: store this schedule or, without `planned`, change the state of the schedule that is there.

    Raises `ValueError`.
    """

    name: str
    state: ScheduleState = ScheduleState.ON
    planned: Planned | None = None

    def __post_init__(self) -> None:
        if not is_schedule_name(self.name):
            raise ValueError("a schedule's name is 1 to 64 letters, digits, _ and -")
        if self.planned is not None and self.state is not ScheduleState.ON:
            raise ValueError("a schedule that is paused or removed keeps what it does")


def is_schedule_name(text: str) -> bool:
    """Return whether a schedule may have this name: the name is a token of subjects."""
    return _NAME.fullmatch(text) is not None


def encode_schedule(request: ScheduleRequest) -> Content:
    """Return the body of `request`. Raises `ValueError` if it is too long."""
    document: dict[str, Json] = {"v": 1, "name": request.name, "state": request.state.value}
    if (planned := request.planned) is not None:
        document |= {
            "do": {
                "action": planned.action,
                "typ": planned.body.typ,
                **_shown(planned.body.body),
                "partition": planned.partition,
                "grants": list(planned.grants) if planned.grants is not None else None,
                "life": planned.life,
            },
            "when": when_json(planned.when),
            "overlap": planned.overlap.value,
            "catchup": planned.catchup,
            "until": planned.until,
        }
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > _BYTES:
        raise ValueError(f"the schedule has over {_BYTES} bytes with the body of its task")
    return Content(body=body, typ=SCHEDULE_TYPE)


def parse_schedule(body: bytes, typ: str) -> ScheduleRequest:
    """Parse a body; raise `BadBody` for an invalid one."""
    if typ != SCHEDULE_TYPE or len(body) > _BYTES:
        raise BadBody("not a schedule")
    try:
        return _parsed(parse_object(body, depth=3))
    except ValueError as error:
        raise BadBody(f"the schedule is not well-formed: {error}") from error


def schedule_message(
    request: ScheduleRequest, *, owner: SpiffeId, names: Names, statement: Statement | None = None
) -> OutgoingMessage:
    """Return the message that sends `request` to `owner`; with a `statement`, on behalf of its user.

    The message follows from no other: a schedule goes on if the work that asked for it is canceled. Raises `ValueError` as
    `encode_schedule` does, `EnvelopeError` for a payload that is not a user context.
    """
    body = encode_schedule(request)
    context = parse_payload(statement.payload) if statement is not None else None
    return OutgoingMessage(
        Draft(
            kind=Kind.TASK,
            to=control_subject(names.token(owner), "schedule"),
            aud=owner,
            body=body.body,
            typ=body.typ,
            context=statement,
        ),
        life=_LIFE,
        end_after=min(_LIFE, RULES[Kind.TASK].life),
        end_at=context.end if context is not None else None,
        not_before=context.iat if context is not None else 0,
    )


def _shown(body: bytes) -> dict[str, Json]:
    """Return a body, as text if it is text, for people who read the record."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


def _parsed(document: dict[str, Json]) -> ScheduleRequest:
    version, name, state = document.get("v"), document.get("name"), document.get("state")
    if type(version) is not int or version != 1 or not isinstance(name, str) or not isinstance(state, str):
        raise ValueError("v, name or state")
    if document.keys() == _SHORT:
        return ScheduleRequest(name=name, state=ScheduleState(state))
    if document.keys() != _WHOLE:
        raise ValueError("unknown or missing members")
    do, overlap, catchup, until = document["do"], document["overlap"], document["catchup"], document["until"]
    if not isinstance(do, dict) or not isinstance(overlap, str) or type(catchup) is not int or type(until) is not int:
        raise ValueError("do, overlap, catchup or until")
    action, typ = do.get("action"), do.get("typ")
    partition, grants, life = do.get("partition"), do.get("grants"), do.get("life")
    if do.keys() not in (_DO | {"text"}, _DO | {"base64"}) or not isinstance(action, str) or not isinstance(typ, str):
        raise ValueError("members of do")
    if not isinstance(partition, str | None) or not (life is None or type(life) is int):
        raise ValueError("partition or life")
    if not (grants is None or isinstance(grants, list)):
        raise ValueError("grants")
    texts = [grant for grant in grants or () if isinstance(grant, str)]
    if len(texts) != len(grants or ()):
        raise ValueError("grants")
    planned = Planned(
        action=action,
        body=Content(body=_body(do), typ=typ),
        when=parse_when(document["when"]),
        until=until,
        partition=partition,
        grants=tuple(texts) if grants is not None else None,
        life=life,
        overlap=Overlap(overlap),
        catchup=catchup,
    )
    return ScheduleRequest(name=name, state=ScheduleState(state), planned=planned)


def _body(do: dict[str, Json]) -> bytes:
    text, base64 = do.get("text"), do.get("base64")
    if isinstance(text, str):
        return text.encode()
    if isinstance(base64, str):
        body = b64decode(base64, validate=True)
        if b64encode(body).decode() != base64:
            raise ValueError("base64 that is not canonical")
        return body
    raise ValueError("the body is a text or base64")
