"""Show a person the tasks that wait for an approval: each message is verified again, and the policy decides who may see it.

The edge shows tasks that agents have parked. A task must be its requester's own message, verified as of the time when it was
stored. So requester, user, chain and body are the requester's. The decision must be about that message, in all parts that
depend on the message alone. The rest (text, facts, resource, what may follow, whether the body is shown, earlier verdicts) is
what the agent has signed as its policy's answer. A dishonest agent can sign other values, but the log then proves that it
signed them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.gate.approval_authorizer import ask_about
from sealbus.bus.gate.authorizer import caller_for, request_about
from sealbus.bus.gate.opener import reopened_message
from sealbus.bus.sending.approval import LONGEST_WAIT
from sealbus.bus.streams.held import HeldValue, Part, Place, Scan
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.marker import MARKER_TYPE, parsed_marker
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked, ParkedState, parse_parked
from sealbus.bus.work.cancel.kept import STOP_PLACES, KeptStops, StopPlaces
from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage
from sealbus.envelopes.encoding.strict_json import deeper_than
from sealbus.envelopes.errors import (
    Code,
    ConfigurationError,
    EnvelopeError,
    SealbusError,
    SealError,
    StateUnavailable,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.freshness import check_stored, check_times
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects, action_of, control_subject
from sealbus.envelopes.message.user_context import UserContext
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.request import (
    NO_RESOURCE,
    Request,
    Resource,
    completed_document,
    input_document,
    rfc3339,
)

_logger: Final = logging.getLogger(__name__)

_TOGETHER: Final = 64
_TOGETHER_COST: Final = 2.0
"""Requests that one read of a part counts as: one for the values, one for the cancels."""
_WITHIN: Final = 10.0
_BODY_NESTING: Final = 64
"""Deepest nesting of a body that is shown as JSON; the edge accepts no deeper body either."""
_VIEW: Final = "view"
"""The verdict that the policy is asked about before a task is shown."""
_OF_THE_AGENT: Final = {
    "action": frozenset({"properties"}),
    "context": frozenset({"time", "delivery", "approvals", "parked"}),
}
"""Members of an input document that come from the agent and not from the message, beside the resource."""
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Categories of characters that are invisible, or that change the direction of other characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedTask:
    """A waiting task, and its message, which was verified again."""

    parked: Parked
    message: VerifiedMessage

    def asked_by(self, person: UserContext) -> bool:
        """Return whether `person` is the user behind the task, in whatever session."""
        context = self.message.context
        return context is not None and (context.idp, context.sub) == (person.idp, person.sub)

    def document(self) -> dict[str, object]:
        """Return the task as JSON for a person; misleading characters are written as escapes."""
        parked, header, context = self.parked, self.message.header, self.message.context
        recorded, obligation = json.loads(parked.decision.input or b"{}"), parked.obligation
        document: dict[str, object] = {
            "id": parked.digest.hex(),
            "task": header.id.hex(),
            "decision": parked.leaf.hex(),
            "queue": obligation.queue,
            "text": obligation.text,
            "action": parked.decision.action,
            "agent": str(header.aud),
            "requester": header.iss.value,
            "chain": [link.iss.value for link in self.message.chain],
            "user": None if context is None else {"id": context.sub, "idp": context.idp},
            "resource": recorded.get("resource"),
            "facts": action.get("properties") if isinstance(action := recorded.get("action"), dict) else None,
            "reasons": list(parked.decision.reasons),
            "since": rfc3339(parked.since // SECOND),
            "until": rfc3339(parked.until // SECOND),
            "needs": {"acr": list(obligation.acr), "max_age": obligation.max_age},
            "follows": list(obligation.follows),
            "verdicts": [
                {
                    "verdict": verdict.verdict.value,
                    "user": verdict.user,
                    "idp": verdict.idp,
                    "time": rfc3339(verdict.time // SECOND),
                }
                for verdict in parked.verdicts
            ],
        }
        if obligation.body:
            document["body"] = _body(self.message)
        escaped = _visible(document)
        return escaped if isinstance(escaped, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Tasks of a queue, as many as `PageLimits` allows, by the time of their last change.

    `after` begins the next page, 0 if there is none.
    """

    tasks: Sequence[ParkedTask]
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """The values of `cell` that were read together from sequence `first` on.

    `uncanceled` is whether the index of stops is complete, so that it can rule out that a message was canceled.
    """

    cell: str
    scan: Scan
    first: int
    part: Part
    uncanceled: bool

    def is_sure(self, subject: str, place: Place) -> bool:
        """Return whether all values that can count at this place were read and verified."""
        return place.whole and place.first >= self.first and subject not in self.part.unsure


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLimits:
    """The bounds of one page of waiting tasks."""

    tasks: int = 1_000
    """Tasks on one page. A task that does not verify, has ended or may not be seen does not count."""
    tasks_singly: int = 100
    """Tasks on one page of a queue with more messages than `looked_at`: each waiting task is then read separately."""
    bytes: int = 2_097_152
    """Bytes of the tasks on one page; a usual task has some 4 kB.

    As JSON they may take three times as much, and the console accepts no answer over 8 MiB.
    """
    parts: int = 16
    """Most parts that are read for one page, each of at most `part` places and `bytes`."""
    part: int = 1_000
    """Places whose values are read in one request."""
    seconds: float = 10.0
    """Seconds after which no further part is begun."""
    looked_at: int = 65_536
    """Messages whose subjects are scanned for one page, in about a second. Agents can store any number."""
    together: int = _TOGETHER
    """Tasks that are decided and verified at a time, so that other requests get their turn and a page can end in between."""
    tasks_of_a_request: float = 50.0
    """Tasks, read together, that count as one request of the user."""
    stop_places: int = STOP_PLACES
    """The `most` of the index of stops (`StopPlaces`)."""


