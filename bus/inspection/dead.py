"""Dead letters: list them with the reasons that their agents gave, send them again as new messages, and drop them.

A dead letter is the message as its agent received it. The same bytes cannot be delivered again (SPEC.md section 7): step 6
refuses a copy that is stored more than 60 s after it was made, and the requester has counted the final status. So a letter is
sent again as a new task, under the identity of its new sender, and the new task goes through all steps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from sealbus.bus.inspection.backwards import WINDOW, backwards, read_on
from sealbus.bus.inspection.documents import LetterDocument, shown_time
from sealbus.bus.inspection.tasks import user_of, verified
from sealbus.bus.nats.api import api, existing_stream
from sealbus.bus.ports import Delivery, Request, Transport
from sealbus.bus.sending.message import OutgoingMessage, event_of
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.stream_names import DEAD, EVENTS, SUBJECTS
from sealbus.bus.work.executor.dead_letters import DEAD_EVENT
from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.declaration import without_declaration
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

DROPPED_EVENT: Final = "dropped"
"""Name of the event that an operator sends, on `event.<operator>.dropped`, before the letter is deleted."""

FORGOTTEN: Final = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN})
"""Codes of messages that may have been genuine: the current bundles do not have the key, but earlier ones may have had it."""

STORE_WITHIN: Final = 10.0
_NESTING: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Why a message became a dead letter, from a verified event of its agent. `deliveries` is the agent's count."""

    code: str
    detail: str
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter as stored. `refused` is the code of the failed verification; empty if the letter verifies.

    A letter verifies if its agent (the token in `subject`) would have accepted it at its `iat`, with the current trust
    bundles. Only then `message` is set. Times are microseconds.
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
        """The token of the agent that could not handle the message, from the subject of the letter."""
        return self.subject.split(".")[1]

    def is_called(self, name: bytes) -> bool:
        """Return whether `name` is the id or the hash of the letter's message."""
        return self.header is not None and name in (self.header.id, self.header.digest)

    def document(self) -> LetterDocument:
        """Return the letter as JSON, without its body."""
        header, death = self.header, self.death
        document: LetterDocument = {
            "sequence": self.sequence,
            "subject": self.subject,
            "time": shown_time(self.stored),
            "agent": self.agent,
            "verified": not self.refused,
            "refused": self.refused,
            "code": death.code if death is not None else "",
            "detail": death.detail if death is not None else "",
            "deliveries": death.deliveries if death is not None else 0,
        }
        if header is not None:
            document |= {
                "kind": str(header.kind),
                "message": header.id.hex(),
                "hash": header.digest.hex(),
                "to": header.to,
                "from": str(header.iss),
                "user": self.user,
                "made": shown_time(header.iat),
                "until": shown_time(header.exp),
                "type": header.typ,
                "re": header.re.hex() if header.re is not None else "",
            }
        if self.message is not None:
            document["chain"] = [{"from": str(link.iss), "to": link.to} for link in self.message.chain]
        return document


