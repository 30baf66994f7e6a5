"""Refusals at steps 1 and 2: bytes that are no envelope, and headers that are not of their kind."""

from __future__ import annotations

from dataclasses import replace

from vectors.cases import Case, live
from vectors.issuing import HOUR, MINUTE, NOW
from vectors.world import Message, context, message_id

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.trust.proof import Credential, Proof

__all__ = ["cases"]

_MALFORMED_2 = ("malformed", 2)


def cases() -> list[Case]:
    """Return the cases."""
    return [*_form(), *_sizes(), *_headers(), *_header_bytes()]


def _form() -> list[Case]:
    plain = Message()
    good, proof, array = plain.payload(), plain.prf(), plain.array()
    path = (bytes(32),)
    proofs: dict[str, object] = {
        "proof of size 0": Proof(0, 0, (), proof.signature),
        "proof of size 4,097": Proof(4_097, 0, (), proof.signature),
        "proof whose index is its size": Proof(2, 2, path, proof.signature),
        "proof with a negative index": Proof(2, -1, path, proof.signature),
        "proof with 13 nodes": Proof(4_096, 0, path * 13, proof.signature),
        "proof with a node of 31 bytes": Proof(2, 0, (bytes(31),), proof.signature),
        "proof with a signature of 63 bytes": Proof(1, 0, (), proof.signature[:63]),
        "proof of three": [1, 0, []],
        "proof of nil": None,
        "proof with a bool for its size": [True, 0, [], proof.signature],
    }
    elements: dict[str, dict[int, object]] = {
        "header that is text": {1: "header"},
        "body of nil": {2: None},
        "body that is text": {2: "body"},
        "credential of nil": {4: None},
        "credential of three": {4: [1, b"token", 1]},
        "credential kind below 0": {4: [-1, b"token"]},
        "credential kind that is a bool": {4: [True, b"token"]},
        "credential token that is text": {4: [1, "token"]},
        "context of two": {5: [b"payload", proof]},
        "context that is false": {5: False},
        "ancestors of nil": {6: None},
        "ancestor of two": {6: [[b"header", proof]]},
        "ancestors that are a map": {6: {}},
        "format that is a float": {0: 1.0},
        "format that is true": {0: True},
        "format that is text": {0: "1"},
        "format that is nil": {0: None},
    }
    elements.update((name, {3: value}) for name, value in proofs.items())
    raw = {
        "nothing": b"",
        "a value that is no array": b"\x01",
        "an array of none": b"\x90",
        "an array of six": pack(array[:6]),
        "an array of eight": pack([*array, None]),
        "a map": pack({"1": array}),
        "something after the value": good + b"\xc0",
        "the last byte missing": good[:-1],
        "format 1 in two bytes": good[:1] + b"\xcc\x01" + good[2:],
        "an array of 7 with a 16-bit length": b"\xdc\x00\x07" + good[1:],
        "an array that declares 2^32-1": b"\xdd\xff\xff\xff\xff" + good[1:],
        "a body that declares 2^32-1 bytes": pack(array[:2]).replace(b"\x92", b"\x97", 1) + b"\xc6\xff\xff\xff\xff",
        "an extension type": good[:-1] + b"\xd4\x01\x00",
    }
    return [
        *(live(name, data, ("malformed", 1)) for name, data in raw.items()),
        *(live(name, replace(plain, elements=one), ("malformed", 1)) for name, one in elements.items()),
        *(
            live(f"format {number}", replace(plain, elements={0: number}), ("unsupported_format", 1))
            for number in (0, 2, 127, 255, 2**53 - 1)
        ),
        live("format 2, whatever follows", pack([2, "nothing", 1.5]), ("unsupported_format", 1)),
        live("format 1 where only 2 is configured", plain, ("unsupported_format", 1), formats=[2]),
        live("nine ancestors", replace(plain, elements={6: [plain.ancestor()] * 9}), ("chain_too_long", 1)),
        live("a hundred ancestors", replace(plain, elements={6: [[]] * 100}), ("chain_too_long", 1)),
    ]