PAGE_LIMITS: Final = PageLimits()
_SEQUENCES: Final = 2**44
"""Above every sequence of a stream: a place on a page is a sequence of one cell, and this for each cell before it."""


class _PageEntry(NamedTuple):
    """The task at one place that the person may see, and how many values were read separately for it."""

    task: ParkedTask | None
    reads: int


class _OpenPage:
    """A page of at most `most` tasks that is being filled: its tasks, and the sequence up to which it was read."""

    def __init__(self, after: int, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.tasks: list[ParkedTask] = []
        self.bytes = 0
        self.end = after

    @property
    def room(self) -> int:
        """How many more tasks the page may hold; 0 if its bytes are used up."""
        return self._most - len(self.tasks) if self.bytes_left > 0 else 0

    @property
    def bytes_left(self) -> int:
        """How many more bytes the page may hold; not positive if they are used up."""
        return self._most_bytes - self.bytes

    def add(self, entries: Sequence[_PageEntry], end: int) -> None:
        """Add the tasks of the next places, the last of which changed at `end`."""
        tasks = [entry.task for entry in entries if entry.task is not None]
        self.tasks += tasks
        self.bytes += sum([len(task.parked.record) + len(task.parked.envelope) for task in tasks])
        self.end = end


class ParkedTaskReader:
    """A reader of the parked tasks of all agents, for one edge."""

    def __init__(self, node: Node, *, limits: PageLimits | None = None) -> None:
        self._node = node
        self._limits = limits or PAGE_LIMITS
        self._operator_log = OperatorLog(_logger)
        deployment = node.deployment
        self._profile = LiveProfile(
            own=node.own,
            names=deployment.names,
            kinds=frozenset({Kind.TASK}),
            own_subjects=deployment.own_subjects,
            minters=deployment.minters,
        )
        self._stops = KeptStops(
            node.held, identity=node.identity, names=deployment.names, own_subjects=deployment.own_subjects
        )
        self._canceled = StopPlaces(node.transport, most=self._limits.stop_places)

    async def page(
        self, queue: str, person: UserContext, *, after: int = 0, pays: Callable[[float], bool] = lambda _: True
    ) -> Page:
        """Return the next waiting tasks of `queue` that `person` may see, after the place `after`; cells come one by one.

        They are read in parts, and decided and verified some at a time, as `PageLimits` says. After each batch `pays` is
        called with its cost in requests; if it returns False, the page ends there. So every page makes progress, and every
        read is paid for. Raises `BusUnavailable`, `StateUnavailable`.
        """
        pattern = f"held.*.task.{queue}.*"
        cells = list(self._node.transport.cells_of(pattern))
        index, begin = divmod(after, _SEQUENCES)
        for number, cell in enumerate(cells[index:], start=index):
            if number > index and not pays(_TOGETHER_COST):
                return Page(tasks=[], after=number * _SEQUENCES)
            found = await self._page_of(cell, pattern, person, after=begin, pays=pays)
            if found.after or number + 1 == len(cells):
                return Page(tasks=found.tasks, after=found.after and number * _SEQUENCES + found.after)
            if found.tasks:
                return Page(tasks=found.tasks, after=(number + 1) * _SEQUENCES)
            begin = 0
        return Page(tasks=[], after=0)

    async def _page_of(
        self, cell: str, pattern: str, person: UserContext, *, after: int, pays: Callable[[float], bool]
    ) -> Page:
        """Return the next waiting tasks of one cell, after its sequence `after`."""
        limits = self._limits
        scan = await self._node.held.scan(pattern, after=after, most=limits.looked_at, within=_WITHIN, cell=cell)
        places, most = list(scan.places.items()), limits.tasks if scan.complete else limits.tasks_singly
        page = _OpenPage(after, most, limits.bytes)
        time = asyncio.get_running_loop().time
        until = time() + limits.seconds
        for _ in range(limits.parts):
            if not places or (page.end > after and time() >= until):
                break
            listing = await self._read(cell, pattern, scan, page, places[: limits.part])
            # A place that changed after the end of this part is in the next part, or on a later page.
            read = sum([place.last <= listing.part.last for _, place in places[: limits.part]])
            if not await self._fill(page, listing, places[:read], person, pays):
                break
            places = places[read:]
        return Page(tasks=page.tasks, after=page.end if scan.has_more(page.end) else 0)

    async def _fill(
        self,
        page: _OpenPage,
        listing: _Listing,
        places: Sequence[tuple[str, Place]],
        person: UserContext,
        pays: Callable[[float], bool],
    ) -> bool:
        """Add the waiting tasks at `places`; return whether the page has room left and `pays` agreed."""
        part, remaining = listing.part, list(places)
        cost = _TOGETHER_COST + part.forged / self._limits.tasks_of_a_request
        while remaining:
            number = min(self._limits.together, page.room)
            batch, remaining = remaining[:number], remaining[number:]
            entries = await asyncio.gather(*[self._entry_at(listing, *place, person) for place in batch])
            page.add(entries, batch[-1][1].last)
            genuine = sum([subject in part.values for subject, _ in batch])
            cost += genuine / self._limits.tasks_of_a_request + sum([entry.reads for entry in entries])
            if not pays(cost) or not page.room:
                return False
            cost = 0.0
        page.end = part.last
        return not cost or pays(cost)

    async def _read(
        self, cell: str, pattern: str, scan: Scan, page: _OpenPage, places: Sequence[tuple[str, Place]]
    ) -> _Listing:
        """Read the values at the next places, as many as the page may hold, and then the index of stops."""
        part = await self._node.held.between(
            pattern,
            PARKED_TYPE,
            first=page.end + 1,
            last=places[-1][1].last,
            most_bytes=page.bytes_left,
            within=_WITHIN,
            cell=cell,
        )
        uncanceled = await self._canceled.refresh()
        return _Listing(cell=cell, scan=scan, first=page.end + 1, part=part, uncanceled=uncanceled)

    async def _entry_at(self, listing: _Listing, subject: str, place: Place, person: UserContext) -> _PageEntry:
        """Return the waiting task at one place, if `person` may see it."""
        present, *before = self._node.transport.cells_of(subject)
        if listing.cell not in {present, *before}:
            return _PageEntry(None, 0)
        reads, value = 0, listing.part.values.get(subject)
        parked = _parked(value) if value is not None else None
        sure = not before and listing.is_sure(subject, place)
        if not sure or (self._waits(parked) and not listing.scan.complete):
            # Not all values of this subject were read: read the value that counts.
            reads += 1
            value = (await self._node.held.newest(subject, PARKED_TYPE, flooded=False)).get(subject)
            # A value that has changed since is on a later page, or on one of the cell to which its agent was moved.
            last = place.last if listing.cell == present else 0
            parked = _parked(value) if value is not None and value.last == last else None
        task = await self._seen(parked, person)
        if task is None or (listing.uncanceled and not self._canceled.may_hold(task.message.chain)):
            return _PageEntry(task, reads)
        reads += len(task.message.chain)
        return _PageEntry(task if not await self._is_canceled(task) else None, reads)

    def _waits(self, parked: Parked | None) -> bool:
        return parked is not None and parked.state is ParkedState.WAITING and self._node.site.bus_clock() < parked.until

    async def find_task(self, digest: bytes, person: UserContext) -> ParkedTask | None:
        """Return the waiting task with H(header) `digest`, if `person` may see it. Raises as `page`."""
        for parked in await self._all(digest):
            if (task := await self._seen(parked, person)) is not None:
                # It is one message, even if its agent lists it in several queues.
                return task if not await self._is_canceled(task) else None
        return None

    async def ended(self, digest: bytes, person: UserContext) -> bool:
        """Return whether the task with H(header) `digest` waits no longer, and `person` may know that. Raises as `page`."""
        now = self._node.site.bus_clock()
        return any([await self.may(parked, person, _VIEW, now=now) for parked in await self._all(digest)])

    async def _all(self, digest: bytes) -> list[Parked]:
        values = await self._newest(f"held.*.task.*.{digest.hex()}", PARKED_TYPE)
        return [parked for value in values.values() if (parked := _parked(value)) is not None]

    async def _newest(self, pattern: str, payload_type: str) -> Mapping[str, HeldValue]:
        try:
            return await self._node.held.newest(pattern, payload_type, flooded=False)
        except ConfigurationError as error:
            if len(self._node.transport.cells_of(pattern)) > 1:
                # What waits in the other cells must not read as if nothing did.
                raise StateUnavailable(f"the tasks that wait cannot be read: {error.detail}") from error
            # Without the stream nothing waits. Faults of an existing stream are for operators.
            self._operator_log.warning("the tasks that wait cannot be read: %s", error.detail)
            return {}

    async def submitted(self, task: bytes) -> ParkedTask | None:
        """Return the parked task with this id that this edge has submitted, in whatever state. Raises as `page`."""
        place = f"held.*.wait.{self._node.token}.{task.hex()}"
        markers = await self._newest(place, MARKER_TYPE)
        for value in markers.values():
            marker = parsed_marker(value)
            for parked in await self._all(marker.digest) if marker is not None else ():
                proved = await self._proved(parked) if parked.header.iss == self._node.own else None
                if proved is not None and proved.message.header.id == task:
                    return proved
        return None

    async def _seen(self, parked: Parked | None, person: UserContext) -> ParkedTask | None:
        """Return a waiting task, verified, if `person` may see it; whether it was canceled is not checked yet."""
        # The policy is asked first: for a person who may see nothing, nothing is verified or read.
        if (
            parked is None
            or not self._waits(parked)
            or not await self.may(parked, person, _VIEW, now=self._node.site.bus_clock())
        ):
            return None
        return await self._proved(parked)

    async def _is_canceled(self, task: ParkedTask) -> bool:
        return await self._stops.find(task.message.chain) is not None

    async def _proved(self, parked: Parked) -> ParkedTask | None:
        node = self._node
        try:
            message = await reopened_message(
                parked, profile=self._profile, trust=node.trust(), past=node.past, caches=node.caches
            )
            _check_times(parked, message)
        except EnvelopeError as error:
            self._hide(parked, f"its message does not verify, {error.code}")
            return None
        if not is_about(parked, message, node.deployment.own_subjects):
            self._hide(parked, "its decision is about another message")
            return None
        return ParkedTask(parked=parked, message=message)

    def _hide(self, parked: Parked, why: str) -> None:
        """Log that a task which an agent has signed is not shown, and why."""
        self._operator_log.warning("parked task %s of %s is not shown: %s", parked.digest.hex(), parked.header.aud, why)

    async def may(self, parked: Parked, person: UserContext, verdict: str, *, now: int) -> bool:
        """Return whether the policy lets `person` give this verdict on a task; any answer but a decision does not.

        The agent asks its policy the same question about a verdict; that answer decides.
        """
        node = self._node
        to = control_subject(node.deployment.names.token(parked.value.own), "approve") if parked.value else ""
        request = Request(
            caller=caller_for(node.own, person),
            action=action_of(to, {}),
            properties={"verdict": verdict, "note": ""},
            resource=Resource(type="task", id=parked.digest.hex()),
            time=now,
            nats_subject=to,
            kind=Kind.TASK.value,
            message_id="",
        )
        try:
            of = _recorded(parked.decision.input or b"")
            document = approval_question(input_document(request), of=of, obligation=parked.obligation.json)
        except (SealbusError, ValueError):
            # The agent may have made up the document, or it has no room for this person.
            return False
        answer = await ask_about(node.engine, document)
        return isinstance(answer, Decision) and answer.allow is True and not answer.obligations


@lru_cache(maxsize=2 * _TOGETHER)  # each document is used twice: for the policy, and to compare it with its message
def _recorded(document: bytes) -> InputDocument:
    """Return a recorded input document, checked; raise `PolicyFailed` if it is malformed."""
    return checked_document(document)


def is_about(parked: Parked, message: VerifiedMessage, own: OwnSubjects) -> bool:
    """Return whether the decision that an agent has signed is about `message`.

    Its input document must have all values that depend on the message alone: sender, user, chain, action.
    """
    try:
        action = action_of(message.header.to, own)
        recorded = completed_document(_recorded(parked.decision.input or b""))
        actual = json.loads(recorded)
        expected = json.loads(input_document(request_about(message, action, {}, NO_RESOURCE, now=0)))
    except (SealbusError, ValueError):
        return False
    return parked.decision.action == action and _of_message(actual) == _of_message(expected)


def _check_times(parked: Parked, message: VerifiedMessage) -> None:
    """Raise `EnvelopeError` if the message cannot have been stored when its agent says, or cannot have waited since then.

    The message was verified as of that time, so an agent must not be able to present an old message as a new one.
    """
    stored = parked.arrival.stored
    check_times(message.header, reference=stored, now=None)
    check_stored(message.header, stored=stored, created=0)
    if not stored - DEFAULT_LIMITS.clock_skew <= parked.since <= parked.until <= stored + LONGEST_WAIT:
        raise EnvelopeError(Code.EXPIRED, 5, "not as long as a task waits")


def _of_message(document: dict[str, object]) -> dict[str, object]:
    """Return the members of an input document that depend on its message alone."""
    kept_part = {name: value for name, value in document.items() if name != "resource"}
    for name, excluded in _OF_THE_AGENT.items():
        inner = kept_part.get(name)
        if isinstance(inner, dict):
            kept_part[name] = {key: value for key, value in inner.items() if key not in excluded}
    return kept_part


def _parked(value: HeldValue) -> Parked | None:
    try:
        return parse_parked(value)
    except SealError:
        return None


def _body(message: VerifiedMessage) -> object:
    """Return the body as JSON if it is JSON, else as base64."""
    if message.header.typ == JSON:
        try:
            text = message.body.decode()
            if not deeper_than(text, _BODY_NESTING):
                # A text that two parsers could read differently is not shown as JSON.
                value = json.loads(text, object_pairs_hook=_distinct)
                json.dumps(value, allow_nan=False)
                return {"type": JSON, "json": value}
        except ValueError:
            pass
    return {"type": message.header.typ, "base64": b64encode(message.body).decode()}


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _visible(value: object) -> object:
    """Return `value` with every misleading character written as an escape."""
    match value:
        case str():
            if value.isprintable():
                return value
            return "".join(
                [
                    f"\\u{{{ord(character):x}}}" if unicodedata.category(character) in _HIDDEN else character
                    for character in value
                ]
            )
        case list() | tuple():
            return [_visible(item) for item in value]
        case Mapping():
            return {str(_visible(name)): _visible(item) for name, item in value.items()}
    return value
