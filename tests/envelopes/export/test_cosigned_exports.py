"""Exports and receipts under a root file with a policy of witnesses: both verifiers demand its quorum, and no line more."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

import pytest
from independent import verify_export as independent
from support.cosigners import ML_DSA_44, TIME, Cosigner, cosigned, policy_text
from support.log_world import ORIGIN, LogKey, World, entry_of, make_world, note
from support.memory_files import MemoryFiles
from vectors.issuing import Json

from sealbus.agents.evidence.lookup import look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.agents.evidence.verify import Verification, verify_export
from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.export.latest import check_latest, encode_latest
from sealbus.envelopes.export.receipt import check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.tree_proofs import consistency_path
from sealbus.envelopes.trust.merkle import root as root_of_leaves

WORLD, SHORTER = make_world(1, 24), 19
SIZE = len(WORLD.frames)
ONE, TWO, THREE = Cosigner("one"), Cosigner("two", ML_DSA_44), Cosigner("three")
STRANGER = Cosigner("stranger")
TWO_OF_THREE = ("group g 2 one two three", "quorum g")


def root_of(*rows: str, world: World = WORLD, held: tuple[bytes, ...] = ()) -> bytes:
    policy = policy_text(world.keys, [ONE, TWO, THREE], *(rows or TWO_OF_THREE))
    return json.dumps(world.root(*held, v=2, policy=policy)).encode()


def changed_root(**changes: Json) -> bytes:
    return json.dumps(json.loads(root_of()) | changes).encode()


def verified(files: Mapping[str, bytes], document: bytes) -> Verification:
    """Return what our verifier says; the independent one says the same."""
    ours = verify_export(MemoryFiles(files), Root.parse(document), processes=1)
    theirs = independent.verify(files, independent.read_root(document))
    assert {(one.place, str(one.code)) for one in ours.findings} == {
        (place, code) for place, code, _ in theirs.findings
    }
    return ours


def codes(files: Mapping[str, bytes], document: bytes) -> set[tuple[str, str]]:
    return {(one.place, str(one.code)) for one in verified(files, document).findings}


def files_with(*cosigners: Cosigner, world: World = WORLD) -> dict[str, bytes]:
    files = world.files()
    return files | {"checkpoint": cosigned(files["checkpoint"], *cosigners)}


def test_the_quorum_has_cosigned() -> None:
    for cosigners in ([ONE, TWO], [THREE, TWO], [ONE, TWO, THREE]):
        report = verified(files_with(*cosigners), root_of())
        assert (report.passed, report.following) == (True, 0)
        assert report.cosigners == tuple(one.label for one in cosigners)


@pytest.mark.parametrize("cosigners", [[], [ONE], [TWO]])
def test_the_quorum_has_not(cosigners: list[Cosigner]) -> None:
    assert codes(files_with(*cosigners), root_of()) == {("checkpoint", "no_quorum")}


def test_no_quorum_is_demanded() -> None:
    for cosigners in ([], [TWO], [ONE, TWO, THREE]):
        assert verified(files_with(*cosigners), root_of("quorum none")).passed
    assert codes(files_with(STRANGER), root_of("quorum none")) == {("checkpoint", "untrusted_note")}


def test_groups_in_groups() -> None:
    document = root_of("group theirs any two three", "group all all one theirs", "quorum all")
    assert verified(files_with(ONE, THREE), document).passed
    assert codes(files_with(TWO, THREE), document) == {("checkpoint", "no_quorum")}
    assert codes(files_with(ONE), document) == {("checkpoint", "no_quorum")}


def test_a_root_file_without_a_policy_takes_no_cosignature() -> None:
    document = json.dumps(WORLD.root()).encode()
    assert verified(files_with(), document).passed
    assert codes(files_with(ONE, TWO), document) == {("checkpoint", "untrusted_note")}


def line(witness: Cosigner, text: str, time: int = TIME) -> bytes:
    return witness.line(witness.signature(text, time)).encode()


def attacks() -> dict[str, tuple[bytes, str]]:
    """Return lines after the log's own and a good cosignature, with the code of each."""
    plain = WORLD.files()["checkpoint"].decode()
    text = plain.partition("\n\n")[0] + "\n"
    other = text.replace(f"\n{SIZE}\n", f"\n{SIZE + 1}\n")
    signature = TWO.signature(text)
    altered = {f"ML-DSA-44 altered at {at}": at for at in (0, 8, 1_000, len(signature) - 1)}
    flipped = {
        name: (
            TWO.line(signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]).encode(),
            "bad_note_signature",
        )
        for name, at in altered.items()
    }
    return flipped | {
        "an unknown witness": (line(STRANGER, text), "untrusted_note"),
        "an unknown witness of ML-DSA-44": (line(Cosigner("stranger", ML_DSA_44), text), "untrusted_note"),
        "another name": (line(ONE, text).replace(ONE.name.encode(), b"other.example/w"), "untrusted_note"),
        "another case of the name": (
            line(ONE, text).replace(ONE.name.encode(), b"One.example/witness"),
            "untrusted_note",
        ),
        "the other type's key": (line(Cosigner("one", ML_DSA_44), text), "untrusted_note"),
        "another size": (line(ONE, other), "bad_note_signature"),
        "another size under ML-DSA-44": (line(TWO, other), "bad_note_signature"),
        "another origin": (line(ONE, text.replace(ORIGIN, ORIGIN + "2")), "bad_note_signature"),
        "another origin under ML-DSA-44": (line(TWO, text.replace(ORIGIN, ORIGIN + "2")), "bad_note_signature"),
        "no time": (line(ONE, text, time=0), "bad_note_signature"),
        "no time under ML-DSA-44": (line(TWO, text, time=0), "bad_note_signature"),
        "a huge time": (line(ONE, text, time=2**63), "bad_note_signature"),
        "a huge time under ML-DSA-44": (line(TWO, text, time=2**64 - 1), "bad_note_signature"),
        "cut": (ONE.line(ONE.signature(text)[:-1]).encode(), "bad_note_signature"),
        "cut under ML-DSA-44": (TWO.line(signature[:-1]).encode(), "bad_note_signature"),
        "longer under ML-DSA-44": (TWO.line(signature + b"\0").encode(), "bad_note_signature"),
        "a time alone": (TWO.line(signature[:8]).encode(), "bad_note_signature"),
        "a part of a time": (TWO.line(signature[:3]).encode(), "bad_note_signature"),
        "not a cosignature, but a signature": (
            ONE.line(ONE.sign(text.encode())).encode(),
            "bad_note_signature",
        ),
        "twice": (line(ONE, text) * 2, "bad_note"),
        "twice, at two times": (line(ONE, text) + line(ONE, text, time=5), "bad_note"),
        "twice under ML-DSA-44": (line(TWO, text) + line(TWO, text), "bad_note"),
        "too large": (line(TWO, text) + b"\xe2\x80\x94 two.example/witness " + b"A" * 131_072 + b"\n", "bad_note"),
        "too large by one line": (b"\xe2\x80\x94 x.example " + b64encode(bytes(98_304)) + b"\n", "bad_note"),
    }


