"""Decided tasks and logs of them, for the figures of the audit path: real keys and sealing, but no network.

Each task is from the planner to the inventory, for one of several users whom the edge vouched for, with a 1 KiB body and
an input document of the usual size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import cast

from sealbus.agents.control.notary.log.ledger import Ledger
from sealbus.agents.dev.memory.broker import header_block
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.users import EDGE_PATH, DevUser, mint_user
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.evidence.export import ExportWriter
from sealbus.bus.audit.writer import decision_record
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Delivery, Outgoing, uuid7
from sealbus.bus.routing.retry import UNTIL_EXPIRY
from sealbus.bus.routing.routes import Endpoint, HandlerOptions, Route
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.sending.message import OutgoingMessage, record_message
from sealbus.envelopes.accept.live import LiveProfile, Replays, accept_live
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import creation_entry, verified_entry
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealed, Sealer, seal
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import Caller, Request, Resource, User, input_document

__all__ = ["ORIGIN", "AuditWorld"]

ORIGIN = "log.example.org/bench"
FRESH = 60 * SECOND
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN, table={"edge": DOMAIN.id(EDGE_PATH)})
SUBJECT = "task.inventory.update"
BODY = b"x" * 1_024


class AuditWorld:
    """The workloads that take part, and the number of messages sent."""

    def __init__(self, users: int = 10) -> None:
        self.many = users
        self.authority = DevelopmentAuthority(DOMAIN)
        self.planner = MemoryIdentity(self.authority, NAMES.id_of("planner"))
        self.inventory = MemoryIdentity(self.authority, NAMES.id_of("inventory"))
        self.notary = MemoryIdentity(self.authority, NAMES.id_of("notary"))
        self.edge = MemoryIdentity(self.authority, NAMES.id_of("edge"))
        self.started = wall_clock() - SECOND
        self._mint()
        self.profile = LiveProfile(
            own=self.inventory.spiffe_id,
            names=NAMES,
            kinds=frozenset({Kind.TASK}),
            minters=frozenset({self.edge.spiffe_id}),
        )
        self.trust = Trust(bundles=self.planner.bundles())
        self.caches = Caches()
        self.route = Route(
            kind=Kind.TASK,
            subject=SUBJECT,
            action="inventory.update",
            endpoint=cast("Endpoint", None),
            options=HandlerOptions(retry=UNTIL_EXPIRY),
        )
        self.sent = 0

    def decided(self, count: int, together: int) -> list[Decided]:
        """Return `count` allowed tasks, sealed `together` at a time, in the form that the audit writer gets."""
        found = []
        if wall_clock() - self.minted > FRESH:
            self._mint()
        while len(found) < count:
            size = min(together, count - len(found))
            now = wall_clock()
            drafts = [self._outgoing(number).at(now, new_id=uuid7(now)) for number in range(size)]
            found += [self._opened(one) for one in seal(drafts, self.planner.sealer())]
        return found

    def _mint(self) -> None:
        self.minted = wall_clock()
        self.users = [
            mint_user(
                self.edge.sealer(),
                DevUser(f"user-{number}", workload=self.planner.spiffe_id),
                trust_domain=DOMAIN,
                now=self.minted,
            )
            for number in range(self.many)
        ]

    def _outgoing(self, number: int) -> OutgoingMessage:
        return OutgoingMessage(
            Draft(
                kind=Kind.TASK,
                to=SUBJECT,
                aud=self.inventory.spiffe_id,
                body=BODY,
                typ="application/json",
                context=self.users[(self.sent + number) % self.many],
            ),
            life=3_600 * SECOND,
            end_after=3_600 * SECOND,
        )

    def _opened(self, sealed: Sealed) -> Decided:
        self.sent += 1
        now = wall_clock()
        block = header_block(Outgoing(SUBJECT, b"", sealed.header.id.hex()))
        position = StreamArrival(SUBJECT, block, "TASKS", self.sent, now, self.started, 1)
        message = accept_live(
            sealed.wire,
            position,
            self.profile,
            action="inventory.update",
            trust=self.trust,
            caches=self.caches,
            replays=Replays(ReplayMemory(1)),
            now=now,
        )
        document = input_document(
            Request(
                caller=Caller(
                    subject=NAMES.id_of("planner").value,
                    trust_domain=DOMAIN.name,
                    user=User(
                        id=f"user-{self.sent % self.many}",
                        idp="https://idp.example.org",
                        session=f"session-user-{self.sent % self.many}",
                        txn="0" * 32,
                        client="dev",
                    ),
                    chain=(NAMES.id_of("planner").value,),
                ),
                action="inventory.update",
                properties={"quantity": self.sent},
                resource=Resource(
                    type="item",
                    id=str(self.sent),
                    properties={"owner": f"user-{self.sent % self.many}", "customer": "acme"},
                ),
                time=now,
                nats_subject=SUBJECT,
                kind="task",
                message_id=sealed.header.id.hex(),
            )
        )
        return Decided(
            opened=Opened(
                delivery=Delivery(SUBJECT, sealed.wire, block, position), route=self.route, message=message, time=now
            ),
            input_document=document,
            decision=Decision(
                allow=True, reasons=("owner",), policy="starter", revision="r1", engine="embedded", micros=17
            ),
        )

    def export(self, folder: Path, records: int, *, together: int, per_message: int = 100) -> bytes:
        """Write an export of `records` decisions on tasks sealed `together`, and return its root file."""
        signer, created = NoteSigner(ORIGIN, bytes(range(32))), self.started
        jwks = self.notary.bundles()[DOMAIN].jwks
        bundle = AuditBatch()
        bundle.add(BundleRecord(trust_domain=DOMAIN, current=created, jwt=jwks).encode())
        ledger, files, kept = Ledger(), {}, []
        ledger.append(creation_entry("AUDIT", created=created))
        first = self._seal(bundle, "audit.notary", self.notary.sealer())
        for sealed in (first, *self._messages(records, together, per_message)):
            stored = wall_clock()
            kept.append((len(kept) + 1, stored, sealed.wire))
            ledger.append(verified_entry(len(kept), time=stored, header_digest=sealed.header.digest))
        files = ledger.files()
        note = sign_checkpoint(Checkpoint(ORIGIN, ledger.size, ledger.root()), [signer])
        writer = ExportWriter(folder, ledger.size, files.get, stream="AUDIT")
        writer.take_messages(kept)
        assert not writer.end(note).missing_count
        return root_file(signer, jwks)

    def _messages(self, records: int, together: int, per_message: int) -> Iterator[Sealed]:
        for start in range(0, records, per_message):
            batch = AuditBatch()
            for one in self.decided(min(per_message, records - start), together):
                batch.add(decision_record(one).encode(), one.opened.message)
            yield self._seal(batch, "audit.inventory", self.inventory.sealer())

    def _seal(self, batch: AuditBatch, subject: str, sealer: Sealer) -> Sealed:
        now = wall_clock()
        [sealed] = seal([record_message(subject, batch.close()).at(now, new_id=uuid7(now))], sealer)
        return sealed


def root_file(signer: NoteSigner, jwks: bytes) -> bytes:
    """Return the root file, which a verifier gets from elsewhere."""
    document: dict[str, object] = {
        "v": 1,
        "origin": ORIGIN,
        "keys": [signer.verifier.text],
        "bundles": [sha256(jwks).hexdigest()],
        "checkpoints": [],
        "trust_domain": DOMAIN.name,
        "agents": {"template": "/agent/{name}", "table": {}},
        "minters": [NAMES.id_of("edge").value],
        "notaries": [NAMES.id_of("notary").value],
    }
    return json.dumps(document).encode()