def _sizes() -> list[Case]:
    plain = Message()
    ancestor = plain.ancestor()
    large: dict[str, Message | bytes] = {
        "a header of 8,193 bytes": replace(plain, header=bytes(8_193)),
        "a body of 917,505 bytes": replace(plain, body=bytes(917_505)),
        "a token of 4,097 bytes": replace(plain, credential=Credential(1, b"t" * 4_097)),
        "a context payload of 8,193 bytes": replace(plain, context=context(payload=bytes(8_193))),
        "a context token of 4,097 bytes": replace(plain, context=context(credential=Credential(1, b"t" * 4_097))),
        "an ancestor's header of 8,193 bytes": replace(plain, elements={6: [ancestor._replace(header=bytes(8_193))]}),
        "an ancestor's token of 4,097 bytes": replace(
            plain, elements={6: [ancestor._replace(credential=Credential(1, b"t" * 4_097))]}
        ),
        "1,048,577 bytes": plain.payload() + bytes(1_048_577 - len(plain.payload())),
    }
    return [live(name, message, ("too_large", 1)) for name, message in large.items()]


def _headers() -> list[Case]:
    must = ("id", "iss", "to", "iat", "exp", "key", "crd", "dig", "typ", "aud", "end", "t")
    wrong: dict[str, dict[str, object]] = {f"{key} missing": {key: None} for key in must}
    wrong |= {
        "an unknown key": {"abc": 1},
        "an unknown kind": {"t": "letter"},
        "a kind in upper case": {"t": "TASK"},
        "a kind that is bytes": {"t": b"task"},
        "rpl in a task": {"rpl": "_INBOX.planner.1"},
        "seq in a task": {"seq": 0},
        "fin in a task": {"fin": True},
        "par in an event": {"t": "event", "end": None, "par": bytes(32)},
        "ctx in an event": {"t": "event", "end": None, "ctx": bytes(32)},
        "end in an event": {"t": "event"},
        "grt in an event": {"t": "event", "end": None, "grt": []},
        "aud in a record": {"t": "record", "end": None},
        "a call without rpl": {"t": "call", "exp": NOW + MINUTE},
        "a chunk without seq": {"t": "chunk", "end": None, "exp": NOW + MINUTE, "re": bytes(32)},
        "a reply without re": {"t": "reply", "end": None, "exp": NOW + MINUTE},
        "id of 15 bytes": {"id": message_id(2)[:15]},
        "id of version 4": {"id": message_id(2)[:6] + b"\x40\x00\x80" + bytes(7)},
        "id of another variant": {"id": message_id(2)[:6] + b"\x70\x00\xc0" + bytes(7)},
        "id that is text": {"id": "0" * 16},
        "iss without a path": {"iss": "spiffe://example.org"},
        "iss in upper case": {"iss": "spiffe://Example.org/agent/planner"},
        "iss with a dot segment": {"iss": "spiffe://example.org/agent/../planner"},
        "iss of 2,049 bytes": {"iss": "spiffe://example.org/" + "a" * 2_028},
        "aud that is no SPIFFE ID": {"aud": "inventory"},
        "aud with an empty segment": {"aud": "spiffe://example.org//inventory"},
        "to with a wildcard": {"to": "task.*.update"},
        "to with an empty token": {"to": "task..update"},
        "to that ends with a dot": {"to": "task.inventory.update."},
        "to with a space": {"to": "task.inventory.up date"},
        "to of 256 bytes": {"to": "task.inventory." + "u" * 241},
        "empty to": {"to": ""},
        "exp that is iat": {"exp": NOW},
        "exp before iat": {"exp": NOW - 1},
        "a task that lives over 24 h": {"exp": NOW + 24 * HOUR + 1, "end": NOW + 24 * HOUR + 1},
        "a call that lives over 60 s": {"t": "call", "exp": NOW + MINUTE + 1, "rpl": "_INBOX.planner.1"},
        "a reply that lives over 60 s": {"t": "reply", "end": None, "exp": NOW + MINUTE + 1, "re": bytes(32)},
        "an event that lives over 24 h": {"t": "event", "end": None, "exp": NOW + 24 * HOUR + 1},
        "end before exp": {"end": NOW + HOUR - 1},
        "end over 24 h after iat": {"end": NOW + 24 * HOUR + 1},
        "iat below 0": {"iat": -1},
        "iat of 2^53": {"iat": 2**53, "exp": 2**53 + 1, "end": 2**53 + 1},
        "iat that is a float": {"iat": float(NOW)},
        "iat that is true": {"iat": True},
        "key off the curve": {"key": bytes(63) + b"\x01"},
        "key of zeros": {"key": bytes(64)},
        "key of 65 bytes": {"key": b"\x04" + Message().sender.key.public.raw},
        "key of 33 bytes": {"key": b"\x02" + Message().sender.key.public.raw[:32]},
        "crd of 31 bytes": {"crd": bytes(31)},
        "dig of 33 bytes": {"dig": bytes(33)},
        "par of 31 bytes": {"par": bytes(31)},
        "ctx of 0 bytes": {"ctx": b""},
        "re that is text": {"re": "a" * 32},
        "typ of 257 bytes": {"typ": "a" * 257},
        "typ with a line feed": {"typ": "application/json\n"},
        "sch that is bytes": {"sch": b"v1"},
        "idm with U+0085": {"idm": "\u0085"},
        "tid of 15 bytes": {"tid": bytes(15)},
        "grt that is text": {"grt": "inventory.*"},
        "grt with a wildcard inside": {"grt": ["inventory.*.x"]},
        "grt with a star alone": {"grt": ["*"]},
        "grt with an empty item": {"grt": [""]},
        "grt of 33": {"grt": ["a.b"] * 33},
        "ext of 17": {"ext": {f"k{number:02}": 1 for number in range(17)}},
        "ext that is an array": {"ext": []},
        "ext with an array in it": {"ext": {"a": []}},
        "ext with nil in it": {"ext": {"a": None}},
        "ext with a float in it": {"ext": {"a": 0.5}},
        "ext with 2^53": {"ext": {"a": 2**53}},
        "ext with -2^53": {"ext": {"a": -(2**53)}},
        "ext with a key that is a number": {"ext": {1: 1}},
        "ext out of order": {"ext": {"b": 1, "a": 1}},
        "ext with a key of 257 bytes": {"ext": {"a" * 257: 1}},
    }  # fmt: skip
    chunk: dict[str, object] = {"t": "chunk", "end": None, "exp": NOW + MINUTE, "re": bytes(32), "seq": 0}
    wrong |= {"seq of 2^32": chunk | {"seq": 2**32}, "fin that is false": chunk | {"fin": False}}
    return [live(f"header: {name}", Message(fields=fields), _MALFORMED_2) for name, fields in wrong.items()]


def _header_bytes() -> list[Case]:
    entries = Message().entries()
    good = pack(entries)
    wrong = {
        "no map": pack([1]),
        "empty": b"",
        "an empty map": b"\x80",
        "something after it": good + b"\x00",
        "keys out of order": pack(dict(reversed(entries.items()))),
        "a key twice": b"\x8d" + good[1:] + pack("typ") + pack("application/json"),
        "a key that is bytes": b"\x8d" + pack(b"") + pack(1) + good[1:],
        "a time that is not in its shortest form": good.replace(pack(NOW), b"\xd3" + NOW.to_bytes(8, "big")),
        "text that is not UTF-8": good.replace(b"application/json", b"application/jso\xff"),
    }
    return [live(f"header: {name}", Message(header=header), _MALFORMED_2) for name, header in wrong.items()]
