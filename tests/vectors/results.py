"""The result profile: answers that are taken, ignored and refused."""

from __future__ import annotations

from dataclasses import replace

from vectors.cases import Case, pieces, result
from vectors.issuing import HOUR, INVENTORY, MINUTE, NOW, PLANNER, PRICING, SECOND, Json, party
from vectors.refused_live import call
from vectors.refused_trust import parent
from vectors.world import Message, batch, context, message_id

from sealbus.envelopes.trust.proof import Credential, Proof

__all__ = ["accepted", "refused"]

_INBOX = "_INBOX.planner.1"
_CALL = call(aud=PRICING, to="call.pricing.quote")
_TASK = Message(fields={"aud": PRICING, "to": "task.pricing.quote"})
_STATUS = f"status.planner.{message_id(2).hex()}"
_FORGED = Proof(1, 0, (), b"\x01" * 64)


def _asked() -> list[Json]:
    """Return the call and the task that the planner asked of pricing."""
    one: dict[str, Json] = {"digest": _CALL.digest().hex(), "id": message_id(2).hex(), "aud": PRICING}
    return [
        one | {"end": NOW + MINUTE, "rpl": _INBOX},
        one | {"digest": _TASK.digest().hex(), "end": NOW + HOUR},
    ]


def _answer(kind: str, **fields: object) -> Message:
    own: dict[str, object] = {
        "t": kind, "to": _INBOX, "aud": PLANNER, "end": None, "exp": NOW + MINUTE, "id": message_id(7),
        "re": _CALL.digest(),
    }  # fmt: skip
    if kind == "chunk":
        own["seq"] = 0
    if kind == "status":
        own |= {"seq": 0, "to": _STATUS, "re": _TASK.digest(), "exp": NOW + HOUR}
    return Message(sender=party(PRICING), fields=own | fields)


def _now(time: int = NOW + SECOND, *before: Message, subject: str = _INBOX) -> dict[str, Json]:
    return {"subject": subject, "now": time, "before": [pieces(one.payload()) for one in before]}


def _stored(time: int = NOW + SECOND, *before: Message, subject: str = _STATUS) -> dict[str, Json]:
    return {"subject": subject, "stored": time, "before": [pieces(one.payload()) for one in before]}


def accepted() -> list[Case]:
    """Return answers that are taken or ignored."""
    asked = _asked()
    reply, chunk, status = _answer("reply"), _answer("chunk"), _answer("status")
    second = _answer("chunk", seq=1, fin=True, id=message_id(8))
    done = _answer("status", seq=3, fin=True, id=message_id(8))
    first, _ = batch(reply, _answer("reply", id=message_id(9)))
    other_key = replace(_answer("reply", id=message_id(9)), sender=party(PRICING, "a replica"))
    return [
        result("a reply", reply, asked, **_now()),
        result("a reply of a batch", first, asked, **_now()),
        result("a reply just before the call's end", _answer("reply", iat=NOW + 50 * SECOND, exp=NOW + 2 * MINUTE
               - 10 * SECOND), asked, **_now(NOW + MINUTE - 1)),
        result("a reply from 5 s ahead", reply, asked, **_now(NOW - 5 * SECOND)),
        result("a reply after a chunk, of another key", other_key, asked, **_now(NOW + SECOND, chunk)),
        result("the first chunk", chunk, asked, **_now()),
        result("the second and last chunk", second, asked, **_now(NOW + SECOND, chunk)),
        result("the only chunk", _answer("chunk", fin=True), asked, **_now()),
        result("a status", status, asked, **_stored()),
        result("a status after another, not the next", done, asked, **_stored(NOW + MINUTE, status)),
        result("a status stored just before the task's end", done, asked, **_stored(NOW + HOUR - 1)),
        result("a status again", status, asked, "ignored", **_stored(NOW + MINUTE, status)),
        result("a status again, after the terminal one", status, asked, "ignored",
               **_stored(NOW + MINUTE, status, done)),
        result("the terminal status again", done, asked, "ignored", **_stored(NOW + MINUTE, done)),
        result("another status of a number that counted", _answer("status", id=message_id(11), fin=True), asked,
               "ignored", **_stored(NOW + MINUTE, status)),
    ]  # fmt: skip


