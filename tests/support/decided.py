"""Decisions that an engine made and an agent recorded, with the message that they are about as evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path

from support.notary import NAMES, Bench

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import credential_item, encode_audit_body
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.decision import Decision, obligations_json
from sealbus.policies.decision.request import Caller, Request, Resource, input_document
from sealbus.policies.engines.open import open_policy

__all__ = ["record_decision"]


def _id(number: int) -> bytes:
    ident = bytearray(number.to_bytes(16, "big"))
    ident[6], ident[8] = 0x70, 0x80
    return bytes(ident)


async def record_decision(bench: Bench, sender: MemoryIdentity, policy: Bundle, quantity: int) -> None:
    """Let `sender` seal a task for the inventory, `policy` decide about it, and the inventory record what it said."""
    inventory, now = MemoryIdentity(bench.authority, NAMES.id_of("inventory")), bench.now()
    bench.numbers += 2
    draft = Draft(
        kind=Kind.TASK, id=_id(bench.numbers), to="task.inventory.update", aud=inventory.spiffe_id, iat=now,
        exp=now + 60 * SECOND, end=now + 60 * SECOND, body=b"{}", typ="application/json",
    )  # fmt: skip
    [task] = seal([draft], sender.sealer())
    document = input_document(
        Request(
            caller=Caller(subject=sender.spiffe_id.value, trust_domain="example.org"),
            action="inventory.update",
            properties={"quantity": quantity},
            resource=Resource(type="item", id="42"),
            time=now,
            nats_subject="task.inventory.update",
            kind="task",
            message_id=_id(bench.numbers).hex(),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bundle.tar.gz"
        file.write_bytes(policy.raw)
        async with open_policy(file) as engine:
            [answer] = await engine.decide([document])
    assert isinstance(answer, Decision)
    envelope = parse_envelope(task.wire)
    decision = DecisionRecord(
        envelope.header, envelope.proof, "inventory.update", StreamPlace("TASKS", bench.numbers, now), 1,
        answer.allow, None if answer.allow else Code.DENIED, bytes(document), answer.reasons,
        obligations_json(answer), answer.revision, answer.policy, answer.engine, answer.micros,
    )  # fmt: skip
    items = [credential_item(envelope.credential), decision.encode()]
    body, dig = encode_audit_body(items[:1], items[1:]), root([leaf_hash(item) for item in items])
    record = Draft(
        kind=Kind.RECORD, id=_id(bench.numbers + 1), to=audit_subject(NAMES.token(inventory.spiffe_id)), iat=now,
        exp=now + 60 * SECOND, body=body, dig=dig, typ="application/vnd.sealbus.audit.v1",
    )  # fmt: skip
    [sealed] = seal([record], inventory.sealer())
    bench.broker.inject(record.to, sealed.wire)