ATTACKS = attacks()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_line_that_is_not_as_it_should_be(name: str) -> None:
    """Whatever else has cosigned it: three good witnesses do not make up for a line that is wrong."""
    lines, code = ATTACKS[name]
    files = files_with(THREE)
    assert codes(files | {"checkpoint": files["checkpoint"] + lines}, root_of("quorum three")) == {("checkpoint", code)}


def test_by_a_witness_that_the_policy_no_longer_has() -> None:
    policy = policy_text(WORLD.keys, [ONE, TWO], "group g any one two", "quorum g")
    document = json.dumps(WORLD.root(v=2, policy=policy)).encode()
    assert verified(files_with(ONE, TWO), document).passed
    assert codes(files_with(ONE, TWO, THREE), document) == {("checkpoint", "untrusted_note")}


def test_cosigned_and_not_signed_by_the_log() -> None:
    text = WORLD.files()["checkpoint"].decode().partition("\n\n")[0] + "\n"
    note_of_witnesses = cosigned(f"{text}\n".encode(), ONE, TWO, THREE)
    assert codes(WORLD.files() | {"checkpoint": note_of_witnesses}, root_of()) == {("checkpoint", "untrusted_note")}


def test_in_a_checkpoint_that_the_log_holds() -> None:
    """A record has a note without cosignatures, whatever the root file says."""
    world = make_world(2, 20)
    logged = cosigned(note(3, world.root_at(3), world.keys), ONE)
    from support.log_world import NOTARY
    from vectors.recorded import record_map

    world.put(world.audit(NOTARY, [], [record_map("checkpoint", **{"not": logged})]))
    assert codes(files_with(ONE, TWO, world=world), root_of(world=world)) == {(f"#{world.sequence}", "untrusted_note")}


