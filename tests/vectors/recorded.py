"""Audit messages, their evidence and their records, right and misshapen."""

from __future__ import annotations

from vectors.issuing import HOUR, INVENTORY, MINUTE, NOW, PLANNER, SECOND, party
from vectors.world import BODY, Message, message_id

from sealbus.envelopes.encoding.codec import Value, encode, pack
from sealbus.envelopes.trust.merkle import leaf_hash, root

__all__ = ["audit", "core", "decision", "evidence", "misshapen", "record_map", "records"]

_INPUT = b'{"v":1}'


def audit(evidence: list[bytes], records: list[bytes], **fields: object) -> Message:
    """Return the inventory's record message of these items."""
    own: dict[str, object] = {
        "t": "record", "aud": None, "end": None, "exp": NOW + 24 * HOUR, "id": message_id(9), "to": "audit.inventory",
        "typ": "application/vnd.sealbus.audit.v1", "dig": root([leaf_hash(item) for item in (*evidence, *records)]),
    }  # fmt: skip
    return Message(sender=party(INVENTORY), body=pack([1, evidence, records]), fields=own | fields)


def record_map(kind: str, /, **entries: Value) -> bytes:
    """Return an encoded map of this kind."""
    return encode({"v": 1, "k": kind, **entries}, text_bytes=2_048)


def proof(message: Message) -> list[Value]:
    size, index, path, signature = message.prf()
    return [size, index, list(path), signature]


def decision(message: Message, **changes: Value) -> bytes:
    """Return the record that `message`, from a stream, was allowed."""
    entries: dict[str, Value] = {
        "hdr": message.raw(), "prf": proof(message), "act": "inventory.update",
        "str": "TASKS", "seq": 7, "sto": NOW + SECOND, "dlv": 1, "inp": _INPUT, "alw": True, "rsn": ["owner"],
        "obl": b'[{"log":true}]', "rev": "r1", "pol": "starter", "eng": "embedded", "mic": 17,
    }  # fmt: skip
    entries.update(changes)
    return record_map("decision", **{key: value for key, value in entries.items() if value is not None})


def evidence(message: Message, *above: Message) -> list[bytes]:
    """Return the evidence of `message` and its ancestors, each item once."""
    items: list[Value] = [["credential", one.cred().kind, one.cred().token] for one in (message, *above)]
    if message.context is not None:
        size, index, path, signature = message.context.proof
        items.append(["context", message.context.payload, [size, index, list(path), signature]])
        items.append(["credential", message.context.credential.kind, message.context.credential.token])
    items += [["ancestor", one.raw(), proof(one)] for one in above]
    return list(dict.fromkeys(encode(item) for item in items))


def denied(message: Message, code: str, **changes: Value) -> bytes:
    asked = dict.fromkeys(("rsn", "obl", "rev", "pol", "eng", "mic"))
    return decision(message, **(asked | {"alw": False, "cod": code} | changes))


def core(message: Message, **changes: Value) -> bytes:
    """Return the record about a call that was opened just after it was made."""
    place: dict[str, Value] = {"str": None, "seq": None, "sto": None, "opn": NOW + SECOND}
    return decision(message, **(place | changes))


