"""Exports in which something is nearly right: both verifiers find it, for they compare the whole of it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from random import Random

import pytest
from independent import verify_export as independent
from support.log_world import NOTARY, ORIGIN, World, bundle, note
from support.memory_files import MemoryFiles
from support.receipts import shown, unchecked
from vectors.issuing import INVENTORY
from vectors.recorded import decision, evidence, record_map

from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.export.receipt import RecordReceipt, check_receipt, show_items
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.trust.merkle import leaf_hash, root


def near(spiffe_id: str) -> list[str]:
    """Return IDs that are nearly this one."""
    head, _, last = spiffe_id.rpartition("/")
    return [
        spiffe_id.replace("example.org", "other.org"),
        f"{spiffe_id}x",
        f"{spiffe_id}/x",
        spiffe_id[:-1],
        f"{head}/{last.upper()}",
        f"{head}/{last.capitalize()}",
    ]


@pytest.fixture
def world() -> World:
    """Return a log that trusts another trust domain as well."""
    made = World(Random(1))  # noqa: S311
    made.creation()
    made.record_bundle("k0")
    foreign = record_map("bundle", dom="other.org", cur=made.time, jwt=bundle("k0"))
    made.put(made.audit(NOTARY, [], [foreign]))
    assert found(made) == set()
    return made


def found(world: World, files: dict[str, bytes] | None = None) -> set[tuple[str, str]]:
    """Return what our verifier finds; the independent one finds something, too, or nothing either."""
    document, files = json.dumps(world.root()).encode(), files if files is not None else world.files()
    report = verify_export(MemoryFiles(files), Root.parse(document), processes=1)
    ours = {(one.place, str(one.code)) for one in report.findings}
    theirs = independent.verify(files, independent.read_root(document)).findings
    assert bool(ours) == bool(theirs)
    return ours


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_record_by_nearly_the_notary(world: World, iss: str) -> None:
    world.put(world.audit(iss, [], [record_map("policy", rev="r", sha=bytes(32), siz=1, loc="")]))
    assert found(world) == {(f"#{world.sequence}", "not_the_notary")}


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_bundle_by_nearly_the_notary_brings_no_trust(world: World, iss: str) -> None:
    world.put(world.audit(iss, [], [record_map("bundle", dom="example.org", cur=world.time, jwt=bundle("k0", "x0"))]))
    said = {(f"#{world.sequence}", "not_the_notary")}
    world.issuer = "x"
    world.denials()
    assert found(world) == said | {(f"#{world.sequence}", "unknown_key")}


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_checkpoint_by_nearly_the_notary(world: World, iss: str) -> None:
    forged = note(2, bytes(32), world.keys)
    world.put(world.audit(iss, [], [record_map("checkpoint", **{"not": forged})]))
    assert found(world) == {(f"#{world.sequence}", "not_the_notary")}


@pytest.mark.parametrize("iss", near(INVENTORY))
def test_a_decision_by_who_it_was_nearly_for(world: World, iss: str) -> None:
    task, _ = world.task(user=False, chain=0)
    world.put(world.audit(iss, evidence(task), [decision(task, sto=world.time)]))
    assert found(world) == {(f"#{world.sequence}", "wrong_audience")}


@pytest.mark.parametrize(
    "name",
    [
        *("Checkpoint", "checkpoint2", "messages/0000", "Messages/000", "messages/000.p/3", "messages/00"),
        *("tile/Entries/000.p/3", "tile/entries/000.p/03", "tile/entry/000.p/3", "tile/places/000.p/3"),
        *("tile/Places/000.p/3", "tile/0/000.p/4", f"Policies/{bytes(32).hex()}.tar.gz"),
        *(f"policies/{bytes(32).hex()}.TAR.GZ", f"policies/{'AB' * 32}.tar.gz", f"policies/{bytes(31).hex()}.tar.gz"),
        f"policies/{bytes(32).hex()}.tar.gzz",
    ],
)
def test_a_file_of_nearly_the_right_name(world: World, name: str) -> None:
    files = world.files() | {name: b""}
    assert found(world, files) == {(name, "unknown_file")}


def test_hashes_that_differ_in_the_last_byte_alone(world: World) -> None:
    files = world.files()
    for name in [one for one in files if one.startswith("tile/")]:
        data = files[name]
        assert (name, "bad_tile") in found(world, files | {name: data[:-1] + bytes([data[-1] ^ 1])})
    size, whole = len(world.frames), world.root_at(len(world.frames))
    bent = note(size, whole[:-1] + bytes([whole[-1] ^ 1]), world.keys)
    assert found(world, files | {"checkpoint": bent}) == {("checkpoint", "log_mismatch")}
    held = world.root(bent)
    report = verify_export(MemoryFiles(files), Root.parse(json.dumps(held).encode()), processes=1)
    assert {one.code for one in report.findings} == {"inconsistent_log"}


def test_two_checkpoints_of_another_history_in_one_message(world: World) -> None:
    good, bad = (note(2, one, world.keys) for one in (world.root_at(2), bytes(32)))
    for notes in ((bad, good), (good, bad)):
        world.put(world.audit(NOTARY, [], [record_map("checkpoint", **{"not": one}) for one in notes]))
        assert (f"#{world.sequence}", "inconsistent_log") in found(world)


def refused(world: World, receipt: RecordReceipt, *held: bytes) -> str:
    with pytest.raises((EnvelopeError, LogError)) as raised:
        check_receipt(receipt.encode(), Root.parse(json.dumps(world.root(*held)).encode()))
    return raised.value.code


def shown_with_both(world: World, numbers: list[int], *more: int) -> RecordReceipt:
    """Return the receipt of the last entry, for which both bundles vouch, and those of entries `more`."""
    last = len(world.frames) - 1
    bundles = [unchecked(world, last, numbers, bundle=index).bundles[0] for index in (1, 2, *more)]
    return replace(unchecked(world, last, numbers), bundles=tuple(bundles))


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_receipt_of_a_record_by_nearly_the_notary(world: World, iss: str) -> None:
    world.put(world.audit(iss, [], [record_map("policy", rev="r", sha=bytes(32), siz=1, loc="")]))
    assert refused(world, shown_with_both(world, [0])) is Code.BAD_ENTRY


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_receipt_with_a_bundle_by_nearly_the_notary(world: World, iss: str) -> None:
    world.put(world.audit(iss, [], [record_map("bundle", dom="example.org", cur=world.time, jwt=bundle("k0"))]))
    world.denials()
    assert refused(world, shown_with_both(world, [0], 3)) is Code.BAD_ENTRY


@pytest.mark.parametrize("iss", near(INVENTORY))
def test_a_receipt_of_a_decision_by_who_it_was_nearly_for(world: World, iss: str) -> None:
    task, _ = world.task(user=False, chain=0)
    world.put(world.audit(iss, evidence(task), [decision(task, sto=world.time)]))
    assert refused(world, shown_with_both(world, [0, 1])) is Code.WRONG_AUDIENCE


def test_a_receipt_of_a_log_whose_root_was_nearly_this(world: World) -> None:
    world.denials()
    for size in (3, 4):
        whole = world.root_at(size)
        bent = note(size, whole[:-1] + bytes([whole[-1] ^ 1]), world.keys)
        receipt = unchecked(world, 3, [0], held=[3])
        check_receipt(receipt.encode(), Root.parse(json.dumps(world.root(note(size, whole, world.keys))).encode()))
        assert refused(world, receipt, bent) is Code.INCONSISTENT_LOG


def test_a_receipt_whose_items_lead_nearly_to_the_root(world: World) -> None:
    record = record_map("denials", iss=INVENTORY, min=0, cnt={"denied": 1})
    leaf = sha256(b"\x00" + record).digest()
    world.put(world.audit(INVENTORY, [], [record], dig=leaf[:-1] + bytes([leaf[-1] ^ 1])))
    assert refused(world, shown_with_both(world, [0])) is Code.BAD_SIGNATURE


def test_all_bundles_of_one_message_count(world: World) -> None:
    both = [
        record_map("bundle", dom=dom, cur=world.time, jwt=bundle("k0", "x0")) for dom in ("example.org", "other.org")
    ]
    for records in (both, both[::-1]):
        world.put(world.audit(NOTARY, [], records))
        at = len(world.frames) - 1
        world.issuer = "x"
        for iss in (INVENTORY, INVENTORY.replace("example.org", "other.org")):
            world.put(world.audit(iss, [], [record_map("denials", iss=INVENTORY, min=0, cnt={"denied": 1})]))
            last = len(world.frames) - 1
            message = replace(
                unchecked(world, last, [0], bundle=at).bundles[0].message, items=shown(world, at, [0, 1]).items
            )
            receipt = unchecked(world, last, [0], bundle=1)
            vouching = (receipt.bundles[0], replace(unchecked(world, last, [0], bundle=at).bundles[0], message=message))
            proven = check_receipt(replace(receipt, bundles=vouching).encode(), root_of(world))
            assert proven.recorder.value == iss
        world.issuer = "k"


def root_of(world: World) -> Root:
    return Root.parse(json.dumps(world.root()).encode())


def test_a_root_file_as_long_as_may_be(world: World) -> None:
    data = json.dumps(world.root()).encode()
    assert Root.parse(data + b" " * (1_048_576 - len(data))).encode() == root_of(world).encode()
    with pytest.raises(ConfigurationError, match="over 1048576 bytes"):
        Root.parse(data + b" " * (1_048_577 - len(data)))


def test_a_pin_that_differs_in_the_last_byte_alone(world: World) -> None:
    digest = sha256(bundle("k0")).digest()
    world.pinned = [digest[:-1] + bytes([digest[-1] ^ 1])]
    assert ("messages", "no_bundle") in found(world)


def test_each_checkpoint_of_the_root_file_is_asked(world: World) -> None:
    for _ in range(3):
        world.denials()
    size = len(world.frames)
    good = [note(one, world.root_at(one), world.keys) for one in (3, 4, size)]
    receipt = unchecked(world, 3, [0], held=[3, 4])
    check_receipt(receipt.encode(), Root.parse(json.dumps(world.root(*good)).encode()))
    for place, one in enumerate((3, 4, size)):
        held = [*good[:place], note(one, bytes(32), world.keys), *good[place + 1 :]]
        assert refused(world, receipt, *held) is Code.INCONSISTENT_LOG


def test_each_item_of_a_receipt_leads_to_the_root_and_each_bundle_stands_in_its_place(world: World) -> None:
    items = show_items([b"one", b"two", b"three", b"four"], range(4))
    message = replace(unchecked(world, 1, [0]).message, items=items)
    for place in range(4):
        bent = tuple(replace(item, data=b"another") if at == place else item for at, item in enumerate(items))
        with pytest.raises(EnvelopeError):
            replace(message, items=bent).check_items(root_of_items())
    message.check_items(root_of_items())
    vouching = [unchecked(world, 1, [0], bundle=index).bundles[0] for index in (1, 2, 1)]
    for order in ((0, 2, 1), (1, 0, 1), (0, 0, 1), (0, 1, 1)):
        receipt = replace(unchecked(world, 1, [0]), bundles=tuple(vouching[at] for at in order))
        assert refused(world, receipt) is Code.BAD_NOTE


def root_of_items() -> bytes:
    return root([leaf_hash(item) for item in (b"one", b"two", b"three", b"four")])


def alike(world: World, files: dict[str, bytes] | None = None, *held: bytes) -> list[tuple[str, str]]:
    """Return what the independent verifier finds, in its order; ours finds something there as well."""
    document, files = json.dumps(world.root(*held)).encode(), files if files is not None else world.files()
    theirs = independent.verify(files, independent.read_root(document)).findings
    ours = verify_export(MemoryFiles(files), Root.parse(document), processes=1).findings
    assert {place for place, _, _ in theirs} <= {one.place for one in ours}
    assert bool(theirs) == bool(ours)
    return [(place, code) for place, code, _ in theirs]


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_policy_bundle_that_nearly_the_notary_names_is_no_file_of_the_export(world: World, iss: str) -> None:
    raw = b"of nobody's"
    sha = sha256(raw).digest()
    world.put(world.audit(iss, [], [record_map("policy", rev="r", sha=sha, siz=len(raw), loc="")]))
    by = (f"#{world.sequence}", "not_the_notary")
    assert alike(world) == [by]
    name = f"policies/{sha.hex()}.tar.gz"
    assert alike(world, world.files() | {name: raw}) == [(name, "unknown_file"), by]


@pytest.mark.parametrize("iss", near(NOTARY))
def test_a_bundle_by_nearly_the_notary_brings_the_independent_verifier_no_trust(world: World, iss: str) -> None:
    world.put(world.audit(iss, [], [record_map("bundle", dom="example.org", cur=world.time, jwt=bundle("k0", "x0"))]))
    by = (f"#{world.sequence}", "not_the_notary")
    world.issuer = "x"
    world.denials()
    assert alike(world) == [by, (f"#{world.sequence}", "unknown_key")]


def test_all_bundles_of_one_message_count_in_an_export(world: World) -> None:
    both = [
        record_map("bundle", dom=dom, cur=world.time, jwt=bundle("k0", "x0")) for dom in ("example.org", "other.org")
    ]
    other = World(Random(1))  # noqa: S311
    other.creation()
    other.record_bundle("k0")
    for made, records in ((world, both), (other, both[::-1])):
        made.put(made.audit(NOTARY, [], records))
        made.issuer = "x"
        for iss in (INVENTORY, INVENTORY.replace("example.org", "other.org")):
            made.put(made.audit(iss, [], [record_map("denials", iss=INVENTORY, min=0, cnt={"denied": 1})]))
        assert alike(made) == []


def test_each_policy_bundle_is_compared(world: World) -> None:
    for number in range(3):
        world.record_policy(b"%d" % number)
    names = sorted(name for name in world.files() if name.startswith("policies/"))
    for name in names:
        assert alike(world, world.files() | {name: b"?"}) == [(name, "bad_policy")]


def test_a_policy_bundle_as_long_as_may_be() -> None:
    for size, code in ((8_388_608, []), (8_388_609, ["bad_policy"])):
        made = World(Random(1))  # noqa: S311
        made.creation()
        made.record_bundle("k0")
        made.record_policy(bytes(size))
        assert [found for _, found in alike(made)] == code


def test_a_file_of_nearly_the_name_in_place_of_the_right_one(world: World) -> None:
    files = world.files()
    for name in files:
        head, _, last = name.rpartition("/")
        for other in (f"{name}0", name.upper(), f"{head}/{last[:-1]}" if head else last[:-1]):
            moved = {other if one == name else one: data for one, data in files.items()}
            if name == "checkpoint":
                assert alike(world, moved) == [(name, "missing_file")]
            else:
                assert {(name, "missing_file"), (other, "unknown_file")} <= set(alike_at(world, moved))


def alike_at(world: World, files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Return what the independent verifier finds where files are missing, each once."""
    theirs = independent.verify(files, independent.read_root(json.dumps(world.root()).encode())).findings
    assert not [one for one in theirs if one[1] == "bad_entry" and one[0] not in files]
    assert found(world, files)
    return [(place, code) for place, code, _ in theirs]