def test_a_held_checkpoint_needs_no_quorum() -> None:
    files = files_with(ONE, TWO)
    for held in (note(5, WORLD.root_at(5), WORLD.keys), cosigned(note(5, WORLD.root_at(5), WORLD.keys), TWO)):
        assert verified(files, root_of(held=(held,))).passed
    with pytest.raises(ConfigurationError, match="a checkpoint in it"):
        Root.parse(root_of(held=(cosigned(note(5, WORLD.root_at(5), WORLD.keys), STRANGER),)))
    assert codes(files, root_of(held=(cosigned(note(5, bytes(32), WORLD.keys), ONE),))) == {
        ("checkpoint", "inconsistent_log")
    }


# ---- what follows ----------------------------------------------------------------------------------------------------


def shorter() -> World:
    made = make_world(1, 24)
    del made.frames[SHORTER:]
    return made


LEAVES = [sha256(b"\0" + entry_of(frame)).digest() for frame in WORLD.frames]
PATH = consistency_path(
    SHORTER, SIZE, lambda level, index: root_of_leaves(LEAVES[index << level : (index + 1) << level])
)
LATER = WORLD.files()["checkpoint"]


def with_latest(data: bytes, *cosigners: Cosigner) -> dict[str, bytes]:
    return files_with(*(cosigners or (ONE, TWO)), world=shorter()) | {"latest": data}


def test_what_follows_is_counted() -> None:
    for later in (LATER, cosigned(LATER, TWO)):
        report = verified(with_latest(encode_latest(SHORTER, PATH, later)), root_of())
        assert (report.passed, report.following) == (True, SIZE - SHORTER)
    assert verified(files_with(ONE, TWO, world=shorter()), root_of()).following == 0


def test_nothing_follows_under_a_root_file_without_a_policy() -> None:
    files = with_latest(encode_latest(SHORTER, PATH, LATER)) | {"checkpoint": shorter().files()["checkpoint"]}
    assert codes(files, json.dumps(WORLD.root()).encode()) == {("latest", "unknown_file")}


