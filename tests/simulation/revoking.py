"""Revocations in a simulation: who publishes them, how processes follow them, and from when on each has to heed one."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Container, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric import ec
from promises.history import What

from sealbus.agents.control.revoker import Revoker
from sealbus.agents.dev.memory.jetstream import Stored
from sealbus.agents.dev.users import DEV_IDP, DevUser, mint_user
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Feeds
from sealbus.agents.runtime.policy.revocation import Revocation
from sealbus.agents.runtime.policy.store import PolicyStore, StoredPart
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.bus.cells import DEFAULT
from sealbus.envelopes.errors import BusUnavailable, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.message.wire import Statement, parse_envelope
from sealbus.envelopes.trust.keys import SigningKey, key_id, public_pem
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import (
    NONE_REVOKED,
    REVOCATIONS,
    REVOCATIONS_ROOT,
    Revocations,
    revocations_of,
)
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument
from simulation.agent_tasks import AgentTasks
from simulation.cells import agent_on
from simulation.loop import CURRENT
from simulation.network import Link, SimulatedTransport
from simulation.parts import TILL, PlannedRevocation, PlannedUser, RevokedKind
from simulation.plan import Fault, FaultKind
from simulation.policy_store import Bucket, SimulatedStore
from simulation.site import START, Site

__all__ = ["Revoking", "context_of", "till"]

PROMISED: Final = 3.0
"""Seconds from the publication of a revocation until every process that is connected heeds it (docs/revocation.md)."""
RECOVERED: Final = 15.0
"""Seconds after which a process that was cut off follows the store again: a request ends after 5, and so does the wait for
news that was lost."""
_POLICY: Final = b"""package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if request.v
"""
"""The platform's policy, which nobody asks: the simulation's engine decides."""
_PLATFORM_KEY: Final = SigningKey(ec.generate_private_key(ec.SECP256R1()))
_REVOKER_KEY: Final = SigningKey(ec.generate_private_key(ec.SECP256R1()))
_ANCHORS: Final = {key_id(_PLATFORM_KEY.public): _PLATFORM_KEY.public}
_HARMLESS: Final = frozenset(
    {FaultKind.CLOCK, FaultKind.DRIFT, FaultKind.FULL, FaultKind.REDELIVER, FaultKind.FORGET, FaultKind.LOSE}
)
"""Kinds of faults that keep no process from following the store."""
_LOGIN_AGE: Final = 3_600.0
TILL_ACTION: Final = "bank.note"
TILL_NUMBERS: Final = (901, 902, 903, 905, 906)
"""The tasks of `till`, none of which the policy denies."""
TILL_EVERY: Final = 6.0
TILL_LIFE: Final = 600.0
PAUSE: Final = 1.0
"""Seconds between two tries to publish."""


@lru_cache(maxsize=2)
def _platform(issued_before: tuple[str, int] | None = None) -> bytes:
    """Return the platform's bundle, which names the revoker's key; the second has a workload, and a time (microseconds).

    Credentials of that workload that were issued before that time are refused.
    """
    public = _REVOKER_KEY.public
    above: DataDocument = {"platform": {"revokers": {key_id(public): public_pem(public)}}}
    if issued_before is not None:
        above["registry"] = {"issued_before": dict([issued_before])}
    data: DataDocument = {"sealbus": above}
    manifest = Manifest(roots=("sealbus",), serial=1 if issued_before is None else 2)
    return sign_bundle(read_bundle(pack_bundle({"p.rego": _POLICY}, data, manifest)), _PLATFORM_KEY, scope=PLATFORM).raw


@lru_cache(maxsize=16)
def _listed(raw: bytes) -> Revocations:
    return revocations_of(read_bundle(raw))


def context_of(client: Client, user: PlannedUser | None) -> Statement | None:
    """Return a context of `user`, who logged in before the simulation began; `client` mints it, as an edge does."""
    if user is None:
        return None
    site = client.node.site
    login = DevUser(user.name, session=user.session, client=user.client, login_age=_LOGIN_AGE)
    return mint_user(site.identity.sealer(), login, trust_domain=site.own.trust_domain, now=site.bus_clock())


class Revoking:
    """The revocations of one simulation. The processes that follow them keep their parts in folders of `folder`."""

    def __init__(
        self,
        site: Site,
        tasks: AgentTasks,
        planned: Sequence[PlannedRevocation],
        faults: Sequence[Fault],
        folder: Path,
    ) -> None:
        self._site = site
        self._tasks = tasks
        self._planned = planned
        self._faults = faults
        self._folder = folder
        self._bucket = Bucket(site.brokers[DEFAULT])
        self._bucket.put(PLATFORM, _platform(), 0)
        self._contexts: dict[str, UserContext] = {}
        """The contexts of tasks by their ids."""
        self._of_till: set[str] = set()
        """The ids of the tasks of `till`, and of what follows from them."""
        self._headers_of_till: set[bytes | None] = set()
        """The hashes of the same."""
        self._confirmed: dict[PlannedRevocation, float] = {}
        self._heard: dict[tuple[str, PlannedRevocation], float] = {}
        """When each host has read a revocation."""
        self._started: dict[str, float] = {}
        site.on_task.append(self._note_task)
        site.policy = self.followed

    @asynccontextmanager
    async def followed(self, link: Link) -> AsyncGenerator[Feeds, None]:
        """Follow the store as a process does, and yield what it feeds to the process's node."""
        host = link.host.name
        self._started[host] = self._site.loop.now
        for planned in self._planned:
            self._heard.pop((host, planned), None)
        store = SimulatedStore(self._reached(link), self._bucket, on_read=self._note_read)
        sync = PolicySync(cast("PolicyStore", store), self._folder / host, _ANCHORS)
        async with policy_synced(sync):
            yield Feeds(
                revocations=lambda: sync.in_force.revocations, revoked_before=lambda: sync.in_force.revoked_before
            )

    def _reached(self, link: Link) -> SimulatedTransport:
        """Return what a host sees of the cell with the policies."""
        site = self._site
        home = site.cell_of(agent_on(link.host.name))
        return SimulatedTransport(link, site.brokers[DEFAULT], site.brokers[home])

    async def publish(self, link: Link) -> None:
        """Run the process that publishes the revocations that are planned; a later one goes on with those not confirmed."""
        store = SimulatedStore(self._reached(link), self._bucket)
        revoker = Revoker(cast("PolicyStore", store), _ANCHORS, _REVOKER_KEY, in_force=lambda: NONE_REVOKED)
        async with asyncio.TaskGroup() as group:
            group.create_task(revoker.run(), name="revoker")
            for planned in self._planned:
                if planned not in self._confirmed:
                    group.create_task(self._revoke(planned, revoker, store), name=f"revocation of {planned.id}")

    async def _revoke(self, planned: PlannedRevocation, revoker: Revoker, store: SimulatedStore) -> None:
        site = self._site
        await site.sleep_until(planned.at)
        while planned not in self._confirmed:
            try:
                at = START * SECOND + int(planned.at * SECOND)
                if planned.kind == "client":
                    await _push_client(store, planned.id)
                elif planned.kind == "workload":
                    await _push_platform(store, (site.names.id_of(planned.id).value, at))
                else:
                    await revoker.revoke(Revocation(kind=planned.kind, issuer=DEV_IDP, id=planned.id, at=at))
            except BusUnavailable:
                await asyncio.sleep(PAUSE)
            else:
                self._confirmed[planned] = site.loop.now
                site.note(What.REVOKED, text=f"{planned.kind} {planned.id}")

    def note_allowed(self, document: Mapping[str, Any]) -> None:
        """Note that the policy of a process allowed a message, which no revocation denied before."""
        message = document["context"]["message_id"]
        if message in self._contexts or message in self._of_till:
            self._site.note(What.DECIDED, message=message)

    def heeded_since(self, message: str, host: str) -> float:
        """Return since when `host` has to deny the message with this id: a time in seconds, infinity if it has not to."""
        times = [math.inf]
        for planned in self._concerning(message):
            times.append(self._heard.get((host, planned), math.inf))
            if planned in self._confirmed:
                times.append(max(self._confirmed[planned], self._connected_since(host)) + PROMISED)
        return min(times)

    def may_be_refused(self, message: str) -> bool:
        """Return whether a message is, or follows from, one of a workload that is revoked: its end may not be told."""
        return any(planned.kind == "workload" for planned in self._concerning(message))

    def may_be_denied(self, message: str) -> bool:
        """Return whether a revocation concerns the message with this id."""
        return any(True for _ in self._concerning(message))

    def _concerning(self, message: str) -> Iterator[PlannedRevocation]:
        context, is_of_till = self._contexts.get(message), message in self._of_till
        for planned in self._planned:
            if planned.kind == "workload":
                if is_of_till:
                    yield planned
            elif context is not None and context.idp == DEV_IDP:
                ids = {"user": context.sub, "session": context.sid, "client": context.cid}
                if planned.id == ids[planned.kind]:
                    yield planned

    def _connected_since(self, host: str) -> float:
        now = self._site.loop.now
        since = self._started.get(host, now)
        for fault in self._faults:
            if fault.at <= now and fault.kind not in _HARMLESS and (fault.target == host or not fault.target):
                since = max(since, min(fault.at + fault.seconds, now) + RECOVERED)
        return since

    def _note_read(self, part: StoredPart) -> None:
        host = CURRENT.get().name
        for planned in self._planned:
            if _is_in(part, planned):
                self._heard.setdefault((host, planned), self._site.loop.now)

    def _note_task(self, stored: Stored, header: Header) -> None:
        if header.ctx is not None and (statement := parse_envelope(stored.payload).context) is not None:
            self._contexts[header.id.hex()] = parse_payload(statement.payload)
        is_of_till = header.iss == self._site.names.id_of(TILL)
        if is_of_till or header.par in self._headers_of_till:
            self._headers_of_till.add(header.digest)
            self._of_till.add(header.id.hex())
            self._tasks.unawaited.add(header.id.hex())
        if is_of_till:
            number = int(json.loads(parse_envelope(stored.payload).body)["number"])
            self._tasks.note(stored, header, number, action=TILL_ACTION)


