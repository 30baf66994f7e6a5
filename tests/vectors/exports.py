"""Vectors of exports and of receipts of records: one log with something of everything, and what must be found in others."""

from __future__ import annotations

import json
from copy import copy
from hashlib import sha256
from random import Random
from typing import Any

from support.approved_world import Approval
from support.envelopes import base64url
from support.granted_world import StandingGrant
from support.jose import coordinates_over_the_prime
from support.log_world import NOTARY, Frame, LogKey, World, entry_of, files_of, note, tree_root
from support.memory_files import MemoryFiles
from vectors.issuing import INVENTORY, PLANNER, SECOND, Json
from vectors.recorded import decision, evidence, record_map
from vectors.world import Message

from sealbus.agents.evidence.lookup import look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.envelopes.export.trust_root import Root

__all__ = ["exports", "make_export_world", "message_ident"]


APPROVAL = 3
"""Decisions of an approval: the denial, the verdict, and what rests on it."""
GRANT = 4
"""Decisions of a standing grant: itself, what was done at a tick, what followed from that, and its end."""
STRONG = {
    "type": "approval",
    "queue": "managers",
    "text": "Pay ACME",
    "until": 3600,
    "acr": ["urn:x:2"],
    "max_age": 300,
}


def exports() -> Json:
    """Return the whole file."""
    world = make_export_world()
    files, held = world.files(), note(4, tree_root(_leaves(world)[:4]), world.keys)
    return {
        "root": world.root(),
        "files": {name: data.hex() for name, data in files.items()},
        "expect": {
            "size": len(world.frames),
            "unverified": sum(frame.kind == 0 for frame in world.frames),
            "decisions": len(world.decisions) + APPROVAL + GRANT,
            "decisions_and_outcomes": len({*world.decisions, *world.outcomes}) + APPROVAL + GRANT,
        },
        "held": held.decode(),
        "reject": [*_rejected(world)],
        "receipts": [*_receipts(world), *_receipts(world, held)],
        "reject_receipts": [*_rejected_receipts(world, held)],
    }


def make_export_world() -> World:
    """Return a log with every kind of entry and record, in which the keys of the trust domain are replaced."""
    world = World(Random(11))  # noqa: S311  a log that can be made again
    world.creation(previous=note(7, bytes(32), [LogKey("before", "log.example.org/before")], "log.example.org/before"))
    world.record_bundle("k0")
    world.decided(user=True, chain=1)
    world.garbage()
    world.rotate()
    world.decided(2, sealed_together=True)
    world.gap()
    world.record_policy()
    world.record_checkpoint()
    Approval(world=world, asked=STRONG).put()
    StandingGrant(world=world).put("S T C E")
    world.restore()
    world.frames.append(world.streams_restored("EVENTS 1 2 0", "TASKS 1 3 7"))
    # Stored again: by a recorder that was not sure, and by somebody, once where another's messages are, so that it opens not.
    world.repeat(world.first_decided())
    world.put(world.frames[world.first_decided()].data)
    world.put(world.frames[world.first_decided()].data, 0)
    return world


def _leaves(world: World) -> list[bytes]:
    return [sha256(b"\x00" + entry_of(frame)).digest() for frame in world.frames]