def test_a_full_tile_has_one_above_it(world: World) -> None:
    while len(world.frames) < 256:
        world.put(b"", 0)
    files = world.files()
    assert "tile/1/000.p/1" in files
    assert alike(world) == []
    for name in ("tile/0/000", "tile/entries/000", "tile/1/000.p/1"):
        assert alike(world, files | {name: files[name][:-1] + b"?"}) == [(name, "bad_tile")]


def test_each_checkpoint_that_somebody_holds_is_asked_of_an_export(world: World) -> None:
    world.denials()
    size = len(world.frames)
    good = [note(one, world.root_at(one), world.keys) for one in (2, 3, size)]
    assert alike(world, None, *good) == []
    for place, one in enumerate((2, 3, size)):
        whole = world.root_at(one)
        bent = note(one, whole[:-1] + bytes([whole[-1] ^ 1]), world.keys)
        assert alike(world, None, *good[:place], bent, *good[place + 1 :]) == [("checkpoint", "inconsistent_log")]
    assert alike(world, None, note(size + 1, bytes(32), world.keys)) == [("checkpoint", "rolled_back")]


def test_a_checkpoint_in_the_log_that_is_nearly_of_it(world: World) -> None:
    whole = world.root_at(2)
    bent = note(2, whole[:-1] + bytes([whole[-1] ^ 1]), world.keys)
    world.put(world.audit(NOTARY, [], [record_map("checkpoint", **{"not": bent})]))
    assert alike(world) == [(f"#{world.sequence}", "inconsistent_log")]