class DeadLetterList:
    """Reads dead letters. `profile` may be of any reader of the deployment; `trust` returns the current bundles."""

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

    async def listed(self, request: Request, agent: SpiffeId | None, *, most: int) -> AsyncGenerator[DeadLetter, None]:
        """Yield the newest `most` dead letters of `agent`, or without an agent of all. Raises as `newest` does."""
        state = await existing_stream(request, DEAD)
        subjects = dead_subjects(self._profile.names, agent)
        async with aclosing(self.newest(subjects, first=state.first, last=state.last, most=most)) as letters:
            async for letter in letters:
                yield letter

    async def newest(
        self, subjects: Sequence[str], *, first: int, last: int, most: int
    ) -> AsyncGenerator[DeadLetter, None]:
        """Yield the newest `most` dead letters on `subjects`, the newest first, without their bytes.

        `first` and `last` are sequences of DEAD. Raises `BusUnavailable`, or `ConfigurationError` if a stream is missing.
        """
        left = most
        async with aclosing(self._windows(subjects, first, last)) as windows:
            async for window in windows:
                for letter in reversed(await self._with_reasons(await self._judged(window[-left:]))):
                    yield letter
                left -= len(window)
                if left <= 0:
                    return

    async def find_letter(self, name: int | bytes, *, first: int, last: int) -> DeadLetter:
        """Return one dead letter with its bytes, by its sequence, or by its message's id or hash.

        Raises `ConfigurationError` if there is no such letter, or if different messages have that id; otherwise as `newest`.
        """
        sequence = name if isinstance(name, int) else await self._sequence_of(name, first, last)
        async with aclosing(read_on(self._transport, DEAD, [SUBJECTS[DEAD]], start=sequence)) as deliveries:
            async for delivery in deliveries:
                if delivery.sequence == sequence:
                    [letter] = await self._with_reasons([self._letter(delivery)])
                    return letter
                break
        raise ConfigurationError(f"there is no dead letter #{sequence}")

    async def _sequence_of(self, name: bytes, first: int, last: int) -> int:
        sequences: dict[bytes, int] = {}
        async with aclosing(self._windows([SUBJECTS[DEAD]], first, last)) as windows:
            async for window in windows:
                for letter in reversed(window):
                    if letter.header is not None and letter.is_called(name):
                        sequences.setdefault(letter.header.digest, letter.sequence)
        if not sequences:
            raise ConfigurationError("there is no dead letter of that message")
        if len(sequences) > 1:
            numbers = ", ".join(f"#{number}" for number in sorted(sequences.values()))
            raise ConfigurationError(f"several messages have that id: give the number of one ({numbers})")
        return next(iter(sequences.values()))

    def _windows(self, subjects: Sequence[str], first: int, last: int) -> AsyncGenerator[list[DeadLetter], None]:
        return backwards(self._transport, DEAD, subjects, first=first, last=last, keep=self._found, window=self._window)

    async def _judged(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Verify `letters`. They are read from the stream once more, because the payloads of a window are not kept."""
        judged = {letter.sequence: replace(letter, refused="gone") for letter in letters}
        last = letters[-1].sequence
        source = read_on(self._transport, DEAD, [SUBJECTS[DEAD]], start=letters[0].sequence)
        async with aclosing(source) as deliveries:
            async for delivery in deliveries:
                if delivery.sequence in judged:
                    judged[delivery.sequence] = _without_bytes(self._letter(delivery))
                if delivery.sequence >= last:
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
            # Not the audience stored this letter, but another agent: its bytes may be any captured message.
            raise EnvelopeError(Code.WRONG_AUDIENCE, 4)
        arrival = StreamArrival(header.to, block, DEAD, letter.sequence, stored=header.iat, created=0, delivery=1)
        return verified(letter.payload, arrival, self._profile, trust=self._trust(), caches=self._caches)

    async def _with_reasons(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return `letters` with the reasons that their agents gave, if EVENTS still holds these."""
        named = [letter for letter in letters if letter.header is not None and is_token(letter.agent)]
        if not named:
            return list(letters)
        wanted = {letter.header.digest for letter in named if letter.header is not None}
        subjects = sorted({event_subject(letter.agent, DEAD_EVENT) for letter in named})
        since = min(letter.stored for letter in letters) - DEFAULT_LIMITS.clock_skew
        deaths: dict[tuple[str, bytes], Death] = {}
        async with aclosing(read_on(self._transport, EVENTS, subjects, since=max(since, 1))) as deliveries:
            async for delivery in deliveries:
                reason = self._reason(delivery, wanted)
                if reason is not None:
                    deaths[delivery.subject.split(".")[1], reason[0]] = reason[1]
        return [
            replace(letter, death=deaths.get((letter.agent, letter.header.digest)))
            if letter.header is not None
            else letter
            for letter in letters
        ]

    def _reason(self, delivery: Delivery, wanted: set[bytes]) -> tuple[bytes, Death] | None:
        """Return the hash of the message that an event is about, and the reason in it.

        Returns None for an event that does not verify or is about another message.
        """
        if delivery.arrival is None:
            return None
        try:
            header = parse_header(parse_envelope(delivery.payload, self._profile.formats).header)
            if header.re is None or header.re not in wanted:
                return None
            event = verified(
                delivery.payload, delivery.arrival, self._profile, trust=self._trust(), caches=self._caches
            )
            content = parse_object(event.body, depth=_NESTING)
        except (EnvelopeError, ValueError):
            return None
        code, detail, deliveries = content.get("code"), content.get("detail"), content.get("deliveries")
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
    """Return a new task of `own` that repeats a dead letter; its `re` names the dead message.

    Subject, audience, body with its types, lives and trace are the same. `grt` allows what the dead message and all its
    ancestors allowed. The user's context is included only where a chain may start with it again: the dead message began its
    chain, the context was minted for `own`, and `now` is before the context's `exp`. `idm` is the
    same if `own` sent the dead message. Otherwise it is the same each time that the letter is sent again: under `once` the
    effect happens once.

    Raises `EnvelopeError` with the letter's code if the letter does not verify, except with `unverified` if only its key is
    unknown now. Raises `ConfigurationError` for an event, and, unless `without_user`, for a user that cannot be included.
    """
    envelope, header = letter.envelope, letter.header
    if letter.refused and not (unverified and letter.refused in FORGOTTEN):
        raise EnvelopeError(Code(letter.refused), 0, f"dead letter #{letter.sequence}")
    if envelope is None or header is None or header.aud is None or header.kind is not Kind.TASK:
        raise ConfigurationError(
            f"dead letter #{letter.sequence} is an event, which all its listeners would get again: its sender has to emit it"
        )
    context = parse_payload(envelope.context.payload) if envelope.context is not None else None
    lost = _why_lost(header, context, own, now) if context is not None else ""
    if lost and not without_user:
        raise ConfigurationError(
            f"dead letter #{letter.sequence} was for a user, and {lost}: give --without-user to send it without a user, or "
            "have its sender send it"
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
            grt=common_grants([header, *(parse_header(ancestor.header) for ancestor in envelope.ancestors)]),
            idm=header.idm if own == header.iss else header.digest.hex(),
            tid=header.tid,
            ext=without_declaration(header.ext),
        ),
        life=header.exp - header.iat,
        end_after=(header.end or header.exp) - header.iat,
        end_at=context.end if carried and context is not None else None,
        not_before=context.iat if carried and context is not None else 0,
    )