async def till(site: Site, link: Link) -> None:
    """Send a task for `bank` every few seconds, with one credential."""
    async with site.node(TILL, link) as node:
        client = Client.on(node)
        for number in TILL_NUMBERS:
            with suppress(SealbusError):
                await client.submit(TILL_ACTION, {"number": number}, life=TILL_LIFE)
            await asyncio.sleep(TILL_EVERY)


def _is_in(part: StoredPart, planned: PlannedRevocation) -> bool:
    """Return whether a part that was read has a revocation."""
    if planned.kind == "workload":
        return part.name == PLATFORM and part.raw != _platform()
    if part.name != REVOCATIONS:
        return False
    listed = _listed(part.raw)
    ids: dict[RevokedKind, Container[tuple[str, str]]] = {
        "user": listed.users,
        "session": listed.sessions,
        "client": listed.clients,
    }
    return (DEV_IDP, planned.id) in ids[planned.kind]


async def _push_platform(store: SimulatedStore, issued_before: tuple[str, int]) -> None:
    """Push the platform's bundle with a workload's revocation, as `sealbus deny add` does. Raises `BusUnavailable`."""
    part = await store.read(PLATFORM)
    if part is None or part.raw == _platform():
        raw = _platform(issued_before)
        if await store.objects.replace(PLATFORM, raw, last=part.last if part is not None else 0) is None:
            raise BusUnavailable("another bundle came first")


async def _push_client(store: SimulatedStore, client: str) -> None:
    """Add a client to the list, as an operator does by `sealbus policy push`.

    Raises `BusUnavailable`, also if another list came first.
    """
    part = await store.read(REVOCATIONS)
    before = read_bundle(part.raw) if part is not None else None
    listed = _entries(before)
    listed = {**listed, "clients": {DEV_IDP: {**listed.get("clients", {}).get(DEV_IDP, {}), client: 0}}}
    manifest = Manifest(roots=(REVOCATIONS_ROOT,), serial=before.serial + 1 if before is not None else 1)
    bundle = read_bundle(pack_bundle({}, {"sealbus": {"revocations": listed}}, manifest))
    raw = sign_bundle(bundle, _REVOKER_KEY, scope=REVOCATIONS).raw
    if await store.objects.replace(REVOCATIONS, raw, last=part.last if part is not None else 0) is None:
        raise BusUnavailable("another list came first")


def _entries(bundle: Bundle | None) -> dict[str, Any]:
    data: Any = bundle.data if bundle is not None else {"sealbus": {"revocations": {}}}
    return dict(data["sealbus"]["revocations"])
