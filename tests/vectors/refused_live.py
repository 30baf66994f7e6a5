"""Refusals of the live profile by place, time, replay, proof, body and grants: steps 3 to 6, 8, 9 and 12."""

from __future__ import annotations

from dataclasses import replace

from vectors.cases import Case, call_given, live
from vectors.issuing import EDGE, HOUR, MINUTE, NOW, PLANNER, SECOND, Json, Party, party
from vectors.world import BODY, Message, batch, header_block, message_id

from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, sign_batch

__all__ = ["at", "call", "cases", "event", "restored", "stream"]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def stream(**changes: Json) -> Json:
    """Return a stream's arrival; `changes` differ from what a case is given otherwise."""
    arrival: dict[str, Json] = {
        "name": "TASKS",
        "sequence": 1,
        "subject": "task.inventory.update",
        "header_block": header_block(message_id(2)).hex(),
        "stored": NOW + SECOND,
        "created": NOW - HOUR,
    }
    return arrival | changes


def restored(before: int, created: int, last: int = 1, stream: str = "TASKS") -> Json:
    """Return a stream that was restored, as a notary names it."""
    return {"stream": stream, "before": before, "created": created, "last": last}


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


def at(name: str, message: Message, expect: tuple[str, int] | None = None, **given: Json) -> Case:
    """Return a case in which `message` arrives from a stream on the subject that it says."""
    entries = message.entries()
    to, identifier = entries["to"], entries["id"]
    assert isinstance(to, str)
    assert isinstance(identifier, bytes)
    arrival = stream(subject=to, header_block=header_block(identifier).hex())
    return live(name, message, expect, stream=arrival, **given)


def _place() -> list[Case]:
    plain = Message()
    kind, subject, audience = ("wrong_kind", 3), ("wrong_subject", 3), ("wrong_audience", 4)
    elsewhere = [
        "task.planner.update", "task.inventory", "task.inventory.update.1.2", "call.inventory.update",
        "event.inventory.update", "tasks.inventory.update", "inventory.update", "task.Inventory.update",
        "task.inventory._cancel", "task.inventory._cancel.1", "task.inventory._", "control.inventory",
        "control.inventory.stop", "control.inventory._cancel", "control.inventory.cancel.1", "control.inventory.Cancel",
        "control.planner.cancel",
    ]  # fmt: skip
    own: list[Json] = [{"subject": "orders.created", "kind": "event", "owner": PLANNER, "action": "orders.created"}]
    pricing = "spiffe://example.org/agent/pricing"
    return [
        live("a task where only events are handled", plain, kind, kinds=["event"]),
        at("a call where tasks are handled", call(), kind),
        at("a call from a stream", call(), kind, kinds=["call"]),
        live("a task over core NATS", plain, kind, **call_given(subject="task.inventory.update") | {"kinds": ["task"]}),
        live("a reply", _reply(), kind, **call_given(subject="_INBOX.inventory.1")),
        live("another subject than was signed", plain, subject, stream=stream(subject="task.inventory.delete")),
        *(at(f"a task to {to}", Message(fields={"to": to}), subject) for to in elsewhere),
        at("an event of another", event(to="event.pricing.done"), subject),
        at("an event of four tokens", event(to="event.planner.a.b"), subject),
        live("a call of four tokens", call(to="call.inventory.a.b"), subject,
             **call_given(subject="call.inventory.a.b")),
        at("an event whose name begins with _", event(to="event.planner._done"), subject),
        at("an event where agents are told", event(to="control.planner.cancel"), subject),
        live("a call of a verb that begins with _", call(to="call.inventory._cancel"), subject,
             **call_given(subject="call.inventory._cancel")),
        live("a call where agents are told", call(to="control.inventory.cancel"), subject,
             **call_given(subject="control.inventory.cancel")),
        live("replies to another's inbox", call(rpl="_INBOX.pricing.1"), subject, **call_given()),
        live("replies to no inbox", call(rpl="reply.planner.1"), subject, **call_given()),
        live("replies to an inbox of a longer name", call(rpl="_INBOX.planner2.1"), subject, **call_given()),
        at("an own subject of another kind", Message(fields={"to": "orders.created"}), subject, own_subjects=own),
        at("an own subject of another owner", event(party(pricing), to="orders.created"), subject, own_subjects=own),
        at("an own subject that is not declared", event(to="orders.created"), subject),
        live("a task for another", plain, subject, own=pricing, stream=stream(subject="task.pricing.update")),
        live("a task for another, on its subject", plain, audience, own=pricing),
        at("an event for another", event(aud=pricing), audience),
    ]  # fmt: skip


def _reply() -> Message:
    own: dict[str, object] = {
        "t": "reply", "to": "_INBOX.inventory.1", "exp": NOW + MINUTE, "end": None, "re": bytes(32),
    }  # fmt: skip
    return Message(fields=own)