def _why_lost(header: Header, context: UserContext, own: SpiffeId, now: int) -> str:
    """Return why no chain of `own` may start with `context` now (SPEC.md section 7, step 11); empty if one may."""
    if header.par is not None:
        return "it followed from another message, whose chain cannot start again"
    if own != (context.wkl or context.iss):
        return "its context was minted for another workload"
    if now >= context.exp:
        return "its context may no longer start a chain"
    return ""


def common_grants(chain: Iterable[Header]) -> tuple[str, ...] | None:
    """Return the grants that all headers of `chain` have in common, as one list; None without a limit."""
    common: tuple[str, ...] | None = None
    for header in chain:
        if header.grt is None:
            continue
        if common is None:
            common = header.grt
            continue
        both = [grant for grant in common if _within(grant, header.grt)]
        both += [grant for grant in header.grt if _within(grant, common)]
        common = tuple(dict.fromkeys(both))[: DEFAULT_LIMITS.text_items]
    return common


def _within(grant: str, grants: Iterable[str]) -> bool:
    """Return whether everything that `grant` covers is covered by one of `grants`."""
    return any(
        grant == other or (other.endswith(".*") and covers((other,), grant.removesuffix(".*"))) for other in grants
    )


async def drop(letter: DeadLetter, outbox: Outbox, request: Request, token: str) -> Posted:
    """Publish an event about the letter on `event.<token>.dropped`, delete the letter from DEAD, and return the event.

    `token` is our own. After an interruption between the two, the letter is still there and can be dropped again. Raises
    `StreamRefused` if the server does not delete it, `BusUnavailable`, and as `Outbox.publish`.
    """
    header = letter.header
    content = {
        "sequence": letter.sequence,
        "subject": letter.subject,
        "stored": letter.stored,
        "sha256": sha256(letter.payload).hexdigest(),
        "message": header.id.hex() if header is not None else "",
        "from": header.iss.value if header is not None else "",
    }
    posted = await outbox.publish(event_of(token, DROPPED_EVENT, content, header), within=STORE_WITHIN)
    answer = await api(request, f"STREAM.MSG.DELETE.{DEAD}", {"seq": letter.sequence})
    if answer.get("success") is not True:
        raise BusUnavailable(f"dead letter #{letter.sequence}: the server does not say that it was deleted")
    return posted