GOOD = encode_latest(SHORTER, PATH, LATER)
WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "bad_note"),
    "another size": (encode_latest(SHORTER - 1, PATH, LATER), "bad_note"),
    "another spelling of the size": (GOOD.replace(b"old ", b"old 0"), "bad_note"),
    "another case": (GOOD.replace(b"old", b"Old"), "bad_note"),
    "no size": (GOOD.removeprefix(b"old "), "bad_note"),
    "not ASCII": (b"\xc3" + GOOD, "bad_note"),
    "a carriage return": (GOOD.replace(b"\n", b"\r\n", 1), "bad_note"),
    "not base64": (GOOD.replace(b"=\n", b"\n", 1), "bad_note"),
    "a node left out": (encode_latest(SHORTER, PATH[:-1], LATER), "bad_proof"),
    "a node more": (encode_latest(SHORTER, [*PATH, bytes(32)], LATER), "bad_proof"),
    "a short node": (encode_latest(SHORTER, [*PATH[:-1], bytes(31)], LATER), "bad_proof"),
    "another node": (encode_latest(SHORTER, [*PATH[:-1], bytes(32)], LATER), "bad_proof"),
    "another root": (encode_latest(SHORTER, PATH, note(SIZE, bytes(32), WORLD.keys)), "bad_proof"),
    "with the quorum": (encode_latest(SHORTER, PATH, cosigned(LATER, ONE, TWO)), "bad_note"),
    "not later": (encode_latest(SHORTER, [], shorter().files()["checkpoint"]), "bad_note"),
    "smaller": (encode_latest(SHORTER, [], note(3, WORLD.root_at(3), WORLD.keys)), "bad_note"),
    "by another": (encode_latest(SHORTER, PATH, note(SIZE, WORLD.root_at(SIZE), [LogKey("x")])), "untrusted_note"),
    "cosigned by another": (encode_latest(SHORTER, PATH, cosigned(LATER, STRANGER)), "untrusted_note"),
    "of another log": (
        encode_latest(SHORTER, PATH, note(SIZE, WORLD.root_at(SIZE), WORLD.keys, "log.example.org/x")),
        "wrong_log",
    ),
    "too large": (encode_latest(SHORTER, PATH, LATER) + b"\xe2\x80\x94 a " + b"A" * 140_000 + b"\n", "bad_note"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_follows_is_proved(name: str) -> None:
    data, code = WRONG[name]
    assert codes(with_latest(data), root_of()) == {("latest", code)}


def test_what_follows_an_empty_log() -> None:
    root = Root.parse(root_of())
    empty = Checkpoint(ORIGIN, 0, sha256().digest())
    assert check_latest(encode_latest(0, [], LATER), empty, root).size == SIZE
    with pytest.raises(LogError) as raised:
        check_latest(encode_latest(0, [bytes(32)], LATER), empty, root)
    assert raised.value.code is Code.BAD_PROOF


# ---- receipts --------------------------------------------------------------------------------------------------------


def test_a_receipt_has_the_quorum() -> None:
    ident = WORLD.messages[0].entries()["id"]
    assert isinstance(ident, bytes)
    root, files = Root.parse(root_of()), MemoryFiles(files_with(ONE, TWO, THREE))
    lookup = look_up(files, root, ident)
    receipt = make_receipt(files, root, lookup, lookup.found[0])
    assert check_receipt(receipt, root).checkpoint.size == SIZE
    [*_, third] = receipt.decode().splitlines(keepends=True)
    fewer = receipt.decode().removesuffix(third)
    assert check_receipt(fewer.encode(), root).checkpoint.size == SIZE
    for cut, code in ((2, Code.NO_QUORUM), (3, Code.NO_QUORUM)):
        one_less = "".join(receipt.decode().splitlines(keepends=True)[:-cut])
        with pytest.raises(LogError) as raised:
            check_receipt(one_less.encode(), root)
        assert raised.value.code is code
    with pytest.raises(LogError) as raised:
        check_receipt(receipt, Root.parse(json.dumps(WORLD.root()).encode()))
    assert raised.value.code is Code.UNTRUSTED_NOTE


def test_a_lookup_demands_the_quorum() -> None:
    with pytest.raises(LogError) as raised:
        look_up(MemoryFiles(files_with(ONE)), Root.parse(root_of()), bytes(16))
    assert raised.value.code is Code.NO_QUORUM


# ---- the root file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 3},
        {"v": 1},
        {"v": "2"},
        {"v": 2.0},
        {"policy": 1},
        {"policy": ""},
        {"policy": "quorum none\n"},
        {"policy": "quorum none"},
        {"policy": "\ud800"},
        {"policy": policy_text([LogKey("x")], [ONE], "quorum one")},
        {"policy": policy_text([*WORLD.keys, LogKey("x")], [ONE], "quorum one")},
        {"policy": policy_text(WORLD.keys, [ONE, ONE], "quorum one")},
        {"policy": policy_text(WORLD.keys, [ONE], "quorum two")},
        {"policy": policy_text(WORLD.keys, [ONE], "group g any one", "group g any one", "quorum g")},
        {"policy": policy_text(WORLD.keys, [ONE], "group g 2 one", "quorum g")},
        {"policy": policy_text(WORLD.keys, [ONE], "group none any one", "quorum none")},
        {"policy": policy_text(WORLD.keys, [ONE], "quorum one", "quorum one")},
        {"policy": policy_text(WORLD.keys, [Cosigner(f"w{number}") for number in range(33)], "quorum none")},
        {"policy": policy_text(WORLD.keys, [ONE], "quorum one\x0b")},
        {"origin": "log.example.org/audit2"},
        {"origin": "log.example.org"},
        {"origin": ORIGIN.upper()},
        {"origin": f"{ORIGIN.upper()}/2"},
    ],
)
def test_what_a_root_file_may_not_say(changes: dict[str, Json]) -> None:
    with pytest.raises(ConfigurationError):
        Root.parse(changed_root(**changes))
    with pytest.raises((independent.Bad, ValueError)):
        independent.read_root(changed_root(**changes))