def records(message: Message) -> dict[str, list[bytes]]:
    """Return every kind of record in its shortest and its fullest form."""
    leaf, hashes = bytes(range(32)), [bytes([number]) * 32 for number in range(3)]
    many: list[Value] = [leaf] * 1_024
    codes: dict[str, Value] = {"denied": 40, "bad_body": 1}
    return {
        "decision": [
            decision(message), decision(message, rsn=None, obl=None), core(message), denied(message, "bad_body"),
            denied(message, "resource_not_found", inp=None), denied(message, "resource_unavailable", dlv=5, inp=None),
            denied(message, "policy_unavailable"), denied(message, "policy_unavailable", eng="sidecar", mic=250_000),
            denied(message, "policy_error", inp=None), decision(message, alw=False, cod="denied"),
            decision(message, inp=bytes(65_536)),
            decision(message, inp=b'{"context":{"user":{"id":null}},"v":1}', red=["/context/user/id"]),
            decision(message, bdy=BODY), decision(message, bdy=b""), decision(message, bdy=bytes(65_536)),
            denied(message, "bad_body", inp=None, bdy=BODY),
            decision(message, alw=False, cod="obligation_unknown", rsn=None),
            denied(message, "a_code_of_a_newer_writer", inp=None), decision(message, alw=False, cod="expired"),
            decision(message, ext={"_a": True, "b": -1, "c": "text", "d": leaf}),
            decision(message, ext={f"{n:02}": n for n in range(16)}), decision(message, ext={"a": 2**53 - 1}),
        ],
        "outcome": [
            record_map("outcome", dec=leaf, suc=True, mic=0, dlv=1),
            record_map("outcome", dec=leaf, suc=False, cod="handler_failed", mic=1_500, dlv=2, out=list[Value](hashes)),
            record_map("outcome", dec=leaf, suc=True, mic=1, dlv=1, out=many),
            record_map("outcome", dec=leaf, suc=True, mic=1, dlv=1, out=many, cnt=1_025),
            record_map("outcome", dec=leaf, suc=False, cod="a" * 64, mic=1, dlv=1),
            record_map("outcome", dec=leaf, suc=True, mic=0, dlv=1, ext={"_a": True, "b": -1, "c": "text", "d": hashes[0]}),
        ],
        "change": [
            record_map("change", act="push", par="platform", ser=1, sha=leaf),
            record_map("change", act="a_newer_one", par="p" * 256, ser=2**53 - 1, sha=leaf, tgt="t" * 2_048, rsn="r" * 2_048),
            # Of no table: older readers take these, too.
            record_map("change", act="push", ser=1, sha=leaf),
            record_map("change", act="push", par="", ser=1, sha=leaf),
            record_map("change", act="push", par="p", ser=0, sha=leaf),
            record_map("change", act="Push", par="p", ser=1, sha=leaf),
            record_map("change", act="push", par="p", ser=1, sha=bytes(31)),
            record_map("change", act="push", par="p", ser=1, sha=leaf, tgt=""),
            record_map("change", act="push", par="p", ser=1, sha=leaf, rsn=""),
            record_map("change", act="push", par="p", ser=1, sha=leaf, x=1),
        ],
        "process": [
            record_map("process", act="start", ins=leaf[:16], ver="0.3.0"),
            record_map("process", act="end", ins=leaf[:16], ver="v" * 256, fct={"a": "m", "b": leaf, "c": -3, "d": True}),
            # Of no table: older readers take these, too.
            record_map("process", act="start", ins=bytes(15), ver="1"),
            record_map("process", act="start", ins=bytes(16)),
            record_map("process", act="start", ins=bytes(16), ver=""),
            record_map("process", act="start", ins=bytes(16), ver="1", fct={}),
            record_map("process", act="", ins=bytes(16), ver="1"),
        ],
        "connections": [
            record_map("connections", min=NOW // MINUTE * MINUTE, ins=leaf[:16], cnt=codes),
            # Of no table: older readers take these, too.
            record_map("connections", min=0, ins=leaf[:15], cnt=codes), record_map("connections", min=0, cnt=codes),
            record_map("connections", min=0, ins=leaf[:16], cnt={}),
            record_map("connections", min=1, ins=leaf[:16], cnt={"denied": 1}),
            record_map("connections", min=0, ins=leaf[:16], cnt={"Denied": 1}),
            record_map("connections", min=0, ins=leaf[:16], cnt={"a": 1, "b-c": 1}),
            record_map("connections", min=0, ins=leaf[:16], cnt={"a": 1, "b": 0}),
        ],
        "letter": [record_map("letter")],
        "letter_2": [
            record_map("letter_2", at={"place": [["a", b"b", -1], {"deep": True}]}, of=many, to="t" * 2_048),
        ],
        "bundle": [
            record_map("bundle", dom="example.org", cur=NOW, jwt=b'{"keys":[]}'),
            record_map("bundle", dom="example.org", cur=NOW, jwt=b'{"keys":[]}', x5c=[b"first", b"second"]),
        ],
        "policy": [record_map("policy", rev="r1", sha=leaf, siz=4_096, loc="nats://objects/policies/r1")],
        "checkpoint": [record_map("checkpoint", **{"not": b"example.org/audit\n1\nroot\n"})],
        "denials": [
            record_map("denials", iss=PLANNER, min=NOW // MINUTE * MINUTE, cnt=codes),
            record_map("denials", iss=PLANNER, min=0, cnt={"obligation_unknown": 1, "a_code_of_a_newer_writer": 2}),
        ],
    }  # fmt: skip


def misshapen(message: Message) -> dict[str, bytes]:
    """Return records that are of no table."""
    leaf = bytes(32)
    ok: dict[str, Value] = {"dec": leaf, "suc": True, "mic": 0, "dlv": 1}
    plain: dict[str, Value] = {"rev": "r", "sha": leaf, "siz": 1, "loc": ""}
    hashes: list[Value] = [bytes(32)] * 1_025
    many: dict[str, Value] = {f"{n:02}": n for n in range(31)}
    bad = {
        "no map": encode([1]), "nothing": b"", "a kind of another form": record_map("a letter"), "no kind": encode({"v": 1}),
        "version 2": encode({"v": 2, "k": "checkpoint", "not": b"n"}),
        "denials by two codes, one of them never": record_map("denials", iss=PLANNER, min=0, cnt={"a": 1, "b": 0}),
        "version 2 of an unknown kind": encode({"v": 2, "k": "letter"}),
        "an unknown kind of 65 bytes": record_map("a" * 65),
        "an unknown kind with nil": record_map("letter", a=None),
        "an unknown kind with a text of 2,049 bytes": encode({"v": 1, "k": "letter", "a": "t" * 2_049}, text_bytes=2_049),
        "an unknown kind with 33 keys": record_map("letter", **many),
        "an unknown kind with an array of 1,025": record_map("letter", a=hashes),
        "ext of a checkpoint": encode({"v": 1, "k": "checkpoint", "not": b"n", "ext": {"a": 1}}),
        "an empty ext": record_map("outcome", **ok | {"ext": {}}),
        "ext of 17": record_map("outcome", **ok | {"ext": {f"{n:02}": n for n in range(17)}}),
        "an array in ext": record_map("outcome", **ok | {"ext": {"a": [1]}}),
        "a text of 257 bytes in ext": record_map("outcome", **ok | {"ext": {"a": "t" * 257}}),
        "an array before text in ext": record_map("outcome", **ok | {"ext": {"a": [1], "b": "c"}}),
        "an array after text in ext": record_map("outcome", **ok | {"ext": {"a": "c", "b": [1]}}),
        "a long name before another in ext": record_map("outcome", **ok | {"ext": {"a" * 257: 1, "b": 1}}),
        "a long name after another in ext": record_map("outcome", **ok | {"ext": {"a": 1, "b" * 257: 1}}),
        "ext that is no map": decision(message, ext=[]),
        "version true": encode({"v": True, "k": "checkpoint", "not": b"n"}),
        "an unknown key": record_map("checkpoint", **{"not": b"n", "x": b"x"}),
        "a note of 0 bytes": record_map("checkpoint", **{"not": b""}),
        "a note of 8,193 bytes": record_map("checkpoint", **{"not": bytes(8_193)}),
        "a hash of 31 bytes": record_map("policy", **plain | {"sha": bytes(31)}),
        "a policy of 0 bytes": record_map("policy", **plain | {"siz": 0}),
        "a trust domain in upper case": record_map("bundle", dom="Example.org", cur=1, jwt=b"{}"),
        "an empty array of certificates": record_map("bundle", dom="example.org", cur=1, jwt=b"{}", x5c=[]),
        "33 certificates": record_map("bundle", dom="example.org", cur=1, jwt=b"{}", x5c=[b"c"] * 33),
        "a minute that is not one": record_map("denials", iss=PLANNER, min=1, cnt={"denied": 1}),
        "denials of nothing": record_map("denials", iss=PLANNER, min=0, cnt={}),
        "denials of 0": record_map("denials", iss=PLANNER, min=0, cnt={"denied": 0}),
        "denials by what is no code": record_map("denials", iss=PLANNER, min=0, cnt={"Denied": 1}),
        "success with a code": record_map("outcome", **ok | {"cod": "expired"}),
        "a failure without a code": record_map("outcome", **ok | {"suc": False}),
        "a failure of what is no code": record_map("outcome", **ok | {"suc": False, "cod": "no code"}),
        "a failure of a code of 65 bytes": record_map("outcome", **ok | {"suc": False, "cod": "a" * 65}),
        "an empty array of hashes": record_map("outcome", **ok | {"out": []}),
        "1,025 hashes": record_map("outcome", **ok | {"out": hashes}),
        "a count where there is room": record_map("outcome", **ok | {"out": [bytes(32)], "cnt": 1}),
        "delivery 0": record_map("outcome", **ok | {"dlv": 0}),
        "allowed with a code": decision(message, cod="denied"),
        "refused without a code": decision(message, alw=False),
        "refused with what is no code": decision(message, alw=False, cod="9"),
        "an obligation unknown and none there": decision(message, alw=False, cod="obligation_unknown", obl=None),
        "an obligation unknown and no policy": decision(message, alw=False, cod="obligation_unknown", pol=None),
        "allowed without an input": decision(message, inp=None),
        "allowed without a revision": decision(message, rev=None),
        "an engine without its time": decision(message, mic=None),
        "a bad body and a policy": denied(message, "bad_body", rev="r1"),
        "both stream and core": decision(message, opn=NOW),
        "neither stream nor core": decision(message, str=None, seq=None, sto=None),
        "core, delivered twice": core(message, dlv=2),
        "sequence 0": decision(message, seq=0),
        "an empty array of reasons": decision(message, rsn=[]),
        "33 reasons": decision(message, rsn=["r"] * 33),
        "empty obligations": decision(message, obl=b""),
        "an input of 65,537 bytes": decision(message, inp=bytes(65_537)),
        "a header of 8,193 bytes": decision(message, hdr=bytes(8_193)),
        "a proof of size 0": decision(message, prf=[0, 0, [], bytes(64)]),
        "a body of 65,537 bytes": decision(message, bdy=bytes(65_537)),
        "a body that is text": decision(message, bdy="body"),
        "an empty array of pointers": decision(message, red=[]),
        "33 pointers": decision(message, red=[f"/{number}" for number in range(33)]),
        "a pointer twice": decision(message, red=["/v", "/v"]),
        "a pointer to the whole": decision(message, red=[""]),
        "a pointer without its slash": decision(message, red=["v"]),
        "pointers without an input": denied(message, "policy_error", inp=None, red=["/v"]),
        "an action with a star": decision(message, act="inventory.*"),
    }  # fmt: skip
    return {f"a record: {name}": item for name, item in bad.items()}
