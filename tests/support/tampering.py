"""Single alterations of exports, over every class that a verifier must notice (issue "Evidence", "Bad input")."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

from support.approved_world import Approval
from support.log_world import (
    NOTARY,
    ORIGIN,
    Frame,
    LogKey,
    World,
    bundle,
    encode_frame,
    entry_of,
    files_of,
    note,
    number_path,
    tree_root,
)
from vectors.issuing import INVENTORY, NOW, PLANNER, SECOND, Json, Party
from vectors.recorded import decision, evidence, record_map

from sealbus.envelopes.encoding.codec import Value, pack, unpack

__all__ = ["CLASSES", "Altered", "alter", "flipped_in_a_message_and_signed_anew"]


@dataclass
class Altered:
    """An export that is not as it was, and the root file that it is verified with."""

    name: str
    files: dict[str, bytes]
    root: dict[str, Json]

    @property
    def root_bytes(self) -> bytes:
        return json.dumps(self.root).encode()


Alteration = Callable[[Random, World], tuple[dict[str, bytes], dict[str, Json]]]
F = TypeVar("F", bound=Alteration)
CLASSES: dict[str, Alteration] = {}


def alter(rng: Random, world: World, name: str | None = None) -> Altered:
    """Return `world`'s export with one thing changed, of a random class unless it is named."""
    chosen = name or rng.choice(list(CLASSES))
    files, root = CLASSES[chosen](rng, world)
    return Altered(chosen, files, root)


def _class(function: F) -> F:
    CLASSES[function.__name__.strip("_")] = function
    return function


def _leaves(frames: list[Frame]) -> list[bytes]:
    return [sha256(b"\x00" + entry_of(frame)).digest() for frame in frames]


def _messages(frames: list[Frame]) -> dict[str, bytes]:
    return {
        f"messages/{number_path(start // 256)}": b"".join(map(encode_frame, frames[start : start + 256]))
        for start in range(0, len(frames), 256)
    }


# ---- bytes and files -------------------------------------------------------------------------------------------------


