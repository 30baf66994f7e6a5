"""Audit logs made in memory, without NATS: keys that rotate, agents, chains, users, denials, gaps and garbage.

Nothing here is taken from the code that reads logs: entries, tiles, notes and frames are written out by hand, so that a
reader and this writer can only agree on what SPEC.md says. The same seed gives the same log.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from random import Random
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vectors.issuing import EDGE, HOUR, INVENTORY, NOW, PLANNER, PRICING, SECOND, Json, Party, SteadyKey, private_key
from vectors.issuing import _jwk as jwk
from vectors.issuing import token as jwt_svid
from vectors.recorded import decision, evidence, record_map
from vectors.world import Message, batch, context, message_id

from sealbus.envelopes.encoding.codec import Value, pack
from sealbus.envelopes.trust.proof import Credential

__all__ = ["NOTARY", "ORIGIN", "Frame", "LogKey", "World", "entry_of", "files_of", "make_world", "root_document"]

NOTARY = "spiffe://example.org/notary"
ORIGIN = "log.example.org/audit"
EPOCH = 3 * HOUR
POLICIES: dict[bytes, bytes] = {}
"""The policy bundle that a message names, by the message's bytes: every export of a log that has it has the bundle."""


class Frame(NamedTuple):
    """One entry of the log and what its digest is of (SPEC.md section 14)."""

    kind: int
    sequence: int
    stored: int
    data: bytes


@dataclass(frozen=True)
class LogKey:
    """An Ed25519 key of the log, from a public label; worth nothing."""

    label: str
    name: str = ORIGIN

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(sha256(self.label.encode()).digest())

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n\x01" + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        encoded = b64encode(b"\x01" + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def line(self, text: str) -> str:
        """Return the signature line over the text of a note."""
        signature = self.private.sign(text.encode())
        return f"\u2014 {self.name} {b64encode(self.key_id + signature).decode()}\n"


def note(size: int, root: bytes, keys: Iterable[LogKey], origin: str = ORIGIN) -> bytes:
    """Return a checkpoint signed by `keys`."""
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n"
    return (text + "\n" + "".join(key.line(text) for key in keys)).encode()