def test_what_a_root_file_says() -> None:
    root = Root.parse(root_of())
    assert root.policy is not None
    assert (root.policy.quorum, [witness.name for witness in root.policy.witnesses]) == ("g", ["one", "two", "three"])
    assert json.loads(root.encode())["v"] == 2
    assert Root.parse(root.encode()).encode() == root.encode()
    names = {key.name for key in root.known_keys}
    assert names == {ORIGIN, ONE.name, TWO.name, THREE.name}
    assert {key.name for key in Root.parse(json.dumps(WORLD.root()).encode()).known_keys} == {ORIGIN}
    assert "policy" not in json.loads(Root.parse(json.dumps(WORLD.root()).encode()).encode())


@pytest.mark.parametrize("other", ["log.example.org/other", "log.example.org/audit/1"])
def test_each_key_is_of_the_log(other: str) -> None:
    for keys in ([*WORLD.keys, LogKey("x", other)], [LogKey("x", other), *WORLD.keys]):
        changes: dict[str, Json] = {
            "keys": [key.vkey for key in keys],
            "policy": policy_text(keys, [ONE], "quorum one"),
        }
        with pytest.raises(ConfigurationError, match="not the origin or a prefix"):
            Root.parse(changed_root(**changes))
        with pytest.raises(independent.Bad):
            independent.read_root(changed_root(**changes))


@pytest.mark.parametrize(("more", "code"), [(0, set()), (1, {("checkpoint", "bad_note")})])
def test_the_largest_note_without_cosignatures(more: int, code: set[tuple[str, str]]) -> None:
    """Of 8,192 bytes: 24 lines, each of a name and 98 bytes."""
    size, count = 8_192 - len(WORLD.files()["checkpoint"]), 24
    lengths = [size // count - 98] * (count - 1)
    lengths.append(size + more - sum(lengths) - 98 * count)
    keys = [*WORLD.keys, *(LogKey(f"{at}", f"{at:02}".ljust(length, "x")) for at, length in enumerate(lengths))]
    files = WORLD.files() | {"checkpoint": note(SIZE, WORLD.root_at(SIZE), keys)}
    assert len(files["checkpoint"]) == 8_192 + more
    assert codes(files, json.dumps(WORLD.root(keys=[key.vkey for key in keys])).encode()) == code


def test_the_longest_name_of_a_key() -> None:
    for name, good in (("x" * 256, True), ("\u00e9" * 128, True), ("x" * 257, False), ("\u00e9" * 129, False)):
        key = LogKey("x", name)
        document = json.dumps(WORLD.root(keys=[key.vkey])).encode()
        if good:
            assert independent.read_root(document).keys[0].name == Root.parse(document).keys[0].name == name
            continue
        with pytest.raises(ConfigurationError):
            Root.parse(document)
        with pytest.raises(independent.Bad):
            independent.read_root(document)


def test_one_key_of_the_logs_of_several_periods() -> None:
    for origin in (f"{ORIGIN}/2026-11", f"{ORIGIN}/a/b"):
        assert Root.parse(changed_root(origin=origin)).origin == origin
        assert independent.read_root(changed_root(origin=origin)).origin == origin