def _rejected(world: World) -> list[Json]:
    """Return other exports, each as what differs: a file's new bytes, null where it is missing; members of the root."""
    files, size = world.files(), len(world.frames)
    root = tree_root(_leaves(world))
    stranger = LogKey("stranger")
    messages = files["messages/000"]
    policy = next(name for name in sorted(files) if name.startswith("policies/"))
    text = files["checkpoint"].decode().partition("\n\n")[0] + "\n"

    def case(name: str, code: str, changed: dict[str, bytes | None], **members: Json) -> Json:
        shown = {path: data.hex() if data is not None else None for path, data in changed.items()}
        return {"name": name, "code": code, "files": {**shown}, "root": {**members}}

    def grown(name: str, code: str, *added: Frame) -> Json:
        grown_files = files_of([*world.frames, *added], world.keys)
        return case(name, code, {**dict.fromkeys(sorted(files.keys() - grown_files.keys())), **grown_files})

    def approved(name: str, **changes: Any) -> Json:
        longer = copy(world)
        longer.frames, longer.rng = list(world.frames), Random(0)  # noqa: S311  vectors that can be made again
        Approval(world=longer, **{"asked": STRONG, **changes}).put()
        return grown(name, "bad_approval", *longer.frames[size:])

    def granted(name: str, order: str = "S T", **changes: Any) -> Json:
        longer = copy(world)
        longer.frames, longer.rng = list(world.frames), Random(0)  # noqa: S311  vectors that can be made again
        StandingGrant(world=longer, **changes).put(order)
        return grown(name, "bad_grant", *longer.frames[size:])

    def record(name: str, code: str, iss: str, items: list[bytes], item: bytes) -> Json:
        return grown(name, code, Frame(1, world.sequence + 1, world.time, world.audit(iss, items, [item])))

    task, _ = world.task(user=False, chain=0)
    forged = decision(task, sto=world.time, prf=[1, 0, [], bytes([1]) * 64])
    planted = decision(task, sto=world.time)
    unproved = Frame(0, world.sequence + 1, world.time, world.audit(INVENTORY, evidence(task), [planted]))
    untold = Frame(0, world.sequence + 3, world.time, b"")
    gone = Frame(6, world.sequence + 1, 0, bytes([7]) * 32)
    again = note(3, bytes(32), world.keys)
    longer = note(size + 9, bytes(32), world.keys)
    return [
        case("no checkpoint", "missing_file", {"checkpoint": None}),
        case("no messages", "missing_file", {"messages/000": None}),
        case("a tile is missing", "missing_file", {f"tile/0/000.p/{size}": None}),
        case("a file more", "unknown_file", {"messages/001": b""}),
        case("places", "unknown_file", {f"tile/places/000.p/{size}": bytes(17 * size)}),
        case("a policy is missing", "missing_file", {policy: None}),
        case("another policy", "bad_policy", {policy: files[policy][:-1]}),
        case("a policy that no record names", "unknown_file", {f"policies/{bytes(32).hex()}.tar.gz": b"policy"}),
        case("cut in a frame", "bad_entry", {"messages/000": messages[:-1]}),
        case("a frame more", "bad_entry", {"messages/000": messages + bytes(21)}),
        case("another byte in the last message", "log_mismatch",
             {"messages/000": messages[:-1] + bytes([messages[-1] ^ 1])}),
        case("another tile", "bad_tile", {f"tile/0/000.p/{size}": bytes(32 * size)}),
        case("another root", "log_mismatch", {"checkpoint": note(size, bytes(32), world.keys)}),
        case("signed by another", "untrusted_note", {"checkpoint": note(size, root, [stranger])}),
        case("signed by another, too", "untrusted_note", {"checkpoint": note(size, root, [*world.keys, stranger])}),
        case("signed twice", "bad_note", {"checkpoint": note(size, root, [*world.keys, *world.keys])}),
        case("of another log", "wrong_log", {"checkpoint": note(size, root, world.keys, "log.example.org/other")}),
        case("an extension line", "bad_note",
             {"checkpoint": f"{text}more\n\n{world.keys[0].line(text + 'more' + chr(10))}".encode()}),
        case("another held checkpoint", "inconsistent_log", {}, checkpoints=[again.decode()]),
        case("a later held checkpoint", "rolled_back", {}, checkpoints=[longer.decode()]),
        case("another first bundle", "no_bundle", {}, bundles=[bytes(32).hex()]),
        case("another notary", "no_bundle", {}, notaries=[PLANNER]),
        case("another key", "untrusted_note", {}, keys=[stranger.vkey]),
        case("nobody may mint", "context_issuer_refused", {}, minters=[]),
        grown("a sequence again", "bad_entry", Frame(0, world.sequence, world.time, b"")),
        grown("a sequence left out", "bad_entry", untold),
        grown("a decision that is said to prove nothing", "bad_entry", unproved),
        grown("a gap at the end", "bad_entry", Frame(2, world.sequence + 1, world.time, (2).to_bytes(8, "big"))),
        grown("restored under another key", "untrusted_note", world.restoration(keys=[stranger])),
        grown("restored from another stream", "bad_entry", world.restoration(before=7)),
        grown("restored to what was not logged", "bad_entry", world.restoration(world.sequence + 1)),
        grown("restored in another log", "wrong_log", world.restoration(origin="log.example.org/other")),
        grown("a checkpoint that says restored", "bad_note", world.restoration()._replace(data=files["checkpoint"])),
        grown("restored streams out of order", "bad_note", world.streams_restored("TASKS 1 3 7", "EVENTS 1 2 0")),
        grown("a stream restored twice at once", "bad_note", world.streams_restored("TASKS 1 2 7", "TASKS 1 3 7")),
        grown("a stream restored before it was", "bad_note", world.streams_restored("TASKS 3 3 7")),
        grown("a restored stream's line cut", "bad_note", world.streams_restored("TASKS 1 3")),
        grown("restored streams of no backup", "bad_note", world.streams_restored("TASKS 1 3 7", manifest="")),
        grown("a backup without streams", "bad_note", world.streams_restored()),
        grown("restored streams in the first form", "bad_note",
              world.streams_restored("TASKS 1 3 7", first="sealbus.restored.v1")),
        grown("lost, and nothing says why", "bad_entry", gone),
        grown("lost by a restoration", "lost_records", gone, world.restoration()),
        grown("lost, and before what was restored", "bad_entry", gone, world.restoration(world.sequence + 1)),
        grown("lost at a time", "bad_entry", gone._replace(stored=5), world.restoration()),
        record("a policy by an agent", "not_the_notary", INVENTORY, [],
               record_map("policy", rev="r", sha=bytes(32), siz=1, loc="")),
        record("a decided message without its proof", "bad_signature", INVENTORY, evidence(task), forged),
        record("a decided message without evidence", "bad_credential", INVENTORY, [], planted),
        record("a decision by another", "wrong_audience", PLANNER, evidence(task), planted),
        record("a checkpoint of another history", "inconsistent_log", NOTARY, [], record_map("checkpoint", **{"not": again})),
        approved("an approval of somebody else", entry={"user": "chief"}),
        approved("an approval that is not in the log", entry={"record": "00" * 32}),
        approved("an approval by who asked for it", user={"sub": "boss"}),
        approved("an approval without its body", verdict={"bdy": None}),
        approved("an approval without a denial", denial={"obl": None}),
        approved("approvals that are redacted", allowed={"red": ["/context/approvals/0/user"]}),
        granted("done for a user who granted nothing", "T"),
        granted("done for another user", away={"sub": "u-2"}),
        granted("done with more scope", away={"scp": ["inventory", "sealbus:approve"]}),
        granted("done with another body", task_body=b"{}"),
        granted("done to another end", task_fields={"to": "task.inventory.update"}),
        granted("done so that more may follow", task_fields={"grt": None}),
        granted("what followed from another body", "S C", task_body=b"{}"),
        granted("done when the grant was over", body={"until": world.time}),
        granted("done after the grant had ended", "S E T", wait=600 * SECOND),
        granted("done for a grant that was denied", said={"alw": False, "cod": "denied"}),
        granted("done for a grant without its body", said={"bdy": None}),
        granted("done for a grant of another's name", body={"name": "0" * 24 + "-often"}),
        record("a bundle that is none", "bad_bundle", NOTARY, [],
               record_map("bundle", dom="example.org", cur=world.time + SECOND, jwt=b"{}")),
        *(record(f"a bundle with {what}", "bad_bundle", NOTARY, [],
                 record_map("bundle", dom="example.org", cur=world.time + SECOND, jwt=json.dumps({"keys": [key]}).encode()))
          for what, key in _misshapen().items()),
    ]  # fmt: skip