@_class
def flipped_bit(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    name = rng.choice([one for one in files if files[one]])
    data = bytearray(files[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return files | {name: bytes(data)}, world.root()


@_class
def flipped_in_the_checkpoint(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    data = bytearray(files["checkpoint"])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return files | {"checkpoint": bytes(data)}, world.root()


@_class
def replaced_byte(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    name = rng.choice([one for one in files if files[one]])
    data = bytearray(files[name])
    place = rng.randrange(len(data))
    data[place] = (data[place] + rng.randint(1, 255)) % 256
    return files | {name: bytes(data)}, world.root()


@_class
def cut_file(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    name = rng.choice([one for one in files if files[one]])
    return files | {name: files[name][: rng.randrange(len(files[name]))]}, world.root()


@_class
def longer_file(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    name = rng.choice(list(files))
    return files | {name: files[name] + rng.choice([b"\n", b"\x00", rng.randbytes(rng.randint(1, 60))])}, world.root()


@_class
def inserted_or_removed_bytes(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    name = rng.choice([one for one in files if files[one]])
    data, place = files[name], rng.randrange(len(files[name]))
    changed = data[:place] + rng.randbytes(rng.randint(1, 9)) + data[place:]
    if rng.random() < 0.5:
        changed = data[:place] + data[place + rng.randint(1, 9) :]
    return files | {name: changed}, world.root()


@_class
def missing_file(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    del files[rng.choice(list(files))]
    return files, world.root()


@_class
def cut_export(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """Written as far as some place in some file, in some order."""
    files = world.files()
    order = rng.sample(list(files), len(files))
    kept = {name: files[name] for name in order[: rng.randrange(len(order))]}
    broken = order[len(kept)]
    return kept | ({broken: files[broken][: len(files[broken]) // 2]} if rng.random() < 0.5 else {}), world.root()


@_class
def unknown_file(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    size = len(world.frames)
    names = [
        "README", "root.json", "checkpoint.old", "messages/999", "messages/0", "messages/x000/000", "tile/0/999",
        "tile/entries/000.p/255", f"tile/places/000.p/{size % 256}", "tile/5/000", "tile/0/000.p/1", "tile/00/000",
        "messages/000/x", f"messages/{rng.randrange(1000, 999_999)}", "tile", "entries", " checkpoint", ".checkpoint",
    ]  # fmt: skip
    name = rng.choice([one for one in names if one not in files])
    return files | {name: rng.choice([b"", files["checkpoint"], rng.randbytes(20)])}, world.root()


@_class
def swapped_files(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    while True:
        one, other = rng.sample(list(files), 2)
        if files[one] != files[other]:
            return files | {one: files[other], other: files[one]}, world.root()


# ---- policy bundles --------------------------------------------------------------------------------------------------


@_class
def altered_policies(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """A bundle that is not the one that the log names, or none, or one that it does not name."""
    files = world.files()
    name = rng.choice([one for one in files if one.startswith("policies/")])
    data, other = bytearray(files[name]), rng.randbytes(40)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    own = f"policies/{sha256(other).hexdigest()}.tar.gz"
    match rng.randrange(7):
        case 0:
            files[name] = bytes(data)
        case 1:
            del files[name]
        case 2:
            files[own] = other
        case 3:
            files[own] = files.pop(name)
        case 4:
            files[name] += bytes(rng.choice([1, 9_000_000]))
        case 5:
            stray = [
                "policies/bundle.tar.gz",
                name.upper(),
                f"{name}.sig",
                name.replace("policies/", "policies/x/"),
                own[:-3],
            ]
            files[rng.choice(stray)] = files[name]
        case _:
            files[name] = b""
    return files, world.root()


@_class
def policy_of_another_size(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """The notary itself says two things of one bundle."""
    del rng
    grown = _grown(world)
    name, data = next((one, data) for one, data in world.files().items() if one.startswith("policies/"))
    sha = sha256(data).digest()
    grown.put(grown.audit(NOTARY, [], [record_map("policy", rev="r1", sha=sha, siz=len(data) + 1, loc=name)]))
    return grown.files(), world.root()


@_class
def policy_named_by_another(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """An agent records a bundle, which is there: it is no notary, and names nothing."""
    grown, raw = _grown(world), rng.randbytes(30)
    record = record_map("policy", rev="r1", sha=sha256(raw).digest(), siz=len(raw), loc="")
    grown.put(grown.audit(INVENTORY, [], [record]))
    return grown.files() | {f"policies/{sha256(raw).hexdigest()}.tar.gz": raw}, world.root()


@_class
def body_or_pointers_that_cannot_be(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """A decision with a body that its header does not name, or with what is no list of JSON pointers."""
    grown = _grown(world)
    task, above = grown.task(user=True, chain=1)
    changes: dict[str, Value] = rng.choice(
        [
            {"bdy": task.body + b"x"}, {"bdy": b""}, {"bdy": bytes(65_537)}, {"bdy": "text"}, {"red": []}, {"red": ["a"]},
            {"red": ["/a", "/a"]}, {"red": [f"/{n}" for n in range(33)]}, {"red": "/a"}, {"red": [b"/a"]},
            {"red": ["/a"], "inp": None, "alw": False, "cod": "policy_error"},
        ]
    )  # fmt: skip
    record = decision(task, sto=grown.time, **changes)
    grown.put(grown.audit(INVENTORY, evidence(task, *above), [record]))
    return grown.files(), world.root()


@_class
def approval_that_nobody_gave(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """An agent says that somebody approved, and what they said was something else."""
    grown = _grown(world)
    changes: list[dict[str, Any]] = [
        {"entry": {rng.choice(["user", "idp", "session", "client", "acr", "time"]): "another"}},
        {"entry": {rng.choice(["message", "record"]): rng.randbytes(32).hex()}},
        {"said": {"verdict": rng.choice(["deny", "withdraw"])}},
        {"said": {"decision": rng.randbytes(32).hex()}},
        {"verdict_fields": {"re": rng.randbytes(32)}},
        {"verdict": rng.choice([{"bdy": None}, {"act": "inventory.update"}, {"alw": False, "cod": "denied"}])},
        {"user": {"sub": "boss"}},
        {"denial": rng.choice([{"obl": None}, {"obl": rng.randbytes(9)}, {"cod": "obligation_unknown"}])},
        {"allowed": {"red": [rng.choice(["/context", "/context/approvals", "/context/approvals/0"])]}},
        {"document": b'{"context":{"approvals":[%b]}}' % rng.choice([b"1", b"{}", b"[]", b'"', b"\xff"])},
    ]
    Approval(world=grown, **rng.choice(changes)).put(rng.choice(["D A R", "DAR", "D AR"]))
    return grown.files(), world.root()


# ---- messages, without the log's key ---------------------------------------------------------------------------------


def _rearranged(rng: Random, frames: list[Frame]) -> list[Frame]:
    """Return `frames` with some removed, repeated, swapped, moved, or changed."""
    changed = list(frames)
    while changed == frames:
        at, other = rng.randrange(len(frames)), rng.randrange(len(frames))
        match rng.randrange(8):
            case 0:
                changed.pop(at)
            case 1:
                changed.insert(at, changed[other])
            case 2:
                changed[at], changed[other] = changed[other], changed[at]
            case 3:
                changed.insert(at, changed.pop(other))
            case 4:
                changed[at] = changed[at]._replace(kind=(changed[at].kind + rng.randint(1, 4)) % 5)
            case 5:
                changed[at] = changed[at]._replace(sequence=changed[at].sequence + rng.choice([1, 2, 256]))
            case 6:
                changed[at] = changed[at]._replace(stored=changed[at].stored + rng.choice([-1, 1, SECOND]))
            case _:
                changed[at] = changed[at]._replace(data=changed[other].data)
    return changed


@_class
def rearranged_messages(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    return world.files() | _messages(_rearranged(rng, world.frames)), world.root()


@_class
def rearranged_with_their_tiles(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    frames = [one for one in _rearranged(rng, world.frames) if one.kind != 1 or one.data[:2] == b"\x97\x01"]
    changed = files_of(frames, world.keys, entries=[_entry(one) for one in frames])
    return changed | {"checkpoint": world.files()["checkpoint"]}, world.root()


def _entry(frame: Frame) -> bytes:
    try:
        return entry_of(frame)
    except (KeyError, IndexError):
        return bytes(32)


# ---- notes -----------------------------------------------------------------------------------------------------------


@_class
def signature_lines(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    files = world.files()
    text, _, lines = files["checkpoint"].decode().partition("\n\n")
    text += "\n"
    listed = lines.splitlines(keepends=True)
    stranger, first = LogKey("stranger"), listed[0]
    variants = [
        lines + stranger.line(text),
        stranger.line(text) + lines,
        lines + first,
        stranger.line(text),
        first.replace("= \n", "=\n").replace("\n", " \n"),
        first[:-1] + "=\n",
        first.replace(ORIGIN, "log.example.org/other"),
        lines + LogKey("log 0", "log.example.org/other").line(text),
        "",
        lines.replace("\u2014", "-"),
        _other_spelling(first),
    ]
    return files | {"checkpoint": (text + "\n" + rng.choice(variants)).encode()}, world.root()


def _other_spelling(line: str) -> str:
    """Return the same bytes in another base64: 68 bytes leave four unused bits before the `=`."""
    at = len(line) - 3
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return line[:at] + alphabet[alphabet.index(line[at]) ^ 1] + line[at + 1 :]


@_class
def checkpoint_of_another_log(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    size, root = len(world.frames), tree_root(_leaves(world.frames))
    other = "log.example.org/other"
    keys = rng.choice([world.keys, [LogKey("log 0", other)]])
    return world.files() | {"checkpoint": note(size, root, keys, other)}, world.root()


@_class
def another_text(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """Signed by the right key, and no checkpoint of this log as it is."""
    from base64 import b64encode

    size, root = len(world.frames), b64encode(tree_root(_leaves(world.frames))).decode()
    texts = [
        f"{ORIGIN}\n{size}\n{root}\nextension\n", f"{ORIGIN}\n0{size}\n{root}\n", f"{ORIGIN}\n{size + 1}\n{root}\n",
        f"{ORIGIN}\n{2**53 - 1}\n{root}\n", f"{ORIGIN}\n{2**60}\n{root}\n", f"{ORIGIN}\n{size - 1}\n{root}\n",
        f"{ORIGIN}\n-{size}\n{root}\n", f"{ORIGIN}\n{size}\n{root[:-1]}\n", f"{ORIGIN}\n{size}\n", f"\n{size}\n{root}\n",
        f"{ORIGIN}\n0\n{b64encode(sha256().digest()).decode()}\n", f"{ORIGIN}\n{size}\n{b64encode(bytes(32)).decode()}\n",
    ]  # fmt: skip
    text = rng.choice(texts)
    lines = "".join(key.line(text) for key in world.keys)
    return world.files() | {"checkpoint": f"{text}\n{lines}".encode()}, world.root()


# ---- rewritten logs --------------------------------------------------------------------------------------------------


@_class
def rewritten_with_another_key(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """A log made from the start by somebody with a key and bundles of their own."""
    other = _other_world(rng, issuer="x")
    other.keys = (LogKey("another", rng.choice([ORIGIN, "log.example.org/other"])),)
    return other.files(), world.root()


@_class
def rewritten_with_the_right_key(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """A log made anew by whoever has the log's key, with bundles of their own: the root file pins another."""
    return _other_world(rng, issuer="x").files(), world.root()


@_class
def not_the_held_one(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """Genuine in all but what somebody holds a checkpoint of."""
    held_at = rng.randint(8, len(world.frames))
    held = note(held_at, tree_root(_leaves(world.frames)[:held_at]), world.keys[:1])
    frames = [*world.frames]
    at = rng.randrange(2, held_at)
    while frames[at].kind != 1:
        at = rng.randrange(2, held_at)
    frames[at] = frames[at]._replace(kind=0)
    return files_of(frames, world.keys), world.root(held)


@_class
def rolled_back(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """An older, genuine state of the log than somebody holds."""
    size = len(world.frames)
    held_at = rng.randint(12, size)
    shorter = rng.randint(8, held_at - 1)
    while world.frames[shorter - 1].kind == 2:
        shorter -= 1
    held = note(held_at, tree_root(_leaves(world.frames)[:held_at]), world.keys[:1])
    return files_of(world.frames[:shorter], world.keys), world.root(held)


def _other_world(rng: Random, *, issuer: str) -> World:
    world = World(Random(rng.random()), issuer=issuer)  # noqa: S311
    world.creation()
    world.record_bundle(f"{issuer}0")
    for _ in range(rng.randint(1, 8)):
        rng.choice([world.decided, world.denials, world.garbage])()
    return world


# ---- records that the log's key was made to sign ---------------------------------------------------------------------


def _grown(world: World) -> World:
    """Return a copy of `world` that can go on growing."""
    grown = copy(world)
    grown.frames = list(world.frames)
    grown.rng = Random(0)  # noqa: S311
    return grown


@_class
def record_of_the_notary_by_another(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    grown = _grown(world)
    keys = f"{grown.issuer}{grown.epoch}"
    item = rng.choice(
        [
            record_map("bundle", dom="example.org", cur=grown.time, jwt=bundle(keys, "evil")),
            record_map("policy", rev="r1", sha=bytes(32), siz=1, loc=""),
            record_map("checkpoint", **{"not": note(1, bytes(32), world.keys)}),
        ]
    )
    grown.put(grown.audit(rng.choice([INVENTORY, PLANNER]), [], [item]))
    return grown.files(), world.root()


@_class
def forged_record(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """An audit message that does not verify, and which the log says opened."""
    grown = _grown(world)
    task, above = grown.task(user=rng.random() < 0.5, chain=rng.randint(0, 1))
    good = grown.audit(INVENTORY, evidence(task, *above), [decision(task, sto=grown.time, seq=5)])
    elements = list(unpack(good, items=4096, entries=0, lists=True))  # type: ignore[call-overload]
    stranger = _stranger(INVENTORY, grown)
    match rng.randrange(8):
        case 0:
            elements[3][3] = bytes([1]) * 64
        case 1:
            elements[4][1] = stranger.credential.token
        case 2:
            elements[2] = pack([1, [], [record_map("denials", iss=PLANNER, min=0, cnt={"denied": 1})]])
        case 3:
            elements[5] = ["", [1, 0, [], bytes(64)], [1, b""]]
            elements[5][0] = b""
        case 4:
            elements[6] = [[elements[1], elements[3], elements[4]]]
        case 5:
            elements[3][3] = elements[3][3][:32] + _high_s(elements[3][3][32:])
        case 6:
            grown.time += 30 * 3600 * SECOND
        case _:
            elements[3][:2] = [2, 1]
    grown.put(pack(elements))
    return grown.files(), world.root()


def _high_s(low: bytes) -> bytes:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return (order - int.from_bytes(low, "big")).to_bytes(32, "big")


def _stranger(iss: str, world: World) -> Party:
    from support.log_world import party

    return party(iss, world.epoch, "x")


@_class
def forged_decision(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """An authentic audit message about a message that was never sent, or not like this."""
    grown = _grown(world)
    task, above = grown.task(user=True, chain=1)
    items = evidence(task, *above)
    sto = grown.time
    stranger = _stranger(task.sender.iss, grown)
    from dataclasses import replace

    recorder = INVENTORY
    match rng.randrange(9):
        case 0:
            record = decision(task, sto=sto, prf=[1, 0, [], bytes([1]) * 64])
        case 1:
            items.pop(rng.randrange(len(items)))
            record = decision(task, sto=sto)
        case 2:
            task = replace(task, sender=stranger)
            items, record = evidence(task, *above), decision(task, sto=sto)
        case 3:
            record = decision(task, sto=sto + 3600 * SECOND)
        case 4:
            record = decision(task, sto=NOW - 5 * 3600 * SECOND)
        case 5:
            record = decision(task, sto=sto, hdr=b"\x80")
        case 6:
            record, recorder = decision(task, sto=sto), PLANNER
        case 7:
            task = replace(task, ancestors=())
            record = decision(replace(task, fields=dict(task.fields) | {"par": bytes(32)}), sto=sto)
        case _:
            task = replace(task, fields=dict(task.fields) | {"aud": PLANNER, "to": "task.planner.update"})
            items, record = evidence(task, *above), decision(task, sto=sto)
    grown.put(grown.audit(recorder, items, [record]))
    return grown.files(), world.root()


@_class
def flipped_in_a_message_and_signed_anew(
    rng: Random, world: World, at: int | None = None
) -> tuple[dict[str, bytes], dict[str, Json]]:
    """One bit of a message that opened, everything above it computed anew and signed by the log's own key."""
    frames = list(world.frames)
    while at is None or frames[at].kind != 1:
        at = rng.randrange(len(frames))
    data = bytearray(frames[at].data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    frames[at] = frames[at]._replace(data=bytes(data))
    return files_of(frames, world.keys, entries=[_entry(one) for one in frames]), world.root()


@_class
def garbage_said_to_have_opened(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    grown = _grown(world)
    grown.put(rng.choice([b"", b"\x97\x01", rng.randbytes(300)]), 0)
    grown.frames[-1] = grown.frames[-1]._replace(kind=1)
    rows = [_entry(one) for one in grown.frames]
    return files_of(grown.frames, world.keys, entries=rows), world.root()


@_class
def untrusted_bundle(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """A notary whose credential no bundle of the log vouches for brings one that would."""
    grown = _grown(world)
    grown.issuer = "x"
    grown.record_bundle(f"x{grown.epoch}")
    return grown.files(), world.root()


@_class
def pinned_to_another(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    return world.files(), world.root(bundles=[bytes(32).hex()])


@_class
def wrong_order(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    """The log's key signed entries that cannot stand like this."""
    frames = list(world.frames)
    at = rng.randrange(3, len(frames))
    last = frames[-1]
    match rng.randrange(7):
        case 0:
            frames.append(Frame(0, last.sequence, last.stored, b"again"))
        case 1:
            frames.append(Frame(0, last.sequence + 2, last.stored, b"after a gap that is not logged"))
        case 2:
            frames.insert(at, Frame(3, 0, last.stored, b"AUDIT"))
        case 3:
            frames.append(Frame(2, last.sequence + 1, last.stored, (1).to_bytes(8, "big")))
        case 4:
            frames.append(Frame(2, last.sequence + 1, last.stored, (0).to_bytes(8, "big")))
            frames.append(Frame(0, last.sequence + 1, last.stored, b"after a gap of nothing"))
        case 5:
            frames.pop(0)
        case _:
            frames.append(Frame(2, last.sequence + 1, last.stored - 1, (3).to_bytes(8, "big")))
            frames.append(Frame(0, last.sequence + 4, last.stored, b"later than its gap"))
    return files_of(frames, world.keys), world.root()


@_class
def checkpoint_in_the_log_of_another(rng: Random, world: World) -> tuple[dict[str, bytes], dict[str, Json]]:
    grown = _grown(world)
    size = len(grown.frames)
    published = rng.choice(
        [
            note(size, bytes(32), world.keys),
            note(size + 1, tree_root(_leaves(grown.frames)), world.keys),
            note(size - 1, tree_root(_leaves(grown.frames)), world.keys),
            note(size, tree_root(_leaves(grown.frames)), [LogKey("another")]),
            b"no note",
        ]
    )
    grown.put(grown.audit(NOTARY, [], [record_map("checkpoint", **{"not": published})]))
    return grown.files(), world.root()
