"""Refusals of the live profile by place, time, replay, proof, body and grants: steps 3 to 6, 8, 9 and 12."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vectors.cases import Case, call_given, live
from vectors.issuing import BROKER, EDGE, HOUR, INVENTORY, MINUTE, NOW, PLANNER, SECOND, Json, Party, party
from vectors.world import BODY, Message, batch, context, header_block, message_id

from sealbus.envelopes.codec import pack
from sealbus.envelopes.merkle import leaf_hash
from sealbus.envelopes.signature import CONTEXT_TYPE, sign_batch
from sealbus.envelopes.wire import Proof

__all__ = ["call", "cases", "event", "stream"]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def stream(**changes: Json) -> Json:
    """Return a stream's arrival; `changes` differ from what a case is given otherwise."""
    arrival: dict[str, Json] = {
        "subject": "task.inventory.update",
        "header_block": header_block(message_id(2)).hex(),
        "stored": NOW + SECOND,
        "created": NOW - HOUR,
    }
    return arrival | changes


def call(**fields: object) -> Message:
    """Return the planner's call to the inventory."""
    own: dict[str, object] = {
        "t": "call", "to": "call.inventory.update", "exp": NOW + MINUTE, "end": NOW + MINUTE, "rpl": "_INBOX.planner.1",
    }  # fmt: skip
    return Message(fields=own | fields)


def event(sender: Party | None = None, **fields: object) -> Message:
    """Return an event of the planner, or of `sender`."""
    own: dict[str, object] = {"t": "event", "to": "event.planner.done", "aud": None, "end": None}
    return Message(sender=sender if sender is not None else party(PLANNER), fields=own | fields)


def cases() -> list[Case]:
    """Return the cases."""
    return [*_place(), *_time(), *_blocks(), *_replay(), *_proofs(), *_bodies(), *_grants()]


def _place() -> list[Case]:
    plain = Message()
    kind, subject, audience = ("wrong_kind", 3), ("wrong_subject", 3), ("wrong_audience", 4)

    def on(to: str, **fields: object) -> tuple[Message, dict[str, Json]]:
        return Message(fields={"to": to, **fields}), {"stream": stream(subject=to)}

    elsewhere = [
        "task.planner.update", "task.inventory", "task.inventory.update.1.2", "call.inventory.update",
        "event.inventory.update", "tasks.inventory.update", "inventory.update", "task.Inventory.update",
    ]  # fmt: skip
    own: list[Json] = [{"subject": "orders.created", "kind": "event", "owner": PLANNER, "action": "orders.created"}]
    return [
        live("a task where only events are handled", plain, kind, kinds=["event"]),
        live("a call where tasks are handled", call(), kind, stream=stream(subject="call.inventory.update")),
        live("a task over core NATS", plain, kind, **call_given(subject="task.inventory.update") | {"kinds": ["task"]}),
        live("a call from a stream", call(), kind, kinds=["call"], stream=stream(subject="call.inventory.update")),
        live("another subject than was signed", plain, subject, stream=stream(subject="task.inventory.delete")),
        *(live(f"a task to {to}", *_swap(on(to), subject)) for to in elsewhere),
        live("an event of another", event(to="event.pricing.done"), subject, stream=stream(subject="event.pricing.done")),
        live("an event of four tokens", event(to="event.planner.a.b"), subject, stream=stream(subject="event.planner.a.b")),
        live("a call of four tokens", call(to="call.inventory.a.b"), subject, **call_given(subject="call.inventory.a.b")),
        live("replies to another's inbox", call(rpl="_INBOX.pricing.1"), subject, **call_given()),
        live("replies to no inbox", call(rpl="reply.planner.1"), subject, **call_given()),
        live("replies to an inbox of a longer name", call(rpl="_INBOX.planner2.1"), subject, **call_given()),
        live("an own subject of another kind", *_swap(on("orders.created"), subject), own_subjects=own),
        live("an own subject of another owner", event(party(INVENTORY), to="orders.created"), subject,
             own_subjects=own, stream=stream(subject="orders.created")),
        live("an own subject that is not declared", event(to="orders.created"), subject,
             stream=stream(subject="orders.created")),
        live("for another", plain, audience, own="spiffe://example.org/agent/pricing"),
        live("an event for another", event(aud="spiffe://example.org/agent/pricing"), audience,
             stream=stream(subject="event.planner.done")),
    ]  # fmt: skip


def _swap(
    made: tuple[Message, dict[str, Json]], expect: tuple[str, int]
) -> tuple[Message, tuple[str, int]]:
    raise NotImplementedError
