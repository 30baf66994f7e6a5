"""A parked task: the value in HELD that its agent keeps while the task waits for approval (SPEC.md section 7, "Approvals").

::

    waiting --an approval that the policy lets count--> running --the handler has ended--> ended
       ^  `-- canceled, or denied by the policy -----------------------------------------> ended
       `-------- the policy asks for another approval -----'

One value holds the decision record that denied the task, the message itself, and the verdicts about it. Its place is named by
the hash of the message, so that a task is parked once. Each change names the version that it replaces, so that one of two
changes wins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, Self

from sealbus.bus.ports import Identity
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.encoding.strict_json import deeper_than
from sealbus.envelopes.errors import EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_text, check_uint
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.approval import ApprovalObligation, approval_of
from sealbus.policies.decision.decision import OBLIGATION_NESTING
from sealbus.policies.decision.request import GivenApproval

PARKED_TYPE: Final = "application/vnd.sealbus.parked.v1"
"""Payload type of the signature."""
ENVELOPE_BYTES: Final = 262_144
"""Largest envelope of a parked task."""
INPUT_BYTES: Final = 49_152
"""Largest input document of a parked task: the question about its approval contains it, and has a limit of its own."""
MOST_VERDICTS: Final = 16
"""People whose verdicts on one task are kept."""

_DENIALS: Final = 64
"""Denials that are kept parsed: a task changes several times, its denial never does."""
_OBLIGATION_NESTING: Final = OBLIGATION_NESTING + 1
"""Nesting of obligations with the array around them."""
_VERDICT_TEXTS: Final = ("usr", "idp", "sid", "cid", "acr")
_SUBJECT_TOKENS: Final = 5


class ParkedState(StrEnum):
    """The state of a parked task."""

    WAITING = "waiting"
    RUNNING = "running"
    """An approval has taken it up: the policy is asked again, or its handler runs."""
    ENDED = "ended"


_LIVELIEST: Final = (ParkedState.WAITING, ParkedState.RUNNING, ParkedState.ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedVerdict:
    """The verdict of one person that was decided and recorded. Raises `SealError` for bad fields.

    A withdrawal is kept as well, so that the withdrawn verdict does not count if it is delivered again.

    `user`, `idp`, `session`, `client`, `acr` and `authenticated` (microseconds, 0 if unknown) come from the person's context.
    The control message was stored at `time` (microseconds); `message` is its H(header), `record` the leaf of its decision
    record, `edge` its sender, and `issued` the time at which the credential of the edge was issued.
    """

    verdict: Verdict
    user: str
    idp: str
    session: str
    client: str
    acr: str
    authenticated: int
    time: int
    message: bytes
    record: bytes
    edge: SpiffeId
    issued: int

    def __post_init__(self) -> None:
        for name in ("message", "record"):
            check_bytes(name, getattr(self, name), least=DIGEST_BYTES, most=DIGEST_BYTES)
        for name in ("authenticated", "time", "issued"):
            check_uint(name, getattr(self, name))
        for name in ("user", "idp", "session", "client", "acr"):
            check_text(name, getattr(self, name))

    @property
    def person(self) -> tuple[str, str]:
        """The person, whatever their session and client: the identity provider, and the user of it."""
        return self.idp, self.user

    def given(self) -> GivenApproval:
        """Return the verdict as the policy sees it."""
        return GivenApproval(
            verdict=self.verdict.value,
            user=self.user,
            idp=self.idp,
            session=self.session,
            client=self.client,
            acr=self.acr,
            auth_time=self.authenticated // SECOND,
            time=self.time,
            message=self.message,
            record=self.record,
        )

    def encode(self) -> bytes:
        """Return the verdict as it is stored."""
        return encode(
            {
                "v": 1,
                "vrd": self.verdict.value,
                "usr": self.user,
                "idp": self.idp,
                "sid": self.session,
                "cid": self.client,
                "acr": self.acr,
                "aut": self.authenticated,
                "tim": self.time,
                "msg": self.message,
                "rec": self.record,
                "edg": self.edge.value,
                "iss": self.issued,
            },
            text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
        )

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Parse bytes that `encode` returned. Raises `EnvelopeError`, `SealError` or `ValueError`."""
        keys = RecordMap(decode(raw, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
        user, idp, session, client, acr = [keys.text(name) for name in _VERDICT_TEXTS]
        verdict = cls(
            verdict=Verdict(keys.text("vrd")),
            user=user,
            idp=idp,
            session=session,
            client=client,
            acr=acr,
            authenticated=keys.uint("aut"),
            time=keys.uint("tim"),
            message=keys.octets("msg"),
            record=keys.octets("rec"),
            edge=SpiffeId.parse(keys.text("edg")),
            issued=keys.uint("iss"),
        )
        keys.end()
        return verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A parked task. Raises `SealError` for bad fields.

    `record` is the decision record of its denial, as in the audit log; `envelope` is the message as it came. It waits from
    `since` until `until` (microseconds). `turn` is the number of times that it was taken up, `run` is H(header) of the
    approval that took it up last. `value` is the stored version that this was read from.
    """

    record: bytes = field(repr=False)
    envelope: bytes = field(repr=False)
    since: int
    until: int
    state: ParkedState = ParkedState.WAITING
    turn: int = 0
    run: bytes = b""
    verdicts: tuple[CountedVerdict, ...] = ()
    value: HeldValue | None = field(default=None, repr=False)
    decision: DecisionRecord = field(init=False, repr=False)
    header: Header = field(init=False, repr=False)
    obligation: ApprovalObligation = field(init=False)

    def __post_init__(self) -> None:
        decision, header, obligation = _denial(self.record)
        if len(self.verdicts) > MOST_VERDICTS:
            raise SealError("too many verdicts")
        object.__setattr__(self, "decision", decision)
        object.__setattr__(self, "header", header)
        object.__setattr__(self, "obligation", obligation)

    @property
    def digest(self) -> bytes:
        """H(header) of the task."""
        return self.header.digest

    @property
    def leaf(self) -> bytes:
        """The leaf of the decision record, which names it in the audit log."""
        return leaf_hash(self.record)

    @property
    def requester(self) -> tuple[str, str] | None:
        """The user behind the task, as an identity provider and a user of it; `None` if it has no user."""
        statement = parse_envelope(self.envelope).context
        context = parse_payload(statement.payload) if statement is not None else None
        return (context.idp, context.sub) if context is not None else None

    @property
    def changed(self) -> int:
        """When this version was stored (microseconds); 0 before."""
        return self.value.stored if self.value is not None else 0

    @property
    def arrival(self) -> StreamArrival:
        """The arrival of the task when it was taken up last. Its delivery number is higher than all before."""
        place = self.decision.place
        if not isinstance(place, StreamPlace):
            raise TypeError("only messages from a stream are parked")
        return StreamArrival(
            subject=self.header.to,
            header_block=b"",
            stream=place.stream,
            sequence=place.sequence,
            stored=place.stored,
            created=0,
            delivery=self.decision.delivery + self.turn,
        )

    def taken_up_by(self, approval: bytes) -> bool:
        """Return whether the approval with H(header) `approval` has taken the task up and still has it."""
        return self.state is ParkedState.RUNNING and self.run == approval

    def said_by(self, person: tuple[str, str]) -> CountedVerdict | None:
        """Return the last verdict of a person, who is an identity provider and a user of it; `None` if there is none."""
        return next((verdict for verdict in self.verdicts if verdict.person == person), None)

    def subject(self, agent: str) -> str:
        """Return the subject of the task in HELD; `agent` is the token of its agent."""
        return f"held.{agent}.task.{self.obligation.queue}.{self.digest.hex()}"

    def keys(self) -> dict[str, Value]:
        """Return the keys of the payload, without those that `Held.write` adds."""
        keys: dict[str, Value] = {
            "que": self.obligation.queue,
            "dig": self.digest,
            "rec": self.record,
            "snc": self.since,
            "unt": self.until,
            "sta": self.state.value,
            "trn": self.turn,
            "run": self.run,
        }
        if self.verdicts:
            keys["apr"] = [verdict.encode() for verdict in self.verdicts]
        return keys


def parse_parked(value: HeldValue) -> Parked:
    """Return the parked task in a genuine value. Raises `SealError` if it is no parked task, or belongs to another place."""
    keys = value.keys
    try:
        parked = Parked(
            record=keys.octets("rec"),
            envelope=value.extra,
            since=keys.uint("snc"),
            until=keys.uint("unt"),
            state=ParkedState(keys.text("sta")),
            turn=keys.uint("trn"),
            run=keys.octets("run"),
            verdicts=tuple([CountedVerdict.parse(raw) for raw in keys.some_octets("apr")]),
            value=value,
        )
        queue, digest = keys.text("que"), keys.octets("dig")
        keys.end()
    except (EnvelopeError, ValueError) as error:
        raise SealError("not a parked task") from error
    tokens = value.subject.split(".")
    if len(tokens) != _SUBJECT_TOKENS or (queue, digest) != (parked.obligation.queue, parked.digest):
        raise SealError("a parked task of another place")
    if value.subject != parked.subject(tokens[1]) or parked.header.aud != value.own:
        raise SealError("a parked task of another agent")
    return parked


class ParkedTasks:
    """The parked tasks of one agent, as its processes read and write them."""

    def __init__(self, held: Held, *, identity: Identity, names: Names) -> None:
        self._held = held
        self._identity = identity
        self._token = names.token(identity.spiffe_id)

    async def find(self, digest: bytes) -> Parked | None:
        """Return the task with H(header) `digest` if it is or was parked here, in any queue; else `None`.

        Of several versions in different queues, the version that was taken up most often counts. Among equals a waiting
        version counts: it was moved there. But if none was ever taken up, an ended version counts: the other was parked again
        as if it were new. Raises as `Held.newest` does.
        """
        values = await self._held.newest(f"held.{self._token}.task.*.{digest.hex()}", PARKED_TYPE)
        parked = [task for value in values.values() if (task := _parked_or_none(value)) is not None]
        return min(parked, key=_order, default=None)

    async def create(self, parked: Parked) -> bool:
        """Store a newly parked task; return `False` if a genuine value was in its place. Raises as `Held.write` does."""
        if await self._write(parked, None) is not None:
            return True
        # Bytes of others in its place must not keep the task from being parked.
        value, last = await self._held.standing(parked.subject(self._token), PARKED_TYPE)
        return value is None and await self._write(parked, None, last=last) is not None

    async def create_in_queue(self, parked: Parked) -> bool:
        """Store a task that moves to another queue; return whether it waits there now.

        It may have waited there before, or be there already after a crash. Raises as `Held.write` does.
        """
        if await self._write(parked, None) is not None:
            return True
        value, last = await self._held.standing(parked.subject(self._token), PARKED_TYPE)
        current = _parked_or_none(value) if value is not None else None
        if current is not None and current.state is ParkedState.WAITING:
            return True
        return await self._write(parked, value, last=last) is not None

    async def change(self, before: Parked, after: Parked) -> Parked | None:
        """Replace the version `before` by `after`; return the stored task, or `None` if `before` is no longer current."""
        if before.value is None:
            raise ValueError("only a version that was read can be replaced")
        stored = await self._write(after, before.value)
        return replace(after, value=stored) if stored is not None else None

    async def _write(self, parked: Parked, before: HeldValue | None, *, last: int = 0) -> HeldValue | None:
        return await self._held.write(
            parked.subject(self._token),
            parked.keys(),
            PARKED_TYPE,
            self._identity.sealer(),
            before=before,
            last=last,
            extra=parked.envelope,
        )


@lru_cache(maxsize=_DENIALS)
def _denial(record: bytes) -> tuple[DecisionRecord, Header, ApprovalObligation]:
    """Return the denial in `record`, the header of its task, and the approval that it asks for. Raises `SealError`."""
    try:
        decision = parse_record(record)
    except EnvelopeError as error:
        raise SealError("not a record") from error
    if not isinstance(decision, DecisionRecord) or decision.allow or not isinstance(decision.place, StreamPlace):
        raise SealError("not a denial of a task")
    obligation = approval_of(_obligations(decision.obligations))
    if obligation is None or decision.input is None:
        raise SealError("a denial that asks for no approval")
    return decision, parse_header(decision.header), obligation


def _obligations(recorded: bytes) -> list[dict[str, object]]:
    """Return recorded obligations. Raises `SealError` for other bytes: the signer of a record can write any."""
    try:
        text = recorded.decode()
        listed = json.loads(text or "[]") if not deeper_than(text, _OBLIGATION_NESTING) else None
    except ValueError as error:
        raise SealError("no obligations") from error
    if type(listed) is not list or any(type(obligation) is not dict for obligation in listed):
        raise SealError("no obligations")
    return listed


def _parked_or_none(value: HeldValue) -> Parked | None:
    try:
        return parse_parked(value)
    except SealError:
        return None


def _order(parked: Parked) -> tuple[int, int, int]:
    states = _LIVELIEST if parked.turn else _LIVELIEST[::-1]
    return -parked.turn, states.index(parked.state), parked.since


def counted(verdicts: Sequence[CountedVerdict], verdict: CountedVerdict) -> tuple[CountedVerdict, ...]:
    """Return `verdicts` with `verdict` in place of an earlier verdict of the same person."""
    return (*without(verdicts, verdict.person), verdict)


def without(verdicts: Sequence[CountedVerdict], person: tuple[str, str]) -> tuple[CountedVerdict, ...]:
    """Return `verdicts` without the verdict of `person`, an identity provider and a user of it."""
    return tuple([known for known in verdicts if known.person != person])
