"""The live profile: every kind, lone and batched, with and without user and chain, at the edges of what is allowed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from vectors.cases import LIFETIMES, Case, call_given, live
from vectors.issuing import BROKER, EDGE, HOUR, INVENTORY, MINUTE, NOW, PLANNER, SECOND, Json, party, token
from vectors.refused_live import at, call, event, restored, stream
from vectors.refused_trust import parent
from vectors.world import Message, batch, context, header_block, message_id

from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.proof import Credential

__all__ = ["cases"]

_TOKEN = "id-" + sha256(EDGE.encode()).hexdigest()[:32]
"""The token of the edge, which has no name."""


def cases() -> list[Case]:
    """Return the cases."""
    return [*_kinds(), *_edges(), *_credentials(), *_users()]


def _kinds() -> list[Case]:
    task, fact = Message(), event()
    three = batch(*(Message(fields={"id": message_id(number)}) for number in (2, 3, 4)))
    mixed = batch(task, fact, call())
    everything = Message(
        fields={
            "idm": "order-1", "re": bytes(32), "sch": "update/1", "tid": bytes(range(16)),
            "grt": ["a.b", "inventory.*"],
            "ext": {"b": b"bytes", "f": False, "i": -(2**53 - 1), "j": 2**53 - 1, "t": "text"},
        }
    )  # fmt: skip
    own: list[Json] = [
        {"subject": "orders.created", "kind": "event", "owner": PLANNER, "action": "orders.created"},
        {"subject": "orders.place", "kind": "task", "owner": INVENTORY, "action": "orders.place"},
    ]
    return [
        live("a task", task),
        live("a call", call(), **call_given()),
        at("an event", fact),
        at("an event for us", event(aud=INVENTORY)),
        at("a task with a partition", Message(fields={"to": "task.inventory.update.7"})),
        at("a task with a partition that begins with _", Message(fields={"to": "task.inventory.update._7"})),
        at("a cancel", Message(fields={"to": "control.inventory.cancel", "re": bytes(32)}), action="inventory._cancel"),
        live("a task that is marked as detached", Message(fields={"ext": {"_det": True}})),
        live("a task with a mark that nobody knows", Message(fields={"ext": {"_new": "text"}})),
        at("an own subject for an event", event(to="orders.created"), own_subjects=own),
        at("an own subject for a task", Message(fields={"to": "orders.place"}), own_subjects=own),
        *(at(f"number {number} of a batch of 3", one) for number, one in enumerate(three)),
        live("a task of a batch of three kinds", mixed[0]),
        at("an event of a batch of three kinds", mixed[1]),
        live("a call of a batch of three kinds", mixed[2], **call_given()),
        live("a task with everything", everything),
        live("a task whose body is empty", Message(body=b"")),
        live("a task whose body is as long as it may be", Message(body=bytes(917_504))),
        live("a task whose grants are empty", Message(fields={"grt": []})),
        live("other headers beside the id", task,
             stream=stream(header_block=header_block(message_id(2), b"traceparent: 00", b"X-Nats-y: z").hex())),
        at("an event from another trust domain, by a name of the table", event(party(BROKER), to="event.broker.done")),
        at("an event of an ID without a name", event(party(EDGE), to=f"event.{_TOKEN}.done")),
    ]  # fmt: skip


def _edges() -> list[Case]:
    long = {"exp": NOW + 24 * HOUR, "end": NOW + 24 * HOUR}
    return [
        live("a life of 24 h", Message(fields=long)),
        live("an end of 24 h", Message(fields={"end": NOW + 24 * HOUR})),
        live("stored 5 s before iat", Message(), stream=stream(stored=NOW - 5 * SECOND)),
        live("stored 60 s after iat", Message(), stream=stream(stored=NOW + MINUTE), now=NOW + 2 * MINUTE),
        live("stored just before exp", Message(fields={"exp": NOW + 2 * SECOND + 1}),
             stream=stream(stored=NOW + 2 * SECOND)),
        live("handled just before exp", Message(), now=NOW + HOUR - 1),
        live("made when the stream was", Message(), stream=stream(created=NOW)),
        live("restored", Message(), stream=stream(created=NOW + HOUR, sequence=7),
             restored=[restored(NOW, NOW + HOUR, 7), restored(NOW, NOW + HOUR, 7, "EVENTS")]),
        live("restored twice", Message(), stream=stream(created=NOW + HOUR, sequence=7), restored=[
            restored(NOW - HOUR, NOW + 2 * SECOND, 7), restored(NOW + 2 * SECOND, NOW + HOUR, 9)]),
        live("restored twice, made before the second", Message(), stream=stream(created=NOW + HOUR, sequence=9), restored=[
            restored(NOW - 2 * HOUR, NOW - HOUR, 7), restored(NOW - HOUR, NOW + HOUR, 9)]),
        live("in a restored stream since then", Message(), stream=stream(created=NOW - MINUTE, sequence=3),
             restored=[restored(NOW - HOUR, NOW - MINUTE, 7)]),
        live("a call made when this process started", call(), **call_given(started=NOW, audit_created=NOW)),
        live("a call under another's id", call(), **call_given(
            seen=[{"iss": EDGE, "id": message_id(2).hex(), "exp": NOW + MINUTE}])),
        live("a call that fills the memory", call(), **call_given(
            memory=2, seen=[{"iss": PLANNER, "id": message_id(3).hex(), "exp": NOW + MINUTE}])),
        live("a call when what filled the memory has expired", call(), **call_given(
            memory=1, seen=[{"iss": PLANNER, "id": message_id(3).hex(), "exp": NOW + 2 * SECOND}])),
        at("a subject of 255 bytes", Message(fields={"to": "task.inventory." + "u" * 240})),
    ]  # fmt: skip


def _credentials() -> list[Case]:
    own = party(PLANNER).key.public
    made = {
        "ES384": token(PLANNER, own, kid="es384"),
        "ES512": token(PLANNER, own, kid="es512"),
        "RS256": token(PLANNER, own, kid="rsa", alg="RS256"),
        "RS384": token(PLANNER, own, kid="rsa", alg="RS384"),
        "RS512": token(PLANNER, own, kid="rsa", alg="RS512"),
        "PS256": token(PLANNER, own, kid="rsa", alg="PS256"),
        "a key whose use is jwt-svid": token(PLANNER, own, kid="used"),
        "aud as an array of one": token(PLANNER, own, claims={"aud": [own.thumbprint]}),
        "typ JOSE": token(PLANNER, own, header={"typ": "JOSE"}),
        "no typ": token(PLANNER, own, header={"typ": None}),
        "other claims": token(PLANNER, own, claims={"jti": "x", "iss": "https://spire", "nbf": 9**9, "x": [[{}]]}),
        "JSON eight deep": token(PLANNER, own, claims={"x": [[[[[[[]]]]]]]}),
        "issued 5 s after it was stored": token(PLANNER, own, claims={"iat": (NOW + 6 * SECOND) // SECOND}),
        "a life of 24 h": token(PLANNER, own, claims={"exp": (NOW - MINUTE + 24 * HOUR) // SECOND}),
        "ends a second after it was stored": token(PLANNER, own, claims={"exp": NOW // SECOND + 2}),
    }
    return [
        *(live(f"a token: {name}", Message(credential=Credential(1, one))) for name, one in made.items()),
        live("a token issued when revocation begins", Message(), revoked_before={PLANNER: NOW - MINUTE}),
    ]


def _users() -> list[Case]:
    user, for_planner = context(), context(wkl=PLANNER)
    full = context(ten="acme", wkl=PLANNER, acr="mfa", amr=["pwd", "otp"], aut=NOW - HOUR, req={"ip": "192.0.2.1"})
    mia = context(sub="mia@partner.example", dom="partner.example", wkl=PLANNER)
    build = context(sub="repo:acme/shop@ci.example", dom="ci.example", typ="workload", wkl=PLANNER)
    of_edge = party(EDGE)
    above = parent(user)
    step = Message(
        context=user,
        ancestors=(above.ancestor(),),
        fields={"aud": PLANNER, "to": "task.planner.step", "id": message_id(5)},
    )
    first, second = batch(parent(user), parent(user, id=message_id(6)))
    granted = parent(user, grt=["pricing.*", "inventory.update"])
    early, at_exp = context(iat=NOW + 5 * SECOND), context(iat=NOW - 30 * SECOND, exp=NOW + 1)
    longest, day = context(exp=NOW + HOUR, end=NOW + 8 * HOUR), context(exp=NOW + 24 * HOUR, end=NOW + 24 * HOUR)
    long_parent = parent(end=NOW + 24 * HOUR)
    plain_parent = parent()
    soon = token(EDGE, of_edge.key.public, claims={"exp": NOW // SECOND + 1})
    ending = replace(plain_parent, credential=Credential(1, soon))
    called = parent(t="call", to="call.planner.plan", exp=NOW + MINUTE, end=NOW + MINUTE, rpl=f"_INBOX.{_TOKEN}.1")

    def child(*ancestors: Ancestor, of: Message = above) -> Message:
        return Message(context=of.context, ancestors=ancestors)

    return [
        live("the edge's task for a user", Message(sender=of_edge, context=user)),
        live("a workload's task with a context minted for it", Message(context=for_planner)),
        live("a user of whom everything is known", Message(context=full)),
        live("a user of a partner", Message(context=mia)),
        live("a workload of CI", Message(context=build)),
        live("a client that acts for itself", Message(context=context(sub="web", typ="client", wkl=PLANNER))),
        live("a task sent while handling the edge's", child(above.ancestor())),
        live("a task two hops from the edge", child(step.ancestor(), above.ancestor(), of=step)),
        live("a task whose parent was of a batch", child(second.ancestor(), of=first)),
        live("a chain without a user", child(plain_parent.ancestor(), of=plain_parent)),
        live("a chain of eight", _long()),
        live("an action that its parent granted", child(granted.ancestor(), of=granted)),
        live("a root from 5 s before its context", child(parent(early).ancestor(), of=parent(early))),
        live("a root just before its context's exp", child(parent(at_exp).ancestor(), of=parent(at_exp))),
        live("made 5 s before its parent", child(parent(iat=NOW + 5 * SECOND).ancestor(), of=plain_parent)),
        live("ends with its parent", child(parent(end=NOW + HOUR).ancestor(), of=plain_parent)),
        live("a parent that is a call", replace(
            child(called.ancestor(), of=plain_parent), fields={"exp": NOW + MINUTE, "end": NOW + MINUTE})),
        live("a call for a user, with its chain", replace(call(), context=user, ancestors=(above.ancestor(),)),
             **call_given()),
        live("a context that lives as long as this reader lets it", Message(sender=of_edge, context=longest)),
        live("a context of 24 h, for a reader that lets it", Message(sender=of_edge, context=day),
             lifetimes={**LIFETIMES, "context_start": 24 * HOUR, "context_life": 24 * HOUR}),
        live("a chain of 24 h without a user", child(long_parent.ancestor(), of=long_parent)),
        live("a chain with a user, for a reader that lets others live a minute", child(above.ancestor()),
             lifetimes={**LIFETIMES, "chain_life": MINUTE}),
        live("a chain just before a reader's time after its ancestor's credential", child(ending.ancestor(), of=ending),
             lifetimes={**LIFETIMES, "chain_after": 1}),
    ]  # fmt: skip


def _long() -> Message:
    links: list[Message] = []
    for number in range(8):
        above = tuple(link.ancestor() for link in reversed(links))
        fields = {"aud": PLANNER, "to": "task.planner.step", "id": message_id(40 + number)}
        links.append(Message(fields=fields, ancestors=above))
    return Message(ancestors=tuple(link.ancestor() for link in reversed(links)))
