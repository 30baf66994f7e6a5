"""Readers of ours that ask the independent verifier as well: what the one refuses, the other does, and what it takes.

The independent one shares no code with ours. A test that uses these in place of ours holds both to what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from independent import verify_export as independent

from sealbus.envelopes.encoding import codec, strict_json
from sealbus.envelopes.errors import BundleRefused, ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.message import header, wire
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.message.user_context import parse_payload as our_payload
from sealbus.envelopes.records import body as audit_body
from sealbus.envelopes.records import record as records
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.body import Evidence
from sealbus.envelopes.records.body import parse_evidence as our_evidence
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

__all__ = [
    "agreed",
    "decode",
    "opened",
    "parse_audit_body",
    "parse_bundle",
    "parse_envelope",
    "parse_evidence",
    "parse_header",
    "parse_object",
    "parse_payload",
    "parse_record",
    "proven",
]

T = TypeVar("T")


def agreed(ours: Callable[[], T], theirs: Callable[[], object]) -> T:
    """Return or raise as `ours` does, if `theirs` says the same of what both are asked."""
    found, refusal = _asked(ours, EnvelopeError, BundleRefused, ConfigurationError, LogError, ValueError)
    _, theirs_refusal = _asked(theirs, independent.Bad)
    assert (refusal is None) == (theirs_refusal is None), f"ours: {refusal}, the independent one: {theirs_refusal}"
    if refusal is not None:
        raise refusal
    return cast("T", found)


def _asked(ask: Callable[[], T], *refusals: type[Exception]) -> tuple[T | None, Exception | None]:
    try:
        return ask(), None
    except refusals as error:
        return None, error


def decode(
    data: bytes,
    *,
    items: int = 32,
    entries: int = 32,
    text_bytes: int = 256,
    nil: bool = False,
    negative: bool = False,
    step: int = 1,
) -> codec.Value:
    """Decode a value of the canonical encoding."""
    return agreed(
        lambda: codec.decode(
            data, items=items, entries=entries, text_bytes=text_bytes, nil=nil, negative=negative, step=step
        ),
        lambda: independent.decode(data, items, entries, text_bytes, nil=nil, negative=negative),
    )


def parse_header(raw: bytes) -> header.Header:
    """Parse a header."""
    return agreed(lambda: header.parse_header(raw), lambda: independent.read_header(raw))


def parse_envelope(data: bytes) -> wire.Envelope:
    """Parse an envelope that has neither context nor ancestors, which no message with records has."""
    return agreed(lambda: wire.parse_envelope(data), lambda: independent.read_envelope(data))


def parse_audit_body(body: bytes) -> audit_body.AuditBody:
    """Parse an audit body; both find the same root."""
    parsed = agreed(lambda: audit_body.parse_audit_body(body), lambda: independent.read_audit_body(body))
    assert independent.read_audit_body(body)[0] == parsed.root
    return parsed


def parse_record(item: bytes) -> records.Record:
    """Parse a record."""
    return agreed(lambda: records.parse_record(item), lambda: independent.read_record(item))


def parse_evidence(items: Sequence[bytes]) -> Evidence:
    """Parse the evidence of an audit message."""
    return agreed(lambda: our_evidence(items), lambda: _evidence(items))


def _evidence(items: Sequence[bytes]) -> None:
    audit = independent.Audit({}, {}, {}, {}, {})
    for item in items:
        independent.read_evidence(item, audit)


def parse_payload(payload: bytes, *, step: int = 10) -> UserContext:
    """Parse a user context."""
    return agreed(lambda: our_payload(payload, step=step), lambda: independent.read_context(payload))


def parse_object(data: bytes, *, depth: int) -> dict[str, Any]:
    """Parse a JSON object."""
    return agreed(lambda: strict_json.parse_object(data, depth=depth), lambda: independent.strict_json(data, depth))


def parse_bundle(trust_domain: TrustDomain, jwks: bytes) -> JwtBundle:
    """Parse a bundle; both use the same of its keys."""
    bundle = agreed(lambda: JwtBundle.parse(trust_domain, jwks), lambda: independent.read_bundle(jwks))
    assert list(independent.read_bundle(jwks)) == list(bundle.keys)
    return bundle


def opened(
    payload: bytes, subject: str, profile: ArchiveProfile, time: int, bundles: TrustBundles
) -> independent.Audit:
    """Open a record message with the independent verifier alone."""
    audit = independent.open_record(payload, time, _bundles(bundles), _root(profile))
    independent.need(audit.header["to"] == subject, "wrong_subject")
    return audit


def proven(
    audit: independent.Audit, profile: ArchiveProfile, time: int, bundles: TrustBundles, body: bytes | None
) -> None:
    """Prove again with the independent verifier alone what the one record of `audit` decided, and compare `body`."""
    [record] = audit.records.values()
    independent.check_decided(record, audit, time, _bundles(bundles), _root(profile))
    header = independent.read_header(record["hdr"])
    independent.need(body is None or independent.H(body) == header["dig"], "bad_digest")


def _bundles(bundles: TrustBundles) -> independent.Bundles:
    found = independent.Bundles()
    for domain, bundle in bundles.items():
        found.add(domain.name, 0, independent.read_bundle(bundle.jwks))
    return found


def _root(profile: ArchiveProfile) -> independent.Root:
    names = profile.names
    return independent.Root(
        origin="log", keys=(), bundles=frozenset(), checkpoints=(), trust_domain=names.trust_domain.name,
        template=names.template, table={name: one.value for name, one in names.table.items()},
        minters=frozenset(one.value for one in profile.minters), notaries=frozenset(),
    )  # fmt: skip