@pytest.mark.parametrize("token", ["Inventory", "inventory2", "inventor"])
def test_a_record_under_nearly_the_name_of_its_sender(world: World, token: str) -> None:
    record = record_map("denials", iss=INVENTORY, min=0, cnt={"denied": 1})
    world.put(world.audit(INVENTORY, [], [record], to=f"audit.{token}"))
    assert alike(world) == [(f"#{world.sequence}", "wrong_subject")]


@pytest.mark.parametrize("origin", [f"{ORIGIN}x", ORIGIN[:-1], ORIGIN.upper()])
def test_a_checkpoint_of_nearly_this_log(world: World, origin: str) -> None:
    size = len(world.frames)
    forged = note(size, world.root_at(size), world.keys, origin)
    assert alike(world, world.files() | {"checkpoint": forged}) == [("checkpoint", "wrong_log")]


def test_a_signature_line_that_is_nearly_of_a_known_key(world: World) -> None:
    size, [key] = len(world.frames), world.keys
    text = note(size, world.root_at(size), []).decode()
    line = key.line(text[:-1])
    signed = note(size, world.root_at(size), [key]).decode()
    assert signed == text + line
    _, name, encoded = line.rstrip("\n").split(" ")
    data = b64decode(encoded)
    assert b64encode(data).decode() == encoded
    for other, bytes_ in (
        (f"{name}x", data),
        (name[:-1], data),
        (name.upper(), data),
        (name, data[:3] + bytes([data[3] ^ 1]) + data[4:]),
    ):
        forged = f"{text}\u2014 {other} {b64encode(bytes_).decode()}\n".encode()
        assert alike(world, world.files() | {"checkpoint": forged}) == [("checkpoint", "untrusted_note")]
        added = f"\u2014 {other} {b64encode(bytes_).decode()}\n"
        for lines in (line + added, added + line):
            both = world.files() | {"checkpoint": (text + lines).encode()}
            assert alike(world, both) == [("checkpoint", "untrusted_note")]


