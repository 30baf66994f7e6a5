"""Dead letters: found again with the reason that their agent gave, sent again as new messages, and dropped.

A dead letter is the message as its agent received it. The same bytes cannot be delivered again (SPEC.md section 7): step 6
refuses a copy that is stored more than 60 s after it was made, and the requester has counted the final status. So what is
sent again is a new task under the identity of whoever sends it, which goes through all steps.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from sealbus.bus.inspection.backwards import WINDOW, backwards, read_on
from sealbus.bus.inspection.tasks import user_of, verified
from sealbus.bus.nats.api import api
from sealbus.bus.ports import Delivery, Request, Transport
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.stream_names import DEAD, EVENTS, SUBJECTS
from sealbus.bus.work.executor.dead_letters import DEAD_EVENT
from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import event_subject
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.message.wire import Envelope, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names, is_token
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["DROPPED_EVENT", "DeadLetter", "DeadLetterList", "Death", "dead_subjects", "drop", "sent_again"]

DROPPED_EVENT: Final = "dropped"
"""Name of the event, sent on `event.<who dropped>.dropped` before the letter is deleted."""

FORGOTTEN: Final = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN})
"""Of a message that may have been genuine: the bundles of now do not have its key, and may have had it."""

EVENT_LIFE: Final = 3_600 * SECOND
STORE_WITHIN: Final = 10.0
_NESTING: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Why a message became a dead letter, as its agent says in a sealed event that verifies; `deliveries` is its count."""

    code: str
    detail: str
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter as stored. `refused` is the code with which it does not verify; empty if it does.

    It verifies if its agent, whose token `subject` has, would have accepted it when it was made (its `iat`), by the trust
    bundles of now. `message` is there only then. Times are microseconds.
    """

    sequence: int
    stored: int
    subject: str
    payload: bytes = field(repr=False)
    envelope: Envelope | None = field(default=None, repr=False)
    header: Header | None = None
    user: str = ""
    refused: str = ""
    message: VerifiedMessage | None = field(default=None, repr=False)
    death: Death | None = None

    @property
    def agent(self) -> str:
        """The token of the agent that could not handle it, under whose name it is stored."""
        return self.subject.split(".")[1]

    def is_called(self, name: bytes) -> bool:
        """Return whether `name` is its message's id or hash."""
        return self.header is not None and name in (self.header.id, self.header.digest)


