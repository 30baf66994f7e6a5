"""Makes the root file of a deployment once, when its log begins: the keeper of the file trusts the log on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from sealbus.agents.evidence.files import LogPlace
from sealbus.agents.files import file_errors
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.note import NoteVerifier, keep_signatures
from sealbus.envelopes.log.witness_policy import PolicyLog, WitnessPolicy
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_TRUST = "trust"
"""The notary's folder of bundle records, whose names sort by time."""


def make_root(
    settings: Settings,
    *,
    keys: Sequence[str],
    origin: str | None = None,
    notaries: Sequence[str] = (),
    checkpoints: Sequence[Path] = (),
    folder: Path | None = None,
    policy: WitnessPolicy | None = None,
) -> Root:
    """Return the root of the deployment of `settings`, whose log's verifier keys are `keys`.

    A `policy` demands its quorum. If it has no logs, they are `keys`; without `keys`, these are its logs. The origin is that
    of the settings or, without one, the name of the first key; the notary is by default the workload `notary`. Raises
    `ConfigurationError` for an invalid key, ID or checkpoint, and for a log that holds no trust bundle yet.
    """
    place = LogPlace.of(settings, folder)
    try:
        verifiers = tuple(NoteVerifier.parse(key) for key in keys)
        if policy is not None:
            verifiers = verifiers or tuple(log.verifier for log in policy.logs)
            policy = replace(policy, logs=policy.logs or tuple(map(PolicyLog, verifiers)))
        named = frozenset(map(SpiffeId.parse, notaries)) or frozenset({settings.names.id_of("notary")})
    except (LogError, EnvelopeError) as error:
        raise ConfigurationError(f"--key or --notary: {error.detail}") from error
    if not verifiers:
        raise ConfigurationError("give the log's --key, or a --policy with a log")
    return Root(
        origin=origin or settings.control.notary.origin or verifiers[0].name,
        keys=verifiers,
        bundles=frozenset({_first_bundle(place.folder, settings)}),
        names=settings.names,
        minters=settings.minters,
        notaries=named,
        checkpoints=tuple(_without_cosignatures(_read(path), verifiers) for path in checkpoints),
        policy=policy,
    )


def _without_cosignatures(note: bytes, keys: Sequence[NoteVerifier]) -> bytes:
    """Return a held note with the log's own signatures alone: a root need not know the witnesses of its time."""
    try:
        return keep_signatures(note, keys)
    except LogError:
        # The root says what is wrong with it.
        return note


def read_policy(path: Path) -> WitnessPolicy:
    """Return the witness policy in the file `path`; raise `ConfigurationError` if it cannot be read or is none."""
    try:
        return WitnessPolicy.parse(_read(path))
    except LogError as error:
        raise ConfigurationError(f"{path}: {error.detail}") from error


def _first_bundle(folder: Path, settings: Settings) -> bytes:
    """Return the hash of the first JWT bundle in the log for the deployment's own trust domain."""
    for path in sorted((folder / _TRUST).glob("*")):
        try:
            record = parse_record(_read(path))
        except EnvelopeError as error:
            raise ConfigurationError(f"{path} is not a bundle record") from error
        if isinstance(record, BundleRecord) and record.trust_domain == settings.trust_domain:
            return sha256(record.jwt).digest()
    raise ConfigurationError(f"{folder} holds no trust bundle of {settings.trust_domain} yet: is the notary running?")


def _read(path: Path) -> bytes:
    with file_errors(f"{path} cannot be read"):
        return path.read_bytes()