def test_a_checkpoint_of_all_that_was_logged_before(world: World) -> None:
    world.record_checkpoint()
    assert alike(world) == []


def test_each_record_of_a_message_is_judged(world: World) -> None:
    good, bad = (record_map("checkpoint", **{"not": note(2, one, world.keys)}) for one in (world.root_at(2), bytes(32)))
    world.put(world.audit(NOTARY, [], [good, bad]))
    assert alike(world) == [(f"#{world.sequence}", "inconsistent_log")]


def test_a_root_of_items_that_is_nearly_the_digest(world: World) -> None:
    record = record_map("denials", iss=INVENTORY, min=0, cnt={"denied": 1})
    leaf = leaf_hash(record)
    world.put(world.audit(INVENTORY, [], [record], dig=leaf[:-1] + bytes([leaf[-1] ^ 1])))
    assert alike(world) == [(f"#{world.sequence}", "bad_digest")]


def test_a_body_that_nearly_has_the_digest_of_its_header(world: World) -> None:
    task, _ = world.task(user=False, chain=0)
    digest = sha256(task.body).digest()
    task = replace(task, fields={**task.fields, "dig": digest[:-1] + bytes([digest[-1] ^ 1])})
    world.put(world.audit(INVENTORY, evidence(task), [decision(task, sto=world.time, bdy=task.body)]))
    assert alike(world) == [(f"#{world.sequence}", "bad_digest")]