class DeadLetterList:
    """Reads dead letters; `profile` is that of any reader of the deployment, `trust` gives the bundles as they are now."""

    def __init__(
        self,
        *,
        transport: Transport,
        profile: LiveProfile,
        trust: Callable[[], Trust],
        window: int = WINDOW,
    ) -> None:
        self._transport = transport
        self._profile = profile
        self._trust = trust
        self._window = window
        self._caches = Caches()

    async def newest(
        self, subjects: Sequence[str], *, first: int, last: int, most: int
    ) -> AsyncGenerator[DeadLetter, None]:
        """Yield the newest `most` dead letters on `subjects`, the newest first, without their bytes.

        `first` and `last` are sequences of DEAD. Raises `BusUnavailable`, or `ConfigurationError` if a stream is missing.
        """
        left = most
        source = backwards(
            self._transport, DEAD, subjects, first=first, last=last, keep=self._found, window=self._window
        )
        async with aclosing(source) as windows:
            async for window in windows:
                for letter in reversed(await self._with_reasons(await self._judged(window[-left:]))):
                    yield letter
                left -= len(window)
                if left <= 0:
                    return

    async def find(self, name: int | bytes, *, first: int, last: int) -> DeadLetter:
        """Return one dead letter with its bytes, by its sequence, or by its message's id or hash.

        Raises `ConfigurationError` if there is none, or several of different messages have that id; else as `newest`.
        """
        sequence = name if isinstance(name, int) else await self._sequence_of(name, first, last)
        async with aclosing(read_on(self._transport, DEAD, [SUBJECTS[DEAD]], start=sequence)) as deliveries:
            async for delivery in deliveries:
                if delivery.arrival is not None and delivery.arrival.sequence == sequence:
                    [letter] = await self._with_reasons([self._letter(delivery)])
                    return letter
                break
        raise ConfigurationError(f"there is no dead letter #{sequence}")

    async def _sequence_of(self, name: bytes, first: int, last: int) -> int:
        found: dict[bytes, int] = {}
        source = backwards(
            self._transport,
            DEAD,
            [SUBJECTS[DEAD]],
            first=first,
            last=last,
            keep=self._found,
            window=self._window,
        )
        async with aclosing(source) as windows:
            async for window in windows:
                for one in reversed(window):
                    if one.header is not None and one.is_called(name):
                        found.setdefault(one.header.digest, one.sequence)
        if not found:
            raise ConfigurationError("there is no dead letter of that message")
        if len(found) > 1:
            numbers = ", ".join(f"#{one}" for one in sorted(found.values()))
            raise ConfigurationError(f"several messages have that id: give the number of one ({numbers})")
        return next(iter(found.values()))

    async def _judged(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return `letters`, each verified: read once more, since no window of payloads is kept."""
        judged = {one.sequence: replace(one, refused="gone") for one in letters}
        last = letters[-1].sequence
        source = read_on(self._transport, DEAD, [SUBJECTS[DEAD]], start=letters[0].sequence)
        async with aclosing(source) as deliveries:
            async for delivery in deliveries:
                sequence = delivery.arrival.sequence if delivery.arrival is not None else 0
                if sequence in judged:
                    judged[sequence] = _without_bytes(self._letter(delivery))
                if sequence >= last:
                    break
        return list(judged.values())

    def _found(self, delivery: Delivery) -> DeadLetter:
        """Return a dead letter that is not verified, without its bytes."""
        return _without_bytes(self._parsed(delivery))

    def _letter(self, delivery: Delivery) -> DeadLetter:
        letter = self._parsed(delivery)
        if letter.header is None:
            return letter
        try:
            return replace(letter, message=self._verified(letter, letter.header, delivery.header_block))
        except EnvelopeError as error:
            return replace(letter, refused=str(error.code))

    def _parsed(self, delivery: Delivery) -> DeadLetter:
        position = delivery.arrival
        letter = DeadLetter(
            sequence=position.sequence if position is not None else 0,
            stored=position.stored if position is not None else 0,
            subject=delivery.subject,
            payload=delivery.payload,
        )
        try:
            envelope = parse_envelope(delivery.payload, self._profile.formats)
            header = parse_header(envelope.header)
        except EnvelopeError as error:
            return replace(letter, refused=str(error.code))
        return replace(letter, envelope=envelope, header=header, user=user_of(envelope))

    def _verified(self, letter: DeadLetter, header: Header, block: bytes) -> VerifiedMessage:
        if header.aud is not None and self._profile.names.token(header.aud) != letter.agent:
            # Another than the one that it was for has stored it: it may be anything that was ever captured.
            raise EnvelopeError(Code.WRONG_AUDIENCE, 4)
        arrival = StreamArrival(header.to, block, DEAD, letter.sequence, stored=header.iat, created=0, delivery=1)
        return verified(letter.payload, arrival, self._profile, trust=self._trust(), caches=self._caches)

    async def _with_reasons(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return `letters` with the reasons that their agents gave, as far as EVENTS still holds them."""
        named = [one for one in letters if one.header is not None and is_token(one.agent)]
        if not named:
            return list(letters)
        wanted = {one.header.digest for one in named if one.header is not None}
        subjects = sorted({event_subject(one.agent, DEAD_EVENT) for one in named})
        since = min(one.stored for one in letters) - DEFAULT_LIMITS.clock_skew
        found: dict[tuple[str, bytes], Death] = {}
        async with aclosing(read_on(self._transport, EVENTS, subjects, since=max(since, 1))) as deliveries:
            async for delivery in deliveries:
                said = self._reason(delivery, wanted)
                if said is not None:
                    found[delivery.subject.split(".")[1], said[0]] = said[1]
        return [
            replace(one, death=found.get((one.agent, one.header.digest))) if one.header is not None else one
            for one in letters
        ]

    def _reason(self, delivery: Delivery, wanted: set[bytes]) -> tuple[bytes, Death] | None:
        """Return whose reason an event is, and the reason; None for what does not verify or is about another message."""
        if delivery.arrival is None:
            return None
        try:
            header = parse_header(parse_envelope(delivery.payload, self._profile.formats).header)
            if header.re is None or header.re not in wanted:
                return None
            event = verified(
                delivery.payload, delivery.arrival, self._profile, trust=self._trust(), caches=self._caches
            )
            said = parse_object(event.body, depth=_NESTING)
        except (EnvelopeError, ValueError):
            return None
        code, detail, deliveries = said.get("code"), said.get("detail"), said.get("deliveries")
        if type(code) is not str or type(detail) is not str or type(deliveries) is not int:
            return None
        return header.re, Death(code=code, detail=detail, deliveries=deliveries)


def _without_bytes(letter: DeadLetter) -> DeadLetter:
    return replace(letter, payload=b"", envelope=None, message=None)


def dead_subjects(names: Names, agent: SpiffeId | None = None) -> tuple[str, ...]:
    """Return the filter of the subjects on which dead letters of `agent` are stored, or all of them."""
    return (SUBJECTS[DEAD] if agent is None else f"dead.{names.token(agent)}.>",)


def sent_again(
    letter: DeadLetter, own: SpiffeId, *, now: int, without_user: bool = False, unverified: bool = False
) -> OutgoingMessage:
    """Return the task that sends a dead letter again under the identity `own`: a new message whose `re` names the dead one.

    Subject, audience, body and its types, lives and trace are the same; `grt` allows what the dead message and all its
    ancestors allowed. The user's context goes along only where the chain may start with it again: the dead message began
    its chain, `own` is whom the context was minted for, and it is before the context's `exp`. `idm` is the dead one's if
    `own` sent it, otherwise the same for each time that it is sent again: under `once` its effect happens once.

    Raises `EnvelopeError` with the letter's code if it does not verify, unless `unverified` and its key is merely unknown by
    now; `ConfigurationError` for an event, and if the user would get lost without `without_user`.
    """
    envelope, header = letter.envelope, letter.header
    if letter.refused and not (unverified and letter.refused in FORGOTTEN):
        raise EnvelopeError(Code(letter.refused), 0, f"dead letter #{letter.sequence}")
    if envelope is None or header is None or header.aud is None or header.kind is not Kind.TASK:
        raise ConfigurationError(
            f"dead letter #{letter.sequence} is an event, which all who listen would have again: its sender has to emit it"
        )
    context = parse_payload(envelope.context.payload) if envelope.context is not None else None
    lost = _why_lost(header, context, own, now) if context is not None else ""
    if lost and not without_user:
        raise ConfigurationError(
            f"dead letter #{letter.sequence} was for a user, and {lost}: give --without-user to send it for nobody, or have "
            "its sender send it"
        )
    carried = context is not None and not lost
    return OutgoingMessage(
        Draft(
            kind=Kind.TASK,
            to=header.to,
            aud=header.aud,
            body=envelope.body,
            typ=header.typ,
            sch=header.sch,
            context=envelope.context if carried else None,
            re=header.digest,
            grt=_grants([header, *(parse_header(one.header) for one in envelope.ancestors)]),
            idm=header.idm if own == header.iss else header.digest.hex(),
            tid=header.tid,
            ext=header.ext,
        ),
        life=header.exp - header.iat,
        end_after=(header.end or header.exp) - header.iat,
        end_at=context.end if carried and context is not None else None,
        not_before=context.iat if carried and context is not None else 0,
    )


def _why_lost(header: Header, context: UserContext, own: SpiffeId, now: int) -> str:
    """Return why no chain of `own` may start with `context` now (SPEC.md section 7, step 11); empty if one may."""
    if header.par is not None:
        return "it followed from another message, whose chain cannot be started again"
    if own != (context.wkl or context.iss):
        return "its context is for another workload than you"
    if now >= context.exp:
        return "no chain may start with its context any more"
    return ""


def _grants(chain: Iterable[Header]) -> tuple[str, ...] | None:
    """Return what all of `chain` let follow, as one list of grants; None for no limit."""
    common: tuple[str, ...] | None = None
    for header in chain:
        if header.grt is None:
            continue
        if common is None:
            common = header.grt
            continue
        both = [one for one in common if _within(one, header.grt)] + [one for one in header.grt if _within(one, common)]
        common = tuple(dict.fromkeys(both))[: DEFAULT_LIMITS.text_items]
    return common


def _within(grant: str, grants: Iterable[str]) -> bool:
    """Return whether everything that `grant` covers is covered by one of `grants`."""
    return any(grant == one or (one.endswith(".*") and covers((one,), grant.removesuffix(".*"))) for one in grants)


async def drop(letter: DeadLetter, outbox: Outbox, request: Request, token: str) -> Posted:
    """Publish on `event.<token>.dropped` which letter is dropped, then delete it from DEAD; return the event.

    `token` is our own. If it was interrupted in between, the letter is still there and can be dropped again. Raises
    `StreamRefused` if the server does not delete it, `BusUnavailable`, and as `Outbox.publish`.
    """
    header = letter.header
    said = {
        "sequence": letter.sequence,
        "subject": letter.subject,
        "stored": letter.stored,
        "sha256": sha256(letter.payload).hexdigest(),
        "message": header.id.hex() if header is not None else "",
        "from": header.iss.value if header is not None else "",
    }
    posted = await outbox.publish(
        OutgoingMessage(
            Draft(
                kind=Kind.EVENT,
                to=event_subject(token, DROPPED_EVENT),
                body=json.dumps(said, separators=(",", ":")).encode(),
                typ="application/json",
                re=header.digest if header is not None else None,
                tid=header.tid if header is not None else None,
            ),
            life=EVENT_LIFE,
        ),
        within=STORE_WITHIN,
    )
    answer = await api(request, f"STREAM.MSG.DELETE.{DEAD}", {"seq": letter.sequence})
    if answer.get("success") is not True:
        raise BusUnavailable(f"dead letter #{letter.sequence}: the server does not say that it was deleted")
    return posted
