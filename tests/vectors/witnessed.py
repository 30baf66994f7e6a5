"""Vectors of cosigned logs: policies of witnesses, cosigned checkpoints, and exports and receipts that need a quorum.

An ML-DSA-44 signature is another each time. So the ones that the file has are taken again, by the hash of what they sign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from support.cosigners import ML_DSA_44, TIME, Cosigner, cosigned, policy_text
from support.log_world import ORIGIN, World, entry_of, note, tree_root
from support.memory_files import MemoryFiles
from vectors.exports import make_export_world, message_ident
from vectors.issuing import Json

from sealbus.agents.evidence.lookup import look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.envelopes.export.latest import encode_latest
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.tree_proofs import consistency_path

__all__ = ["witnesses"]

FILE = Path(__file__).parent / "witnesses.json"


@cache
def _signatures() -> dict[str, str]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))["signatures"]) if FILE.exists() else {}


_used: dict[str, str] = {}


@dataclass(frozen=True)
class _Kept(Cosigner):
    """A witness whose ML-DSA-44 signatures are those of the file, where that has them."""

    def sign(self, message: bytes) -> bytes:
        name = sha256(self.key + message).hexdigest()
        if self.kind != ML_DSA_44:
            return super().sign(message)
        return bytes.fromhex(_used.setdefault(name, _signatures().get(name) or super().sign(message).hex()))


ONE, TWO, THREE, STRANGER = _Kept("one"), _Kept("two", ML_DSA_44), _Kept("three"), _Kept("stranger")
ROWS = ("group theirs any two three", "group both all one theirs", "quorum both")


def witnesses() -> Json:
    """Return the whole file."""
    _used.clear()
    world = make_export_world()
    policy = policy_text(world.keys, [ONE, TWO, THREE], *ROWS)
    content: dict[str, Json] = {
        "policies": _policies(world),
        "checkpoints": {
            "origin": ORIGIN,
            "keys": [key.vkey for key in world.keys],
            "policy": policy,
            **_checkpoints(world),
        },
        "root": {"v": 2, "policy": policy},
        "exports": _exports(world),
        "receipts": _receipts(world, policy),
    }
    return {**content, "signatures": dict(sorted(_used.items()))}


def _policies(world: World) -> Json:
    keys, three = world.keys, [ONE, TWO, THREE]

    def good(name: str, text: str, *quorums: tuple[str, bool]) -> Json:
        said: list[Json] = [{"cosigners": [*names.split()], "enough": enough} for names, enough in quorums]
        return {"name": name, "text": text, "quorums": said}

    spaces = policy_text(keys, three, "group g 2 one two three", "quorum g").replace(" ", " \t ")
    log, witness = f"log {keys[0].vkey}\n", f"witness one {ONE.vkey}\n"
    bad = {
        "no quorum": log + witness,
        "two quorums": log + witness + "quorum one\nquorum none\n",
        "an unknown quorum": log + witness + "quorum two\n",
        "a quorum before its witness": log + "quorum one\n" + witness,
        "a line that does not end": log + witness + "quorum one",
        "a line of no kind": log + witness + "quorum one\nmore\n",
        "a carriage return": log + witness + "quorum one\r\n",
        "a vertical tab": log + witness + "quorum\x0bone\n",
        "a group of nobody": log + witness + "group g all\nquorum one\n",
        "a threshold of none": log + witness + "group g 0 one\nquorum g\n",
        "a threshold over its members": log + witness + "group g 2 one\nquorum g\n",
        "a threshold with a zero before": log + witness + "group g 01 one\nquorum g\n",
        "a group of itself": log + witness + "group g any g\nquorum g\n",
        "a circle": log + witness + "group g any h\ngroup h any g\nquorum g\n",
        "a member of two groups": log + witness + "group g any one\ngroup h any one\nquorum g\n",
        "a member twice": log + witness + "group g 2 one one\nquorum g\n",
        "none as a member": log + witness + "group g any none\nquorum g\n",
        "none as a name": log + f"witness none {ONE.vkey}\nquorum none\n",
        "a name twice": log + witness + f"witness one {TWO.vkey}\nquorum one\n",
        "a name of both": log + witness + "group one any one\nquorum one\n",
        "a witness twice": log + witness + f"witness two {ONE.vkey}\nquorum one\n",
        "a log twice": log + log + witness + "quorum one\n",
        "a log with a witness's key": f"log {ONE.vkey}\n" + witness + "quorum one\n",
        "a witness with a log's key": log + f"witness one {keys[0].vkey}\nquorum one\n",
        "a key of another id": log + witness.replace(ONE.key_id.hex(), "00000000") + "quorum one\n",
        "a word too many": log + f"witness one {ONE.vkey} a b\nquorum one\n",
        "33 witnesses": policy_text(keys, [Cosigner(f"w{number}") for number in range(33)], "quorum none"),
    }
    return {
        "accept": [
            good("none", policy_text(keys, [], "quorum none"), ("", True), ("one", True)),
            good("one witness", policy_text([], three, "quorum two"), ("two", True), ("one three", False), ("", False)),
            good("two of three, with spaces", spaces,
                 ("one three", True), ("one two three", True), ("one", False), ("g", False)),
            good("all", policy_text(keys, three, "group g all one two", "quorum g"), ("one two", True), ("one three", False)),
            good("any", policy_text(keys, three, "group g any one two", "quorum g"), ("two", True), ("three", False)),
            good("groups in a group", policy_text(keys, three, *ROWS),
                 ("one two", True), ("one", False), ("two three", False)),
            good("comments", "# \u00e9\n\n \t\n" + policy_text(keys, three, " # none", "quorum one"), ("one", True)),
            good("names are compared by their bytes", f"witness K {ONE.vkey}\nwitness \u212a {TWO.vkey}\nquorum K\n",
                 ("K", True), ("\u212a", False)),
        ],
        "reject": [{"name": name, "text": text} for name, text in bad.items()],
    }  # fmt: skip


def _checkpoints(world: World) -> dict[str, Json]:
    plain = note(5, bytes(32), world.keys)
    text = plain.decode().partition("\n\n")[0] + "\n"
    other = text.replace("\n5\n", "\n6\n")
    pair = TWO.signature(text)

    def with_lines(*lines: str) -> bytes:
        return plain + "".join(lines).encode()

    def line(witness: Cosigner, of: str = text, time: int = TIME) -> str:
        return witness.line(witness.signature(of, time))

    bad: Mapping[str, tuple[str, bytes]] = {
        "by a stranger": ("untrusted_note", with_lines(line(ONE), line(STRANGER))),
        "under another name": ("untrusted_note", with_lines(line(ONE).replace(ONE.name, "other.example/w"))),
        "by witnesses alone": ("untrusted_note", f"{text}\n{line(ONE)}{line(TWO)}".encode()),
        "twice": ("bad_note", with_lines(line(ONE), line(ONE, time=5))),
        "of another size": ("bad_note_signature", with_lines(line(ONE, other))),
        "of another size, ML-DSA-44": ("bad_note_signature", with_lines(line(TWO, other))),
        "altered, ML-DSA-44": ("bad_note_signature", with_lines(TWO.line(pair[:-1] + bytes([pair[-1] ^ 1])))),
        "cut, ML-DSA-44": ("bad_note_signature", with_lines(TWO.line(pair[:-1]))),
        "at no time": ("bad_note_signature", with_lines(line(ONE, time=0))),
        "at no time, ML-DSA-44": ("bad_note_signature", with_lines(line(TWO, time=0))),
        "at a time over 2^63": ("bad_note_signature", with_lines(line(ONE, time=2**63))),
        "a signature of the note": ("bad_note_signature", with_lines(ONE.line(ONE.sign(text.encode())))),
    }
    good = {
        "by nobody": [],
        "Ed25519": [line(ONE)],
        "ML-DSA-44": [line(TWO)],
        "both": [line(TWO), line(ONE, time=1)],
        "at the last time": [line(THREE, time=2**63 - 1)],
    }
    return {
        "accept": [
            {"name": name, "hex": with_lines(*lines).hex(), "size": 5,
             "cosigners": [one.label for row in lines for one in (ONE, TWO, THREE) if f" {one.name} " in row]}
            for name, lines in good.items()
        ],
        "reject": [{"name": name, "code": code, "hex": data.hex()} for name, (code, data) in bad.items()],
    }  # fmt: skip


def _exports(world: World) -> Json:
    """Return exports as what differs from the one of `exports.json`, and from its root file beside the member `root` here."""
    size, leaves = len(world.frames), [sha256(b"\x00" + entry_of(frame)).digest() for frame in world.frames]
    plain = world.files()["checkpoint"]
    path = consistency_path(size, size + 2, _nodes([*leaves, bytes(32), bytes(32)]))
    later = note(size + 2, tree_root([*leaves, bytes(32), bytes(32)]), world.keys)
    quorum = cosigned(plain, ONE, TWO)

    def case(
        name: str, checkpoint: bytes, latest: bytes | None = None, *, code: str = "", following: int = 0, **root: Json
    ) -> Json:
        files: dict[str, Json] = {"checkpoint": checkpoint.hex()}
        if latest is not None:
            files["latest"] = latest.hex()
        expect: dict[str, Json] = {"code": code} if code else {"following": following}
        return {"name": name, "files": files, "root": root, **expect}

    only_one = policy_text(world.keys, [ONE], "quorum one")
    none = policy_text(world.keys, [ONE, TWO, THREE], "quorum none")
    return {
        "accept": [
            case("the quorum", quorum),
            case("all witnesses", cosigned(plain, THREE, ONE, TWO)),
            case("no quorum is demanded", plain, policy=none),
            case("two entries follow", quorum, encode_latest(size, path, later), following=2),
            case("two entries follow, which one witness has cosigned", quorum,
                 encode_latest(size, path, cosigned(later, ONE)), following=2),
        ],
        "reject": [
            case("no cosignature", plain, code="no_quorum"),
            case("one is missing", cosigned(plain, TWO, THREE), code="no_quorum"),
            case("by a witness that was removed", cosigned(plain, ONE, TWO), code="untrusted_note", policy=only_one),
            case("by a stranger, too", cosigned(quorum, STRANGER), code="untrusted_note"),
            case("latest with the quorum", quorum, encode_latest(size, path, cosigned(later, ONE, TWO)), code="bad_note"),
            case("latest of another size", quorum, encode_latest(size - 1, path, later), code="bad_note"),
            case("latest that is not later", quorum, encode_latest(size, [], plain), code="bad_note"),
            case("latest of another history", quorum,
                 encode_latest(size, path, note(size + 2, bytes(32), world.keys)), code="bad_proof"),
            case("latest without its path", quorum, encode_latest(size, [], later), code="bad_proof"),
        ],
    }  # fmt: skip


def _nodes(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    return lambda level, index: tree_root(leaves[index << level : (index + 1) << level])


def _receipts(world: World, policy: str) -> Json:
    """Return receipts of the last message, verified with the root file of `exports.json` and the member `root` here."""
    root = Root.parse(json.dumps(world.root(v=2, policy=policy)).encode())
    text = cosigned(world.files()["checkpoint"], ONE, THREE, TWO)
    files = MemoryFiles(world.files() | {"checkpoint": text})
    lookup = look_up(files, root, message_ident(world.messages[-1]))
    lines = make_receipt(files, root, lookup, lookup.found[0]).decode().splitlines(keepends=True)
    return {
        "accept": [
            {"name": "three cosignatures", "text": "".join(lines)},
            {"name": "two", "text": "".join(lines[:-1])},
        ],
        "reject": [
            {"name": "one", "code": "no_quorum", "text": "".join(lines[:-2])},
            {"name": "none", "code": "no_quorum", "text": "".join(lines[:-3])},
        ],
    }