def _misshapen() -> dict[str, dict[str, Json]]:
    """Return keys that are none, by what is wrong with them."""
    modulus = base64url((1 << 2047).to_bytes(256, "big"))
    return {
        "an even modulus": {"kty": "RSA", "kid": "even", "e": "AQAB", "n": modulus},
        "a coordinate over the prime": {"kty": "EC", "crv": "P-256", "kid": "x", **coordinates_over_the_prime()},
    }


def _receipts(world: World, *held: bytes) -> list[Json]:
    """Return the receipt of everything about two messages, and what it proves; about one where the root holds `held`."""
    files, root = MemoryFiles(world.files()), Root.parse(json.dumps(world.root(*held)).encode())
    shown: list[Json] = []
    for message in (world.messages[0], world.messages[-1])[len(held) :]:
        ident = message_ident(message)
        lookup = look_up(files, root, ident)
        shown.extend(
            {
                "text": make_receipt(files, root, lookup, found).decode(),
                "kind": found.record.kind,
                "leaf": found.leaf.hex(),
                "sequence": found.frame.sequence,
                "message": ident.hex() if found.record.kind == "decision" else "",
                "root": {"checkpoints": [one.decode() for one in held]},
            }
            for found in lookup.found
        )
    return shown


def _rejected_receipts(world: World, held: bytes) -> list[Json]:
    """Return receipts that prove nothing with a root file that has these members."""
    size = len(world.frames)
    text = _text(world, world.messages[-1])
    with_held = _text(world, world.messages[-1], held)
    stolen = World(Random(12), issuer="x")  # noqa: S311
    stolen.creation()
    stolen.record_bundle("x0")
    stolen.decided()
    line = next(one for one in with_held.split("\n") if one.startswith("item "))

    def case(name: str, code: str, receipt: str, *checkpoints: bytes) -> Json:
        root: dict[str, Json] = {"checkpoints": [one.decode() for one in checkpoints]}
        return {"name": name, "code": code, "text": receipt, "root": root}

    return [
        case("of a log of the same size", "inconsistent_log", text, note(size, bytes(32), world.keys)),
        case("of a log that was another", "inconsistent_log", with_held, note(4, bytes(32), world.keys)),
        case("of a log that is not shown to go on", "inconsistent_log", text, held),
        case("older than a checkpoint", "inconsistent_log", text, note(size + 1, bytes(32), world.keys)),
        case("of another deployment under the log's key", "unknown_trust_domain", _text(stolen, stolen.messages[-1])),
        case("without the bundles between", "unknown_trust_domain", _without_bundle(text, 0)),
        case("without the last bundle", "unknown_key", _without_bundle(text, 1)),
        case("an item twice", "bad_note", with_held.replace(line, f"{line}\n{line}")),
        case("a number of items", "bad_note", text.replace("\nitem ", "\nitems 3\nitem ", 1)),
        case("an earlier checkpoint twice", "bad_note", _again(with_held, "earlier ")),
    ]  # fmt: skip


def _text(world: World, message: Message, *held: bytes) -> str:
    files, root = MemoryFiles(world.files()), Root.parse(json.dumps(world.root(*held)).encode())
    lookup = look_up(files, root, message_ident(message))
    return make_receipt(files, root, lookup, lookup.found[0]).decode()


def _without_bundle(receipt: str, number: int) -> str:
    head, *parts = receipt.partition("\nrecord\n")
    first, *bundles = head.split("\nbundle\n")
    del bundles[number]
    return "".join(["\nbundle\n".join([first, *bundles]), *parts])


def _again(receipt: str, name: str) -> str:
    line = next(one for one in receipt.split("\n") if one.startswith(name))
    return receipt.replace(line, f"{line}\n{line}")


def message_ident(message: Message) -> bytes:
    ident = message.entries()["id"]
    assert isinstance(ident, bytes)
    return ident