def _time() -> list[Case]:
    plain = Message()
    early, expired = ("not_yet_valid", 5), ("expired", 5)
    return [
        live("stored 5 s and 1 us before iat", plain, early, stream=stream(stored=NOW - 5 * SECOND - 1)),
        live("a call from 5 s and 1 us ahead", call(), early, **call_given() | {"now": NOW - 5 * SECOND - 1}),
        live("stored at exp", Message(fields={"exp": NOW + SECOND}), expired),
        live("handled at exp", Message(fields={"exp": NOW + 2 * SECOND}), expired),
        live("a call at its exp", call(), expired, **call_given() | {"now": NOW + MINUTE}),
    ]


def _blocks() -> list[Case]:
    ours = b"Nats-Msg-Id: " + message_id(2).hex().encode()
    upper = b"Nats-Msg-Id: " + message_id(0xABCDEF).hex().upper().encode()
    blocks: dict[str, bytes] = {
        "no header block": b"",
        "a block without the id": b"NATS/1.0\r\nX: y\r\n\r\n",
        "a block of nothing": b"NATS/1.0\r\n\r\n",
        "the id of another": header_block(message_id(3)),
        "the id twice": header_block(message_id(2), ours),
        "the id twice, once in lower case": header_block(message_id(2), ours.lower()),
        "the id in lower case": b"NATS/1.0\r\n" + ours.lower() + b"\r\n\r\n",
        "a second id with a space before its colon": header_block(message_id(2), b"Nats-Msg-Id : x"),
        "a second id with a tab before its colon": header_block(message_id(2), b"Nats-Msg-Id\t: x"),
        "a second id after a space": header_block(message_id(2), b" Nats-Msg-Id: x"),
        "a folded line": header_block(message_id(2), b"X: y", b" z"),
        "a line folded with a tab": header_block(message_id(2), b"X: y", b"\tz"),
        "the id without a space": b"NATS/1.0\r\n" + ours.replace(b": ", b":") + b"\r\n\r\n",
        "the id with two spaces": b"NATS/1.0\r\n" + ours.replace(b": ", b":  ") + b"\r\n\r\n",
        "the id with a space after it": b"NATS/1.0\r\n" + ours + b" \r\n\r\n",
        "another name in nats-": header_block(message_id(2), b"Nats-Expected-Stream: TASKS"),
        "another name in NATS-": header_block(message_id(2), b"NATS-Rollup: all"),
        "a bare CR": header_block(message_id(2), b"X: y\rz"),
        "a bare LF": header_block(message_id(2), b"X: y\nz"),
        "a block that ends early": header_block(message_id(2))[:-2],
        "a block that goes on": header_block(message_id(2)) + b"X: y\r\n\r\n",
        "an empty line inside": header_block(message_id(2), b"", b"X: y"),
        "another version": header_block(message_id(2)).replace(b"1.0", b"1.1"),
        "a status line": header_block(message_id(2)).replace(b"1.0", b"1.0 503"),
    }
    return [
        *(live(name, Message(), ("malformed", 6), stream=stream(header_block=one.hex()))
          for name, one in blocks.items()),
        live("the id in upper case", Message(fields={"id": message_id(0xABCDEF)}), ("malformed", 6),
             stream=stream(header_block=(b"NATS/1.0\r\n" + upper + b"\r\n\r\n").hex())),
    ]  # fmt: skip


def _replay() -> list[Case]:
    replayed = ("replayed", 6)
    seen: list[Json] = [{"iss": PLANNER, "id": message_id(2).hex(), "exp": NOW + MINUTE}]
    others: list[Json] = [{"iss": PLANNER, "id": message_id(3).hex(), "exp": NOW + MINUTE}]
    return [
        live("stored 60 s and 1 us after iat", Message(), replayed,
             stream=stream(stored=NOW + MINUTE + 1), now=NOW + 2 * MINUTE),
        live("made before the stream", Message(), replayed, stream=stream(created=NOW + 1)),
        *(live(f"restored, and {name}", Message(), replayed, stream=stream(**{"created": NOW + HOUR} | at), restored=rows)
          for name, rows, at in _restored()),
        live("a call from before this process", call(), replayed, **call_given(started=NOW + 1)),
        live("a call from before the audit stream", call(), replayed, **call_given(audit_created=NOW + 1)),
        live("a call again", call(), replayed, **call_given(seen=seen)),
        live("another call under its id", call(typ="text/plain"), replayed, **call_given(seen=seen)),
        live("a call that cannot be remembered", call(), ("overloaded", 6), **call_given(memory=1, seen=others)),
    ]  # fmt: skip


