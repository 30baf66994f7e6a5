"""The root file: the only source of a verifier's trust, which comes from outside the export.

It is strict JSON, so that all readers see the same meaning (SPEC.md section 14, "The root file").
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_strictly
from sealbus.envelopes.log.note import KnownKey, NoteVerifier
from sealbus.envelopes.log.witness_policy import WitnessPolicy, check_logs, open_cosigned
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_NAMES: Final = frozenset(
    {"v", "origin", "keys", "bundles", "checkpoints", "trust_domain", "agents", "minters", "notaries"}
)
_POLICY: Final = "policy"
_WITNESSED: Final = 2
_VERSIONS: Final = {1: _NAMES, _WITNESSED: _NAMES | {_POLICY}}
"""The members of a root file, by its `v`."""
_DIGEST_HEX: Final = 64
_MOST_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The parts of a log that a verifier trusts. Raises `ConfigurationError` if there are none, or for a bad checkpoint.

    `keys` are the log's keys, several while one replaces another. `bundles` are hashes of JWT bundles of the own trust domain
    that are pinned, so that no bundle need vouch for them: that of the log's first `bundle` record, and each with which an
    operator started over. `checkpoints` are notes of this log that others kept. `policy` says which witnesses have to have
    cosigned a checkpoint, and its logs are `keys`; without one, no witness is asked.
    """

    origin: str
    keys: tuple[NoteVerifier, ...]
    bundles: frozenset[bytes]
    names: Names
    minters: frozenset[SpiffeId]
    notaries: frozenset[SpiffeId]
    checkpoints: tuple[bytes, ...] = ()
    policy: WitnessPolicy | None = None
    held: tuple[SignedCheckpoint, ...] = field(init=False, repr=False)
    """`checkpoints`, verified."""
    profile: ArchiveProfile = field(init=False, repr=False)
    """The profile for reading this deployment's record messages."""

    def __post_init__(self) -> None:
        for name, trusted in (("keys", self.keys), ("bundles", self.bundles), ("notaries", self.notaries)):
            if not trusted:
                raise ConfigurationError(f"root file: {name} is empty")
        if self.policy is not None:
            try:
                check_logs(self.policy, self.origin, self.keys)
            except LogError as error:
                raise ConfigurationError(f"root file: {error.detail}") from error
        try:
            held = tuple(map(self.open_note, self.checkpoints))
        except LogError as error:
            raise ConfigurationError(f"root file: a checkpoint in it: {error}") from error
        object.__setattr__(self, "held", held)
        object.__setattr__(self, "profile", ArchiveProfile(names=self.names, minters=self.minters))

    @property
    def note_bytes(self) -> int:
        """The most bytes of a checkpoint's note: a few kB for each witness that may have cosigned it."""
        return DEFAULT_LIMITS.published_note_bytes if self.policy is None else DEFAULT_LIMITS.note_bytes

    @property
    def known_keys(self) -> Sequence[KnownKey]:
        """The keys whose signature lines may stand in a checkpoint: the log's, and those of the policy's witnesses."""
        return self.keys if self.policy is None else (*self.keys, *self.policy.names)

    def open_note(self, note: bytes) -> SignedCheckpoint:
        """Verify a checkpoint of the log, whose every signature line counts. The quorum is not asked.

        Raises `LogError` as `open_strictly` does or, with a policy, `open_cosigned`; `bad_note` for over `note_bytes`.
        """
        if len(note) > self.note_bytes:
            raise LogError(Code.BAD_NOTE, "too large")
        if self.policy is None:
            return open_strictly(note, self.origin, self.keys)
        return open_cosigned(note, self.origin, self.keys, self.policy)

    def open_checkpoint(self, note: bytes) -> SignedCheckpoint:
        """Verify a checkpoint as `open_note` does, and that the policy's quorum has cosigned it, else `no_quorum`."""
        signed = self.open_note(note)
        if not self.has_quorum(signed):
            raise LogError(
                Code.NO_QUORUM, f"cosigned by {len(signed.cosigners)} of the policy's witnesses, not by its quorum"
            )
        return signed

    def has_quorum(self, signed: SignedCheckpoint) -> bool:
        """Return whether enough witnesses cosigned a checkpoint of `open_note`; without a policy, none is needed."""
        return self.policy is None or self.policy.has_quorum(signed.cosigners)

    @classmethod
    def parse(cls, data: bytes) -> Root:
        """Parse a root file; raise `ConfigurationError`, which names the key, for an invalid one."""
        if len(data) > _MOST_BYTES:
            raise ConfigurationError(f"root file: over {_MOST_BYTES} bytes")
        try:
            document = parse_object(data, depth=DEFAULT_LIMITS.jwt_nesting)
            return cls._of(document)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"root file: {error}") from error
        except (EnvelopeError, LogError) as error:
            raise ConfigurationError(f"root file: {error.detail}") from error

    @classmethod
    def _of(cls, document: dict[str, Json]) -> Root:
        version = document.get("v")
        if type(version) is not int or version not in _VERSIONS:
            raise ValueError("v is neither 1 nor 2")
        if document.keys() != (names := _VERSIONS[version]):
            raise ValueError(f"exactly these members: {', '.join(sorted(names))}")
        agents = document["agents"]
        if type(agents) is not dict or agents.keys() != {"template", "table"} or type(agents["table"]) is not dict:
            raise ValueError("agents has template and table")
        template = _text("agents.template", agents["template"])
        table = {name: SpiffeId.parse(_text("agents.table", spiffe_id)) for name, spiffe_id in agents["table"].items()}
        return cls(
            origin=_text("origin", document["origin"]),
            keys=tuple(NoteVerifier.parse(key) for key in _texts(document, "keys")),
            bundles=frozenset(_digest(digest) for digest in _texts(document, "bundles")),
            names=Names(TrustDomain(_text("trust_domain", document["trust_domain"])), template, table),
            minters=frozenset(SpiffeId.parse(minter) for minter in _texts(document, "minters")),
            notaries=frozenset(SpiffeId.parse(notary) for notary in _texts(document, "notaries")),
            checkpoints=tuple(note.encode() for note in _texts(document, "checkpoints")),
            policy=WitnessPolicy.parse(_text(_POLICY, document[_POLICY]).encode()) if version == _WITNESSED else None,
        )

    def encode(self) -> bytes:
        """Return the file; `parse` of it returns an equal root."""
        document = {
            "v": 1 if self.policy is None else _WITNESSED,
            "origin": self.origin,
            "keys": [key.text for key in self.keys],
            "bundles": sorted(digest.hex() for digest in self.bundles),
            "checkpoints": [note.decode() for note in self.checkpoints],
            "trust_domain": self.names.trust_domain.name,
            "agents": {
                "template": self.names.template,
                "table": {name: str(spiffe_id) for name, spiffe_id in sorted(self.names.table.items())},
            },
            "minters": sorted(map(str, self.minters)),
            "notaries": sorted(map(str, self.notaries)),
            **({_POLICY: self.policy.text} if self.policy is not None else {}),
        }
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _text(name: str, value: Json) -> str:
    if type(value) is not str:
        raise ValueError(f"{name} is not text")
    return value


def _texts(document: dict[str, Json], name: str) -> tuple[str, ...]:
    listed = document[name]
    if type(listed) is not list:
        raise ValueError(f"{name} is not an array")
    texts = tuple(_text(name, item) for item in listed)
    if len(set(texts)) != len(texts):
        raise ValueError(f"{name} repeats an item")
    return texts


def _digest(text: str) -> bytes:
    # `fromhex` also accepts white space and upper case, but only one spelling is allowed.
    digest = bytes.fromhex(text)
    if digest.hex() != text or len(text) != _DIGEST_HEX:
        raise ValueError("bundles are SHA-256 in lower-case hex")
    return digest