def tree_root(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 9162 section 2.1.1 defines it, by recursion."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()


def header_of(payload: bytes) -> bytes:
    """Return element 1 of an envelope that was made here."""
    start = {0xC4: 4, 0xC5: 5}[payload[2]]
    length = int.from_bytes(payload[3:start], "big")
    return payload[start : start + length]


def entry_of(frame: Frame) -> bytes:
    """Return the 32 bytes that the log holds."""
    if frame.kind == 6:
        return frame.data
    digest = sha256(header_of(frame.data) if frame.kind == 1 else frame.data).digest()
    place = bytes([frame.kind]) + frame.sequence.to_bytes(8, "big") + frame.stored.to_bytes(8, "big")
    return sha256(b"sealbus.entry.v1" + place + digest).digest()


def number_path(number: int) -> str:
    """Return the path of tile number `number`, below a million."""
    return f"{number:03d}" if number < 1000 else f"x{number // 1000:03d}/{number % 1000:03d}"


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of one frame in a file of messages."""
    place = bytes([frame.kind]) + frame.sequence.to_bytes(8, "big") + frame.stored.to_bytes(8, "big")
    return place + len(frame.data).to_bytes(4, "big") + frame.data


def files_of(
    frames: list[Frame], keys: Iterable[LogKey], *, origin: str = ORIGIN, entries: list[bytes] | None = None
) -> dict[str, bytes]:
    """Return the files of an export of this log, signed by `keys`; `entries` are those of `frames` unless given."""
    rows = [entry_of(frame) for frame in frames] if entries is None else entries
    files: dict[str, bytes] = {}
    level, hashes = 0, [sha256(b"\x00" + row).digest() for row in rows]
    files["checkpoint"] = note(len(rows), tree_root(hashes), keys, origin)
    for start in range(0, len(frames), 256):
        files[f"messages/{number_path(start // 256)}"] = b"".join(map(encode_frame, frames[start : start + 256]))
    while hashes:
        above = []
        for start in range(0, len(hashes), 256):
            tile = hashes[start : start + 256]
            name = number_path(start // 256) + (f".p/{len(tile)}" if len(tile) < 256 else "")
            files[f"tile/{level}/{name}"] = b"".join(tile)
            if level == 0:
                files[f"tile/entries/{name}"] = b"".join(b"\x00\x20" + row for row in rows[start : start + 256])
            if len(tile) == 256:
                above.append(tree_root(tile))
        level, hashes = level + 1, above
    return files | policies_of(frames)


def policies_of(frames: Iterable[Frame]) -> dict[str, bytes]:
    """Return the files of the policy bundles that these frames name."""
    found = [POLICIES[one.data] for one in frames if one.kind == 1 and one.data in POLICIES]
    return {f"policies/{sha256(one).hexdigest()}.tar.gz": one for one in found}


@cache
def bundle(*kids: str) -> bytes:
    """Return the JWK set of the issuer's keys `kids`."""
    return json.dumps({"keys": [jwk(kid) for kid in kids]}).encode()


@cache
def party(iss: str, epoch: int, issuer: str = "k") -> Party:
    """Return `iss` with the key and credential that it has in `epoch`, vouched for by that epoch's issuer key."""
    key = SteadyKey(private_key(f"{iss} {epoch}"))
    start = (NOW + epoch * EPOCH) // SECOND
    claims: dict[str, Json] = {"iat": start - 120, "exp": start + 2 * EPOCH // SECOND}
    token = jwt_svid(iss, key.public, kid=f"{issuer}{epoch}", claims=claims)
    return Party(iss=iss, key=key, credential=Credential(1, token))


@dataclass
class World:
    """A log while it grows: its frames, its clock, and what the deployment's root file says."""

    rng: Random
    frames: list[Frame] = field(default_factory=list)
    keys: tuple[LogKey, ...] = (LogKey("log 0"),)
    time: int = NOW
    epoch: int = 0
    sequence: int = 0
    minted: int = 0
    issuer: str = "k"
    decisions: list[bytes] = field(default_factory=list)
    outcomes: list[bytes] = field(default_factory=list)
    bodies: dict[bytes, tuple[list[bytes], list[bytes]]] = field(default_factory=dict)
    """Evidence and records of each audit message, by its bytes."""
    messages: list[Message] = field(default_factory=list)
    pinned: list[bytes] = field(default_factory=list)

    def ident(self) -> bytes:
        self.minted += 1
        return message_id(1000 + self.minted)

    def who(self, iss: str) -> Party:
        return party(iss, self.epoch, self.issuer)

    def tick(self) -> int:
        self.time += self.rng.randint(1, 2_000_000)
        return self.time

    def put(self, payload: bytes, kind: int = 1) -> None:
        self.sequence += 1
        self.frames.append(Frame(kind, self.sequence, self.tick(), payload))

    def audit(self, iss: str, items: list[bytes], records: list[bytes], **changes: object) -> bytes:
        """Return the audit message of `iss` about these, sealed just now; `changes` are header entries that differ."""
        leaves = [sha256(b"\x00" + item).digest() for item in (*items, *records)]
        path = iss.removeprefix("spiffe://example.org/agent/")
        name = path if path and "/" not in path else "id-" + sha256(iss.encode()).hexdigest()[:32]
        own: dict[str, object] = {
            "t": "record", "aud": None, "end": None, "iat": self.time, "exp": self.time + HOUR, "id": self.ident(),
            "to": f"audit.{name}", "typ": "application/vnd.sealbus.audit.v1", "dig": tree_root(leaves),
        }  # fmt: skip
        payload = Message(sender=self.who(iss), body=pack([1, items, records]), fields=own | changes).payload()
        self.bodies[payload] = items, records
        return payload

    def creation(self, stream: str = "AUDIT", previous: bytes = b"") -> None:
        self.frames.append(Frame(3, 0, self.time, stream.encode()))
        if previous:
            self.frames.append(Frame(4, 0, self.time, previous))

    def restoration(
        self,
        last: int | None = None,
        *,
        before: int | None = None,
        keys: Iterable[LogKey] | None = None,
        **other: object,
    ) -> Frame:
        """Return the entry of a restoration just now, by default of this log's stream and with nothing lost."""
        said = [json.loads(frame.data.split(b"\n")[3]) for frame in self.frames if frame.kind == 5]
        created = before if before is not None else [*[self.frames[0].stored], *said][-1]
        last = self.sequence if last is None else last
        rows = {"first": "sealbus.restored.v1", "origin": ORIGIN, "before": created, "created": self.time + 1,
                "last": last, "by": "spiffe://example.org/agent/operator", "time": self.time + 2} | other  # fmt: skip
        text = "".join(f"{row}\n" for row in rows.values())
        return Frame(
            5, last, self.time + 2, (text + "\n" + "".join(key.line(text) for key in keys or self.keys)).encode()
        )

    def restore(self) -> None:
        """Let the stream be restored, and lose nothing."""
        self.frames.append(self.restoration())

    def streams_restored(self, *lines: str, manifest: str = "ab" * 32, **other: object) -> Frame:
        """Return the entry of a restoration that names other streams, a line each."""
        rows = {f"stream {number}": line for number, line in enumerate(lines)}
        return self.restoration(**{"first": "sealbus.restored.v2", "manifest": manifest, **rows, **other})  # type: ignore[arg-type]

    def record_bundle(self, *kids: str, iss: str = NOTARY) -> None:
        jwks = bundle(*kids)
        if not self.pinned:
            self.pinned.append(sha256(jwks).digest())
        x5c: list[Value] = [b"der"]
        self.put(self.audit(iss, [], [record_map("bundle", dom="example.org", cur=self.time, jwt=jwks, x5c=x5c)]))

    def rotate(self) -> None:
        """Replace every key: the issuer's, and with it every SVID; the bundles overlap as an issuer's do."""
        old, new = f"{self.issuer}{self.epoch}", f"{self.issuer}{self.epoch + 1}"
        self.record_bundle(old, new)
        self.time = max(self.time, NOW + (self.epoch + 1) * EPOCH)
        self.epoch += 1
        self.record_bundle(new)

    def record_checkpoint(self) -> None:
        size = len(self.frames)
        record = record_map("checkpoint", **{"not": note(size, self.root_at(size), self.keys)})
        self.put(self.audit(NOTARY, [], [record]))

    def root_at(self, size: int) -> bytes:
        """Return the root of the log when it had `size` entries."""
        return tree_root([sha256(b"\x00" + entry_of(frame)).digest() for frame in self.frames[:size]])

    def record_policy(self, raw: bytes | None = None, revision: str = "") -> None:
        """Record a policy bundle; whatever bytes it has, unless they are given."""
        raw = f"policy bundle {self.minted}".encode() * 9 if raw is None else raw
        sha = sha256(raw).digest()
        said: dict[str, Value] = {"rev": revision or f"r{self.minted}", "sha": sha, "siz": len(raw)}
        payload = self.audit(NOTARY, [], [record_map("policy", loc=f"policies/{sha.hex()}.tar.gz", **said)])
        POLICIES[payload] = raw
        self.put(payload)

    def task(self, *, user: bool, chain: int) -> tuple[Message, list[Message]]:
        """Return a task for the inventory as its gate got it, and its ancestors, the parent first."""
        statement = (
            context(
                self.who(EDGE), iat=self.time, exp=self.time + HOUR // 4, end=self.time + 2 * HOUR,
                sub=f"u-{self.rng.randint(1, 3)}",
            )
            if user
            else None
        )  # fmt: skip
        sender = EDGE if user else PLANNER
        above: list[Message] = []
        for number in range(chain + 1):
            to = INVENTORY if number == chain else PLANNER if number % 2 == 0 else PRICING
            fields: dict[str, object] = {
                "aud": to, "to": f"task.{to.rpartition('/')[2]}.update", "id": self.ident(), "iat": self.time,
                "exp": self.time + HOUR, "end": self.time + HOUR,
            }  # fmt: skip
            ancestors = tuple(one.ancestor() for one in above)
            message = Message(sender=self.who(sender), fields=fields, context=statement, ancestors=ancestors)
            above.insert(0, message)
            sender = to
        return above[0], above[1:]

    def decided(self, count: int = 1, *, user: bool = False, chain: int = 0, sealed_together: bool = False) -> None:
        """Let the inventory record decisions on `count` tasks, and outcomes of what it allowed before."""
        items: dict[bytes, None] = {}
        records: list[bytes] = []
        made = [self.task(user=user, chain=chain) for _ in range(count)]
        tasks = [message for message, _ in made]
        if sealed_together and chain == 0 and not user:
            tasks = batch(*tasks)
        for message, (_, above) in zip(tasks, made, strict=True):
            items |= dict.fromkeys(evidence(message, *above))
            records.append(self._decision(message))
            self.messages.append(message)
            self.decisions.append(records[-1])
        outcomes = [
            record_map("outcome", dec=sha256(b"\x00" + one).digest(), suc=True, mic=17, dlv=1)
            for one in self.rng.sample(self.decisions, min(2, len(self.decisions)))
        ]
        self.outcomes += outcomes
        records += outcomes
        self.put(self.audit(INVENTORY, list(items), records))

    def _decision(self, message: Message) -> bytes:
        place: dict[str, Value] = {"seq": self.rng.randint(1, 10**6), "sto": self.time + SECOND // 2}
        if self.rng.random() < 0.1:
            place = {"str": None, "seq": None, "sto": None, "opn": self.time}
        place["inp"] = self.rng.choice([b'{"v":1}', b'{"a":' * 300, b"\xff\x00", b'{"v":1,"v":2}'])
        if self.minted % 7 == 1:
            place |= {"inp": b'{"context":{"user":{"id":null}},"v":1}', "red": ["/context/user/id"]}
        if self.minted % 5 == 1:
            place["bdy"] = message.body
        if self.rng.random() < 0.3:
            place |= {"alw": False, "cod": "denied", "rsn": ["not the owner"], "obl": None}
        return decision(message, **place)

    def first_decided(self) -> int:
        """Return the number of the first entry whose message holds a decision."""
        return next(at for at, frame in enumerate(self.frames) if self.decisions[0] in frame.data)

    def repeat(self, index: int) -> None:
        """Let the inventory store the records of entry `index`, its own, once more, in another message."""
        self.put(self.audit(INVENTORY, *self.bodies[self.frames[index].data]))

    def denials(self) -> None:
        minute = self.time // (60 * SECOND) * 60 * SECOND
        counts: dict[str, Value] = {"denied": self.rng.randint(1, 9)}
        self.put(self.audit(INVENTORY, [], [record_map("denials", iss=PLANNER, min=minute, cnt=counts)]))

    def garbage(self) -> None:
        self.put(self.rng.randbytes(self.rng.choice([0, 1, 40, 700])), 0)

    def gap(self) -> None:
        count = self.rng.randint(1, 5)
        first = self.sequence + 1
        self.sequence += count
        at = len(self.frames)
        self.denials()
        self.frames.insert(at, Frame(2, first, self.frames[-1].stored, count.to_bytes(8, "big")))

    def large(self, size: int = 900_000) -> None:
        """One audit message as large as they get."""
        message, _ = self.task(user=False, chain=0)
        each = 60_000
        records = [
            decision(
                message,
                seq=number + 1,
                sto=self.time,
                inp=b'{"x":"%s"}' % self.rng.randbytes(each // 2 - 4).hex().encode(),
            )
            for number in range(size // (each + 600))
        ]
        self.put(self.audit(INVENTORY, evidence(message), records))

    def files(self) -> dict[str, bytes]:
        return files_of(self.frames, self.keys)

    def root(self, *held: bytes, **changes: Json) -> dict[str, Json]:
        return root_document(self.keys, self.pinned, *held) | changes


def root_document(keys: Iterable[LogKey], pinned: Iterable[bytes], *held: bytes) -> dict[str, Json]:
    """Return the root file of this deployment, to be written as JSON."""
    return {
        "v": 1,
        "origin": ORIGIN,
        "keys": [key.vkey for key in keys],
        "bundles": [one.hex() for one in pinned],
        "checkpoints": [one.decode() for one in held],
        "trust_domain": "example.org",
        "agents": {"template": "/agent/{name}", "table": {}},
        "minters": [EDGE],
        "notaries": [NOTARY],
    }


def make_world(seed: int, entries: int = 30, *, large: bool = False) -> World:
    """Return a log of at least `entries` entries with something of everything, keys rotated twice."""
    world = World(Random(seed))  # noqa: S311  a log that can be made again
    previous = note(7, bytes(32), [LogKey("before")], "log.example.org/before")
    world.creation(previous=previous if seed % 2 else b"")
    if seed % 3 == 0:
        world.decided()
    world.record_bundle("k0")
    rng = world.rng
    steps = [
        lambda: world.decided(rng.randint(1, 4), sealed_together=True),
        lambda: world.decided(user=True, chain=rng.randint(0, 3)),
        lambda: world.decided(2, chain=rng.randint(0, 2)),
        world.denials,
        world.garbage,
        world.gap,
        world.record_policy,
        world.record_checkpoint,
    ]
    turning = {entries // 3, 2 * entries // 3}
    turned = 0
    for step in steps:
        step()
    while len(world.frames) < entries or turned < 2:
        if turned < 2 and len(world.frames) >= sorted(turning)[turned]:
            world.rotate()
            turned += 1
        rng.choice(steps)()
    if large:
        world.large()
    if rng.random() < 0.3:
        world.keys = (*world.keys, LogKey("log 1"))
    return world


def shifted(frames: list[Frame], start: int, by: int) -> list[Frame]:
    """Return `frames` with the sequences of those from `start` on moved."""
    return frames[:start] + [replace_sequence(one, one.sequence + by) for one in frames[start:]]


def replace_sequence(frame: Frame, sequence: int) -> Frame:
    return frame._replace(sequence=sequence)


def resigned(message: Message, sender: Party) -> Message:
    """Return `message` as `sender` would have sealed it."""
    return replace(message, sender=sender)
