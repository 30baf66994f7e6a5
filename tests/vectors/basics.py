"""Vectors below the envelope: encoding, IDs, names, grants, hashes, trees, pre-authentication encoding."""

from __future__ import annotations

from hashlib import sha256

from vectors.issuing import BROKER, EDGE, INVENTORY, PLANNER, Json, party
from vectors.world import message_id

from sealbus.envelopes.encoding.codec import Value, encode, pack
from sealbus.envelopes.trust.merkle import leaf_hash, path, root
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, pae

__all__ = ["codec", "crypto", "names"]


def tagged(value: Value) -> Json:
    """Return a value in JSON: bytes as `{"hex"}`, maps as `{"map"}` with pairs, all else as itself."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, dict):
        return {"map": [[key, tagged(item)] for key, item in value.items()]}
    return value


def codec() -> Json:
    """Return values with their one encoding, and bytes that are no encoding."""
    accepted: list[Value] = [
        0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1,
        True, False, "", "a", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "é", "e\u0301",
        "\u00a0", "\u202e", "\U0001f600",
        b"", b"a", bytes(255), bytes(256), [], [1, [2, [3, [4, [5]]]]], {}, {"": 0, "a": 1, "aa": 2, "b": 3, "é": 4},
        ["a"] * 15, ["a"] * 16, ["a"] * 32, {f"{number:02}": number for number in range(16)},
        {"a": {"b": {"c": {"d": {}}}}},
    ]  # fmt: skip
    refused: dict[str, bytes] = {
        "nothing": b"",
        "something after the value": b"\x00\x00",
        "nil": b"\xc0",
        "never used": b"\xc1",
        "float32": b"\xca" + bytes(4),
        "float64": b"\xcb" + bytes(8),
        "extension": b"\xd4\x01\x00",
        "timestamp": b"\xd6\xff" + bytes(4),
        "negative": b"\xff",
        "negative, 8 bit": b"\xd0\x80",
        "2^53": b"\xcf" + (2**53).to_bytes(8, "big"),
        "2^64-1": b"\xcf" + b"\xff" * 8,
        "127 in 8 bit": b"\xcc\x7f",
        "255 in 16 bit": b"\xcd\x00\xff",
        "65535 in 32 bit": b"\xce\x00\x00\xff\xff",
        "2^32-1 in 64 bit": b"\xcf\x00\x00\x00\x00\xff\xff\xff\xff",
        "1 as signed": b"\xd0\x01",
        "text of 1 with an 8-bit length": b"\xd9\x01a",
        "text of 32 with a 16-bit length": b"\xda\x00\x20" + b"a" * 32,
        "bytes of 1 with a 16-bit length": b"\xc5\x00\x01a",
        "array of 1 with a 16-bit length": b"\xdc\x00\x01\x00",
        "map of 1 with a 16-bit length": b"\xde\x00\x01\xa1a\x00",
        "text of 257 bytes": pack("a" * 257),
        "text of 256 characters and 512 bytes": pack("é" * 256),
        "text that ends early": b"\xa2a",
        "bytes that end early": b"\xc4\x02a",
        "array that ends early": b"\x92\x00",
        "array of 2^32-1": b"\xdd\xff\xff\xff\xff",
        "map of 2^32-1": b"\xdf\xff\xff\xff\xff",
        "text of 2^32-1": b"\xdb\xff\xff\xff\xff",
        "bytes of 2^32-1": b"\xc6\xff\xff\xff\xff",
        "array of 33": pack([0] * 33),
        "six deep": b"\x91" * 5 + b"\x90",
        "a thousand deep": b"\x91" * 1_000 + b"\x00",
        "keys out of order": b"\x82\xa1b\x00\xa1a\x00",
        "a longer key before a shorter one": b"\x82\xa2aa\x00\xa1a\x00",
        "a key twice": b"\x82\xa1a\x00\xa1a\x00",
        "a key of bytes": b"\x81\xc4\x01a\x00",
        "a key that is a number": b"\x81\x01\x00",
        "U+0000": b"\xa1\x00",
        "U+001F": b"\xa1\x1f",
        "U+007F": b"\xa1\x7f",
        "U+0085": b"\xa2\xc2\x85",
        "U+009F": b"\xa2\xc2\x9f",
        "line feed in a key": b"\x81\xa1\n\x00",
        "surrogate": b"\xa3\xed\xa0\x80",
        "overlong": b"\xa2\xc0\x80",
        "not UTF-8": b"\xa1\xff",
    }
    return {
        "accept": [{"hex": encode(value).hex(), "value": tagged(value)} for value in accepted],
        "reject": [{"name": name, "hex": data.hex(), "code": "malformed"} for name, data in refused.items()],
    }


def names() -> Json:
    """Return SPIFFE IDs, names with their tokens, and grants with what they cover."""
    valid = [EDGE, PLANNER, BROKER, "spiffe://a/b", "spiffe://1.a_-/A.b_-/...", f"spiffe://{'a' * 255}/b",
             "spiffe://example.org/" + "a" * 2_027]  # fmt: skip
    invalid = ["", "spiffe://example.org", "spiffe://example.org/", "spiffe://example.org/a/", "spiffe://example.org//a",
               "spiffe:///a", "SPIFFE://example.org/a", "spiffe://Example.org/a", "spiffe://example.org/%41",
               "spiffe://example.org/.", "spiffe://example.org/a/..", "spiffe://example.org/./a", "spiffe://u@example.org/a",
               "spiffe://example.org:8443/a", "spiffe://example.org/a?b", "spiffe://example.org/a#b",
               "spiffe://example.org/a\n",
               "spiffe://example.org/é", "https://example.org/a", f"spiffe://{'a' * 256}/b",
               "spiffe://example.org/" + "a" * 2_028]  # fmt: skip
    without_name = [EDGE, "spiffe://example.org/agent/id-x", "spiffe://example.org/agent/broker",
                    "spiffe://example.org/agent/a/b", "spiffe://example.org/agent/a.b",
                    "spiffe://partner.example/agent/planner"]  # fmt: skip
    tokens: list[Json] = [
        {"id": PLANNER, "name": "planner", "token": "planner"},
        {"id": BROKER, "name": "broker", "token": "broker"},
    ]
    tokens += [{"id": one, "token": "id-" + sha256(one.encode()).hexdigest()[:32]} for one in without_name]
    grants: list[Json] = [
        {"grants": ["inventory.update"], "action": "inventory.update", "covers": True},
        {"grants": ["inventory.*"], "action": "inventory.update", "covers": True},
        {"grants": ["inventory.*"], "action": "inventory.update.now", "covers": True},
        {"grants": ["a.b", "inventory.*"], "action": "inventory.update", "covers": True},
        {"grants": ["inventory.*"], "action": "inventory._cancel", "covers": True},
        {"grants": ["inventory._cancel"], "action": "inventory._cancel", "covers": True},
        {"grants": ["inventory.update"], "action": "inventory._cancel", "covers": False},
        {"grants": ["inventory._cancel"], "action": "inventory._approve", "covers": False},
        {"grants": [], "action": "inventory.update", "covers": False},
        {"grants": ["inventory"], "action": "inventory.update", "covers": False},
        {"grants": ["inventory.*"], "action": "inventory", "covers": False},
        {"grants": ["inventory.*"], "action": "inventory2.update", "covers": False},
        {"grants": ["inventory.update"], "action": "inventory.update2", "covers": False},
        {"grants": ["inventory.update.*"], "action": "inventory.update", "covers": False},
        {"grants": ["Inventory.*"], "action": "inventory.update", "covers": False},
    ]
    return {
        "spiffe_ids": {"accept": list[Json](valid), "reject": list[Json](invalid)},
        "tokens": tokens,
        "grants": grants,
    }


def crypto() -> Json:
    """Return trees with the path of each leaf, pre-authentication encodings, thumbprints and guard ids."""
    trees: list[Json] = []
    for size in (1, 2, 3, 4, 5, 7, 8, 9):
        data = [bytes([number]) * number for number in range(size)]
        leaves = [leaf_hash(one) for one in data]
        paths: list[Json] = [[node.hex() for node in path(leaves, index)] for index in range(size)]
        trees.append({"data": [one.hex() for one in data], "root": root(leaves).hex(), "paths": paths})
    encodings: list[Json] = [
        {"type": kind, "body": body.hex(), "pae": pae(kind, body).hex()}
        for kind, body in ((MESSAGE_TYPE, bytes(36)), (CONTEXT_TYPE, bytes(36)), ("", b""), ("é", b"body"))
    ]
    thumbprints: list[Json] = [
        {"key": key.raw.hex(), "urn": key.thumbprint} for key in (party(iss).key.public for iss in (EDGE, PLANNER))
    ]
    call = sha256(b"a call's header").digest()
    guard = sha256(b"decision" + INVENTORY.encode() + call).digest()[:16]
    uuids: dict[str, Json] = {
        "accept": [message_id(1).hex(), "ffffffffffff7fffbfffffffffffffff"],
        "reject": ["00000000000140008000000000000000", "00000000000170000000000000000000",
                   "0000000000017000c000000000000000"],
    }  # fmt: skip
    return {
        "trees": trees,
        "pae": encodings,
        "thumbprints": thumbprints,
        "guard_ids": [{"own": INVENTORY, "call": call.hex(), "id": guard.hex()}],
        "uuidv7": uuids,
    }