def _restored() -> list[tuple[str, list[Json], dict[str, Json]]]:
    """Return restorations that do not make the message, which was made at NOW, an early one of its stream."""
    created, made = NOW + HOUR, NOW - HOUR
    return [
        ("nobody says so", [], {}),
        ("from a younger stream", [restored(NOW + 1, created)], {}),
        ("another stream", [restored(made, created, stream="EVENTS")], {}),
        ("again, under another creation", [restored(made, created - 1), restored(made, created + 1)], {}),
        ("stored behind what was", [restored(made, created, 6)], {"sequence": 7}),
        ("stored since", [restored(made, NOW + SECOND)], {"created": NOW + SECOND}),
        ("twice, a chain with a gap", [restored(made, NOW + 2 * SECOND), restored(NOW + 3 * SECOND, created)], {}),
        ("twice, stored behind the first", [restored(made, NOW + 2 * SECOND), restored(NOW + 2 * SECOND, created, 2)],
         {"sequence": 2}),
        ("stored too long after iat", [restored(made, created)], {"stored": NOW + MINUTE + 1}),
    ]  # fmt: skip


def _proofs() -> list[Case]:
    plain = Message()
    proof = plain.prf()
    r, s = proof.signature[:32], proof.signature[32:]
    first, second, third = batch(*(Message(fields={"id": message_id(number)}) for number in (2, 3, 4)))
    [context_proof] = sign_batch([leaf_hash(plain.raw())], CONTEXT_TYPE, plain.sender.key)
    assert first.proof is not None
    assert third.proof is not None
    two = first.proof
    wrong: dict[str, Message] = {
        "a flipped bit in r": replace(plain, proof=proof._replace(signature=bytes([r[0] ^ 1]) + r[1:] + s)),
        "a flipped bit in s": replace(plain, proof=proof._replace(signature=r + s[:31] + bytes([s[31] ^ 1]))),
        "s in the upper half": replace(
            plain, proof=proof._replace(signature=r + (_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big"))
        ),
        "r of 0": replace(plain, proof=proof._replace(signature=bytes(32) + s)),
        "s of 0": replace(plain, proof=proof._replace(signature=r + bytes(32))),
        "r of n": replace(plain, proof=proof._replace(signature=_ORDER.to_bytes(32, "big") + s)),
        "a signature for a context": replace(plain, proof=context_proof),
        "another's signature": replace(plain, proof=Message(sender=party(PLANNER, "thief")).prf()),
        "another size": replace(first, proof=two._replace(size=4)),
        "another index": replace(first, proof=two._replace(index=1)),
        "a node missing": replace(first, proof=two._replace(path=two.path[:-1])),
        "a node too many": replace(first, proof=two._replace(path=(*two.path, bytes(32)))),
        "nodes in another order": replace(first, proof=two._replace(path=two.path[::-1])),
        "another leaf of the batch": replace(second, proof=two),
        "the last leaf with a full path": replace(
            third, proof=third.proof._replace(path=(bytes(32), *third.proof.path))
        ),
        "a path where there is one leaf": replace(plain, proof=Proof(1, 0, (bytes(32),), proof.signature)),
        "a header whose bytes were changed": replace(
            plain, header=plain.raw().replace(b"application/json", b"application/jsom"), proof=proof
        ),
    }
    return [live(name, message, ("bad_signature", 8), stream=_by_id(message)) for name, message in wrong.items()]


def _by_id(message: Message) -> Json:
    identifier = message.entries()["id"]
    assert isinstance(identifier, bytes)
    return stream(header_block=header_block(identifier).hex())


def _bodies() -> list[Case]:
    plain = Message()
    bodies: dict[str, bytes] = {
        "a changed body": BODY.replace(b"42", b"43"), "a longer body": BODY + b" ", "no body": b"",
    }  # fmt: skip
    return [live(name, replace(plain, elements={2: body}), ("bad_digest", 9)) for name, body in bodies.items()]


def _grants() -> list[Case]:
    limits: dict[str, list[str]] = {
        "nothing granted": [], "another action granted": ["inventory.delete"], "a prefix of its agent": ["inventory"],
        "a longer prefix": ["inventory.update.*"], "another agent's actions": ["pricing.*", "planner.update"],
    }  # fmt: skip
    cases = []
    for name, grants in limits.items():
        parent = Message(sender=party(EDGE), fields={"aud": PLANNER, "to": "task.planner.plan", "grt": grants})
        cases.append(live(name, Message(ancestors=(parent.ancestor(),)), ("grant_exceeded", 12)))
    root = Message(sender=party(EDGE), fields={"aud": PLANNER, "to": "task.planner.plan", "grt": ["planner.*"]})
    again = Message(
        fields={"aud": PLANNER, "to": "task.planner.step", "id": message_id(5)}, ancestors=(root.ancestor(),)
    )
    far = Message(ancestors=(again.ancestor(), root.ancestor()))
    return [*cases, live("not granted by the root", far, ("grant_exceeded", 12))]
