"""Vectors of the audit log: entries, trees, tile paths, notes, checkpoints, receipts (SPEC.md section 13)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from vectors.issuing import Json

from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, sign_cose_receipt
from sealbus.envelopes.log.entries import (
    Entry,
    creation_entry,
    gap_entry,
    previous_entry,
    unverified_entry,
    verified_entry,
)
from sealbus.envelopes.log.note import NoteSigner, base64_text, sign_note
from sealbus.envelopes.log.receipt import Receipt, encode_receipt
from sealbus.envelopes.log.restoration import Restoration, restoration_entry, sign_restoration
from sealbus.envelopes.log.tiles import TiledTree, TileName
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["log"]

CREATED = 1_764_000_000_000_000
ORIGIN = "log.example.org/audit"
LOG, NEXT, WITNESS = (
    NoteSigner(name, bytes([number]) * 32) for number, name in enumerate([ORIGIN, ORIGIN, "witness.example"], 1)
)
RESTORED = Restoration(
    origin=ORIGIN,
    before=CREATED,
    created=CREATED + 5,
    last=2,
    by=SpiffeId("spiffe://example.org/agent/operator"),
    time=CREATED + 6,
)
STREAMS = replace(
    RESTORED,
    manifest="ab" * 32,
    streams=(
        RestoredStream(stream="EVENTS", before=CREATED, created=CREATED + 4, last=0),
        RestoredStream(stream="TASKS", before=CREATED + 1, created=CREATED + 5, last=9),
    ),
)
SIZES = (1, 2, 3, 7, 8, 255, 256, 257, 300)


def log() -> Json:
    """Return the whole file."""
    return {
        "entries": [*map(_entry, _stream())],
        "logs": _logs(),
        "trees": _trees(),
        "paths": _paths(),
        "keys": _keys(),
        "notes": _notes(),
        "checkpoints": _checkpoints(),
        "receipts": _receipts(),
        "cose_receipts": _cose_receipts(),
        "restorations": _restorations(),
    }


def _restorations() -> Json:
    text = RESTORED.text
    lines = text.split("\n")

    def other(number: int, line: str) -> bytes:
        return sign_note("\n".join([*lines[:number], line, *lines[number + 1 :]]), [LOG])

    refused = {
        "another first line": ("bad_note", other(0, "sealbus.restored.v3")),
        "the second form without streams": ("bad_note", other(0, "sealbus.restored.v2")),
        "of another log": ("wrong_log", other(1, "log.example.org/other")),
        "a number with a zero before it": ("bad_note", other(4, "02")),
        "a number too large": ("bad_note", other(3, str(2**53))),
        "by nobody": ("bad_note", other(5, "operator")),
        "a line more": ("bad_note", sign_note(text + "more\n", [LOG])),
        "signed by another": ("untrusted_note", sign_note(text, [WITNESS])),
        "signed by another, too": ("untrusted_note", sign_note(text, [LOG, WITNESS])),
        "signed twice": ("bad_note", sign_note(text, [LOG, LOG])),
        "another text": ("bad_note_signature", sign_restoration(RESTORED, [LOG]).replace(b"operator", b"operatos")),
    }
    rows = STREAMS.text.split("\n")

    def stream(number: int, *lines: str) -> bytes:
        return sign_note("\n".join([*rows[:number], *lines, *rows[number + 1 :]]), [LOG])

    refused |= {
        "streams in the first form": ("bad_note", stream(0, "sealbus.restored.v1")),
        "no stream": ("bad_note", sign_note("\n".join([*rows[:8], ""]), [LOG])),
        "a manifest that is no hash": ("bad_note", stream(7, "AB" * 32)),
        "a manifest cut": ("bad_note", stream(7, "ab" * 31)),
        "streams out of order": ("bad_note", stream(8, rows[9], rows[8])),
        "a stream twice": ("bad_note", stream(8, rows[8], rows[8])),
        "a stream without its last sequence": ("bad_note", stream(8, "EVENTS 1 2")),
        "a stream with more": ("bad_note", stream(8, "EVENTS 1 2 3 4")),
        "a stream with two spaces": ("bad_note", stream(8, "EVENTS  1 2")),
        "a stream without a name": ("bad_note", stream(8, " 1 2 3")),
        "a stream whose name is a pattern": ("bad_note", stream(8, "EVENTS.> 1 2 3")),
        "a name of 256 bytes": ("bad_note", stream(8, f"{'E' * 256} 1 2 3")),
        "a stream as old as before": ("bad_note", stream(8, "EVENTS 2 2 3")),
        "a stream's number with a zero before it": ("bad_note", stream(8, "EVENTS 1 2 03")),
        "a stream's number too large": ("bad_note", stream(8, f"EVENTS 1 2 {2**53}")),
        "an empty line": ("bad_note", stream(8, rows[8], "")),
        "65 streams": ("bad_note", stream(8, *(f"A{number:02} 1 2 3" for number in range(64)))),
    }
    named: list[Json] = [
        {"stream": one.stream, "before": one.before, "created": one.created, "last": one.last}
        for one in STREAMS.streams
    ]
    return {
        "origin": ORIGIN,
        "keys": [LOG.verifier.text],
        "streams": {"note": sign_restoration(STREAMS, [LOG]).decode(), "last": 2, "before": CREATED,
                    "created": CREATED + 5, "by": str(STREAMS.by), "time": CREATED + 6,
                    "manifest": STREAMS.manifest, "streams": named},
        "accept": {"note": sign_restoration(RESTORED, [LOG]).decode(), "last": 2, "before": CREATED,
                   "created": CREATED + 5, "by": str(RESTORED.by), "time": CREATED + 6},
        "reject": [{"name": name, "code": code, "note": note.decode()} for name, (code, note) in refused.items()],
    }  # fmt: skip


def _stream() -> list[Entry]:
    return [
        creation_entry("AUDIT", created=CREATED),
        previous_entry(_note(5, bytes(32)), created=CREATED),
        verified_entry(1, time=CREATED + 1, header_digest=sha256(b"header").digest()),
        unverified_entry(2, time=CREATED + 2, payload=b"garbage"),
        gap_entry(3, 4, time=CREATED + 3),
        verified_entry(7, time=CREATED + 3, header_digest=bytes(32)),
        restoration_entry(sign_restoration(RESTORED, [LOG]), RESTORED),
        verified_entry(3, time=CREATED + 9, header_digest=bytes(32)),
    ]


def _entry(entry: Entry) -> Json:
    return {
        "kind": int(entry.kind),
        "sequence": entry.sequence,
        "time": entry.time,
        "digest": entry.digest.hex(),
        "count": entry.count,
        "entry": entry.hash.hex(),
        "leaf": entry.leaf.hex(),
    }


def _logs() -> Json:
    good = _stream()
    orders: dict[str, list[int]] = {
        "as it was": [0, 1, 2, 3, 4, 5],
        "without a previous period": [0, 2, 3, 4, 5],
        "restored": [0, 1, 2, 3, 4, 5, 6, 7],
        "no creation": [2],
        "two creations": [0, 0],
        "a previous period too late": [0, 2, 1],
        "a sequence left out": [0, 3],
        "a sequence twice": [0, 2, 2],
        "a gap without its end in between": [0, 2, 3, 4, 4],
        "what ends a gap comes too soon": [0, 2, 3, 5],
        "restored in a gap": [0, 2, 3, 4, 6],
        "restored to what was not logged": [0, 2, 6],
        "restored before its creation": [6],
        "a sequence left out after it was restored": [0, 1, 2, 3, 4, 5, 6, 5],
    }
    return [
        {"name": name, "entries": [_entry(good[at]) for at in order], "good": number < 3}
        for number, (name, order) in enumerate(orders.items())
    ]


def _leaf(number: int) -> Entry:
    return creation_entry(f"S{number}", created=number)


def _tiled(size: int) -> TiledTree:
    tiling, tiles = TreeBuilder(), dict[TileName, bytes]()
    for number in range(size):
        tiles.update(tiling.append(_leaf(number).leaf))
    tiles.update(tiling.partial())
    return TiledTree(size, tiles.__getitem__)


def _hex(path: tuple[bytes, ...]) -> Json:
    return [node.hex() for node in path]


def _trees() -> Json:
    tree = _tiled(max(SIZES))
    return [
        {
            "size": size,
            "root": tree.root(size).hex(),
            "inclusion": [
                {"index": index, "leaf": _leaf(index).leaf.hex(), "path": _hex(tree.inclusion(index, size))}
                for index in sorted({0, size // 2, size - 1})
            ],
            "consistency": [
                {"old": old, "old_root": tree.root(old).hex(), "path": _hex(tree.consistency(old, size))}
                for old in SIZES
                if old <= size
            ],
        }
        for size in SIZES
    ]


def _paths() -> Json:
    good = [TileName(0, 0), TileName(0, 1_234_067, 5), TileName("entries", 255, 255), TileName("places", 1_000)]
    bad = [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/0/000/",
    ]
    return {
        "accept": [{"path": name.path, "level": name.level, "index": name.index, "width": name.width} for name in good],
        "reject": [*bad],
    }


def _keys() -> Json:
    key = LOG.verifier
    wrong_type = base64_text(b"\x02" + key.public)
    return {
        "accept": [
            {"key": one.text, "name": one.name, "id": one.key_id.hex(), "public": one.public.hex()}
            for one in (key, WITNESS.verifier)
        ],
        "reject": [
            key.text.replace(key.key_id.hex(), "00000000"),
            key.text.replace("log.", "log "),
            key.text + "=",
            f"{key.name}+{key.key_id.hex()}",
            f"{key.name}+{key.key_id.hex()}+{wrong_type}",
        ],
    }


def _note(size: int, root: bytes) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, size, root), [LOG])


def _case(name: str, data: bytes, code: str = "", **more: Json) -> Json:
    return {"name": name, "hex": data.hex(), **({"code": code} if code else {}), **more}


def _notes() -> Json:
    """Verified with the keys of log and witness; `signers` are the names of those that signed."""
    both, one = sign_note("text\n\nmore\n", [LOG, WITNESS]), sign_note("text\n", [LOG])
    bad_witness = f"\u2014 witness.example {base64_text(WITNESS.verifier.key_id + bytes(64))}\n".encode()
    stranger = f"\u2014 witness.example {base64_text(bytes(4) + bytes(64))}\n".encode()
    return {
        "verifiers": [LOG.verifier.text, WITNESS.verifier.text],
        "accept": [
            _case("one", one, text="text\n", signers=[ORIGIN]),
            _case(
                "two, and an empty line in the text",
                both,
                text="text\n\nmore\n",
                signers=[ORIGIN, WITNESS.verifier.name],
            ),
            _case("a stranger's signature", one + stranger, text="text\n", signers=[ORIGIN]),
            _case("old and new key", sign_note("text\n", [LOG, NEXT]), text="text\n", signers=[ORIGIN]),
        ],
        "reject": [
            _case("only unknown keys", sign_note("text\n", [NEXT]), "untrusted_note"),
            _case("a bad signature of a known key beside a good one", one + bad_witness, "bad_note_signature"),
            _case("another text", one.replace(b"text", b"test"), "bad_note_signature"),
            _case("no signature", b"text\n\n", "bad_note"),
            _case("a carriage return", one.replace(b"\n", b"\r\n"), "bad_note"),
            _case("the last newline is missing", one[:-1], "bad_note"),
            _case("unused bits in base64", one + "\u2014 a AAAAAAB=\n".encode(), "bad_note"),
            _case("not UTF-8", b"\xff" + one, "bad_note"),
        ],
    }


def _checkpoints() -> Json:
    root = base64_text(bytes(32))
    texts = {
        "an extension line": f"{ORIGIN}\n5\n{root}\nmore\n",
        "a leading zero": f"{ORIGIN}\n05\n{root}\n",
        "a root of 31 bytes": f"{ORIGIN}\n5\n{base64_text(bytes(31))}\n",
        "the root of nothing is another": f"{ORIGIN}\n0\n{root}\n",
        "two lines": f"{ORIGIN}\n5\n",
    }
    other = sign_checkpoint(Checkpoint("other.example/log", 5, bytes(32)), [LOG])
    return {
        "origin": ORIGIN,
        "verifiers": [LOG.verifier.text],
        "accept": [
            _case("five entries", _note(5, bytes(32)), size=5, root=bytes(32).hex()),
            _case("no entries", _note(0, sha256().digest()), size=0, root=sha256().hexdigest()),
        ],
        "reject": [
            *(_case(name, sign_note(text, [LOG]), "bad_note") for name, text in texts.items()),
            _case("another log", other, "wrong_log"),
        ],
    }


def _cose_receipts() -> Json:
    """`leaf` is given to whoever checks; `size` and `root` are those of the checkpoint that the same key signed."""
    tree = _tiled(7)
    leaf = _leaf(4).leaf
    made = sign_cose_receipt(Receipt(4, tree.inclusion(4), _note(7, tree.root())), leaf, origin=ORIGIN, signer=LOG)
    data = made.encode()

    def case(name: str, code: str, receipt: CoseReceipt | bytes, shown: bytes = leaf) -> Json:
        raw = receipt if isinstance(receipt, bytes) else receipt.encode()
        return _case(name, raw, code, leaf=shown.hex())

    return {
        "origin": ORIGIN,
        "verifiers": [LOG.verifier.text],
        "accept": [_case("entry 4 of 7", data, leaf=leaf.hex(), size=7, root=tree.root().hex())],
        "reject": [
            case("another entry", "bad_note_signature", made, _leaf(5).leaf),
            case("another index", "bad_note_signature", replace(made, index=5)),
            case("another size", "bad_note_signature", replace(made, size=8)),
            case("a node left out", "bad_proof", replace(made, path=made.path[1:])),
            case("a node more", "bad_proof", replace(made, path=(*made.path, bytes(32)))),
            case("of another log", "wrong_log", replace(made, origin="log.example.org/other")),
            case("by another key", "untrusted_note", replace(made, key_id=bytes(4))),
            case("another signature", "bad_note_signature", replace(made, signature=bytes(64))),
            case("two sizes", "bad_note", data.replace(b"\x83\x07\x04", b"\x83\x06\x04")),
            case("a longer head", "bad_note", data.replace(b"\xf6\x58\x40", b"\xf6\x59\x00\x40")),
            case("with a payload", "bad_note", data.replace(b"\xf6\x58\x40", b"\x58\x20" + tree.root() + b"\x58\x40")),
            case("without its tag", "bad_note", data[1:]),
            case("a byte more", "bad_note", data + b"\0"),
            case("cut", "bad_note", data[:-1]),
        ],
    }


def _receipts() -> Json:
    """`leaf` is given to whoever checks; `size` is that of the checkpoint."""
    tree = _tiled(7)
    note, leaf = _note(7, tree.root()), _leaf(4).leaf
    good = Receipt(4, tree.inclusion(4), note)
    data = encode_receipt(good)
    return {
        "origin": ORIGIN,
        "verifiers": [LOG.verifier.text],
        "accept": [
            _case("entry 4 of 7", data, leaf=leaf.hex(), size=7),
            _case("with extra", encode_receipt(Receipt(4, good.path, note, b"extra")), leaf=leaf.hex(), size=7),
        ],
        "reject": [
            _case("another entry", data, "bad_proof", leaf=_leaf(5).leaf.hex()),
            _case("another index", data.replace(b"index 4", b"index 5"), "bad_proof", leaf=leaf.hex()),
            _case("a node left out", encode_receipt(Receipt(4, good.path[1:], note)), "bad_proof", leaf=leaf.hex()),
            _case("another size", data.replace(b"\n7\n", b"\n8\n"), "bad_note_signature", leaf=leaf.hex()),
            _case("another version", data.replace(b"@v1", b"@v2"), "bad_note", leaf=leaf.hex()),
            _case("no index", data.replace(b"index 4\n", b""), "bad_note", leaf=leaf.hex()),
            _case("no checkpoint", data.partition(b"\n\n")[0], "bad_note", leaf=leaf.hex()),
        ],
    }
