"""Scenes with attackers, who send captured, changed, redirected or forged bytes."""

from __future__ import annotations

import secrets
from typing import Final

from sealbus.agents.dev.demo.scene import ALLOW, REFUSED, Outcome, Scene
from sealbus.agents.dev.demo.stage import STRANGER, Stage
from sealbus.agents.examples.inventory import Read, Update
from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.messages import Origin, call_message, task_message
from sealbus.agents.sdk.sender import encoded
from sealbus.bus.ports import Delivery, Outgoing, Overloaded, PubAck, uuid7
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.envelopes.errors import Code
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.message.wire import Ancestor, Envelope, encode_envelope, parse_envelope

UPDATES: Final = "task.inventory.update"


async def _sent_again(stage: Stage) -> Outcome:
    """Publish a captured task's bytes again, under the same id."""
    task = await stage.stored(TASKS, UPDATES)
    message_id = task.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
    ack = await _publish(stage, task, message_id)
    return Outcome(got=REFUSED, code=str(Code.REPLAYED)) if ack.duplicate else Outcome(got=ALLOW)


async def _sent_again_otherwise(stage: Stage) -> Outcome:
    """Publish a captured task's bytes under another id, so that the stream stores them."""
    task = await stage.stored(TASKS, UPDATES)
    before = _count(stage, Code.MALFORMED)
    await _publish(stage, task, secrets.token_hex(16))
    return await _refused(stage, Code.MALFORMED, before)


async def _flipped_bit(stage: Stage) -> Outcome:
    """Seal a good call, flip one bit of its body and send it."""
    node = stage.clients["shop-web"].node
    sealed = _sealed(node, await _call(stage, node))
    body = bytes([sealed.body[0] ^ 1]) + sealed.body[1:]
    return await _send(stage, node, sealed._replace(body=body), Code.BAD_DIGEST)


async def _redirected(stage: Stage) -> Outcome:
    """Request that the answer goes to another client's inbox."""
    node = stage.clients["shop-web"].node
    names = node.deployment.names
    message = (await _call(stage, node)).with_entries(rpl=f"{names.inbox_prefix(names.id_of(STRANGER))}r.0.1")
    return await _send(stage, node, _sealed(node, message), Code.WRONG_SUBJECT)


async def _copied_context(stage: Stage) -> Outcome:
    """Attach the shop's context to a message of the stranger."""
    statement = await stage.clients["shop-web"].user_context(stage.door.token("alice"))
    before = _count(stage, Code.BAD_CHAIN)
    await stage.clients[STRANGER].submit("inventory.update", Update(item_id="42", quantity=1), user=statement)
    return await _refused(stage, Code.BAD_CHAIN, before)


async def _event_as_parent(stage: Stage) -> Outcome:
    """Claim an event, which any agent may read, as the parent of a task."""
    event = parse_envelope((await stage.stored(EVENTS, "event.inventory.updated")).payload)
    node = stage.clients[STRANGER].node
    parent = Ancestor(header=event.header, proof=event.proof, credential=event.credential)
    before = _count(stage, Code.BAD_CHAIN)
    await node.outbox.publish(
        task_message(
            "inventory.update",
            encoded(Update(item_id="42", quantity=1), JSON),
            names=node.deployment.names,
            origin=Origin(ancestors=(parent,)),
        )
    )
    return await _refused(stage, Code.BAD_CHAIN, before)


async def _call(stage: Stage, node: Node) -> OutgoingMessage:
    return call_message(
        "inventory.read",
        encoded(Read(item_id="42"), JSON),
        names=node.deployment.names,
        origin=Origin.user(await stage.clients["shop-web"].user_context(stage.door.token("alice"))),
        reply_to=node.requests.address(),
    )


def _sealed(node: Node, message: OutgoingMessage) -> Envelope:
    now = node.clock()
    (sealed,) = seal([message.at(now, new_id=uuid7(now))], node.identity.sealer())
    return parse_envelope(sealed.wire)


async def _send(stage: Stage, node: Node, envelope: Envelope, code: Code) -> Outcome:
    """Send on core NATS, because a stream would deduplicate the message."""
    before = _count(stage, code)
    node.transport.send([Outgoing(subject="call.inventory.read", payload=encode_envelope(envelope))])
    return await _refused(stage, code, before)


async def _publish(stage: Stage, captured: Delivery, message_id: str) -> PubAck:
    (ack,) = await stage.operator.publish(
        [Outgoing(subject=captured.subject, payload=captured.payload, message_id=message_id)], deadline=5.0
    )
    if not isinstance(ack, PubAck):
        raise Overloaded("the captured message was not stored")
    return ack


def _count(stage: Stage, code: Code) -> int:
    return stage.refused.get(str(code), 0)


async def _refused(stage: Stage, code: Code, before: int) -> Outcome:
    await stage.refusal(str(code), before)
    return Outcome(got=REFUSED, code=str(code))


def _expected(code: Code) -> Outcome:
    return Outcome(got=REFUSED, code=str(code))


THIEF: Final = "a program that can write to NATS"

ATTACKERS: Final = (
    Scene(
        name="a captured task sent again",
        actor=THIEF, user="alice", attempt="the bytes of her last update, as they were",
        expected=_expected(Code.REPLAYED), play=_sent_again,
    ),
    Scene(
        name="a captured task under another id",
        actor=THIEF, user="alice", attempt="the same bytes with a Nats-Msg-Id that the stream does not know",
        expected=_expected(Code.MALFORMED), play=_sent_again_otherwise,
    ),
    Scene(
        name="one flipped bit",
        actor=THIEF, user="alice", attempt="inventory.read with one bit of its body changed",
        expected=_expected(Code.BAD_DIGEST), play=_flipped_bit,
    ),
    Scene(
        name="a reply redirected",
        actor="shop-web", user="alice", attempt="inventory.read, the answer to go to the inbox of the stranger",
        expected=_expected(Code.WRONG_SUBJECT), play=_redirected,
    ),
    Scene(
        name="a copied context",
        actor=STRANGER, user="alice", attempt="inventory.update with a context that was given to shop-web",
        expected=_expected(Code.BAD_CHAIN), play=_copied_context,
    ),
    Scene(
        name="an event used as a parent",
        actor=STRANGER, attempt="inventory.update, claimed to follow from an event of inventory",
        expected=_expected(Code.BAD_CHAIN), play=_event_as_parent,
    ),
)  # fmt: skip