def refused() -> list[Case]:
    """Return answers that are refused; none of them changes the state of its request."""
    asked = _asked()
    reply, chunk, status = _answer("reply"), _answer("chunk"), _answer("status")
    last = _answer("chunk", seq=1, fin=True, id=message_id(8))
    done = _answer("status", seq=3, fin=True, id=message_id(8))
    second = _answer("chunk", seq=1, id=message_id(8))
    unexpected = ("unexpected_reply", 4)
    elsewhere = f"status.planner.{message_id(3).hex()}"
    return [
        result("a status among replies", status, asked, ("wrong_kind", 3), **_now(subject=_STATUS)),
        result("a reply among statuses", reply, asked, ("wrong_kind", 3), **_stored(subject=_INBOX)),
        result("a call among replies", _CALL, asked, ("wrong_kind", 3), **_now(subject="call.pricing.quote")),
        result("a reply on another subject", reply, asked, ("wrong_subject", 3), **_now(subject="_INBOX.planner.2")),
        result("a reply to another's inbox", _answer("reply", to="_INBOX.inventory.1"), asked, ("wrong_subject", 3),
               **_now(subject="_INBOX.inventory.1")),
        result("a status on another's subject", _answer("status", to=f"status.inventory.{message_id(2).hex()}"), asked,
               ("wrong_subject", 3), **_stored(subject=f"status.inventory.{message_id(2).hex()}")),
        result("a reply for another", reply, asked, ("wrong_audience", 4), **_now(), own=INVENTORY),
        result("a reply to nothing of ours", _answer("reply", re=bytes(32)), asked, unexpected, **_now()),
        result("a reply by another", replace(reply, sender=party(INVENTORY)), asked, unexpected, **_now()),
        result("a reply in another of our inboxes", _answer("reply", to="_INBOX.planner.2"), asked, unexpected,
               **_now(subject="_INBOX.planner.2")),
        result("a status of another task's subject", _answer("status", to=elsewhere), asked, unexpected,
               **_stored(subject=elsewhere)),
        result("a reply to a task", _answer("reply", re=_TASK.digest()), asked, unexpected, **_now()),
        result("a status of a call", _answer("status", re=_CALL.digest()), asked, unexpected, **_stored()),
        result("a second reply", _answer("reply", id=message_id(9)), asked, unexpected, **_now(NOW + SECOND, reply)),
        result("the same reply again", reply, asked, unexpected, **_now(NOW + SECOND, reply)),
        result("a chunk after a reply", chunk, asked, unexpected, **_now(NOW + SECOND, reply)),
        result("a reply after the last chunk", reply, asked, unexpected, **_now(NOW + SECOND, chunk, last)),
        result("a chunk after the last one", _answer("chunk", seq=2), asked, unexpected,
               **_now(NOW + SECOND, chunk, last)),
        result("the second chunk first", second, asked, unexpected, **_now()),
        result("the first chunk again", chunk, asked, unexpected, **_now(NOW + SECOND, chunk)),
        result("a chunk left out", _answer("chunk", seq=2), asked, unexpected, **_now(NOW + SECOND, chunk)),
        result("a chunk of another key", replace(second, sender=party(PRICING, "a replica")), asked, unexpected,
               **_now(NOW + SECOND, chunk)),
        result("a status after the terminal one", _answer("status", seq=4, fin=True), asked, unexpected,
               **_stored(NOW + MINUTE, done)),
        result("a reply at the call's end", _answer("reply", exp=NOW + MINUTE, iat=NOW + SECOND), asked, unexpected,
               **_now(NOW + MINUTE)),
        result("a status stored at the task's end", done, asked, unexpected, **_stored(NOW + HOUR)),
        result("a reply from over 5 s ahead", reply, asked, ("not_yet_valid", 5), **_now(NOW - 5 * SECOND - 1)),
        result("a reply at its exp", _answer("reply", exp=NOW + SECOND), asked, ("expired", 5), **_now()),
        result("a status stored at its exp", _answer("status", exp=NOW + SECOND), asked, ("expired", 5), **_stored()),
        result("a reply with another's credential", replace(reply, elements={4: party(PLANNER).credential}), asked,
               ("bad_credential", 7), **_now()),
        result("a reply with a credential of kind 2", replace(reply, credential=Credential(2, b"token")), asked,
               ("bad_credential", 7), **_now()),
        result("a status of whom was revoked", status, asked, ("revoked", 7), **_stored(),
               revoked_before={PRICING: NOW}),
        result("a reply by a key that nobody knows", reply, asked, ("unknown_key", 7), **_now(), bundles="rotated"),
        result("a reply under another signature", replace(reply, proof=_FORGED), asked, ("bad_signature", 8), **_now()),
        result("another body", replace(reply, elements={2: b"{}"}), asked, ("bad_digest", 9), **_now()),
        result("a reply with a user", replace(reply, elements={5: context()}), asked, ("bad_context", 10), **_now()),
        result("a status with an ancestor", replace(status, elements={6: [parent().ancestor()]}), asked,
               ("bad_chain", 11), **_stored()),
    ]  # fmt: skip
