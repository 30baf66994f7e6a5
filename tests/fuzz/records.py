"""Targets: audit messages, their bodies, records and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from fuzz.messages import planner, trust
from fuzz.targets import Target, check_refusal
from support.envelopes import NAMES, NOW, record_draft
from support.vectors import Given, load, run

from sealbus.envelopes.errors import EnvelopeError, LogError
from sealbus.envelopes.export.approvals import approvals_of
from sealbus.envelopes.export.receipt import RecordReceipt
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.records.archive import ArchiveProfile, accept_decided, accept_record
from sealbus.envelopes.records.body import parse_audit_body, parse_evidence
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.trust.caches import Caches


def record(data: bytes) -> None:
    """One record."""
    try:
        parsed = parse_record(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert parsed.encode() == data


def evidence(data: bytes) -> None:
    """One item of evidence."""
    try:
        parse_evidence([data])
    except EnvelopeError as error:
        check_refusal(error)


def body(data: bytes) -> None:
    """The body of an audit message."""
    if len(data) > DEFAULT_LIMITS.body_bytes:
        return
    try:
        parsed = parse_audit_body(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert len(parsed.records) <= len(parsed.leaves)


def archive(data: bytes) -> None:
    """The acceptance of audit messages."""
    try:
        run({"profile": "archive", "payload": data.hex(), "given": _archived()})
    except EnvelopeError as error:
        check_refusal(error)


def _archived() -> Given:
    given: Given = load("accept_archive.json")[0].get("given", {})
    return given


def signed_body(data: bytes) -> None:
    """The acceptance of an audit message with this body, signed by its recorder, and of all messages that it decides on."""
    if not 0 < len(data) <= DEFAULT_LIMITS.body_bytes:
        return
    try:
        root = parse_audit_body(data).root
    except EnvelopeError:
        return
    sealed = seal([record_draft(data, root, iss="planner")], planner())[0]
    profile, bundles, caches = ArchiveProfile(names=NAMES, minters=frozenset()), trust().bundles, Caches()
    audit = accept_record(sealed.wire, "audit.planner", profile, time=NOW, bundles=bundles, caches=caches)
    for found in audit.body.records.values():
        if isinstance(found, DecisionRecord):
            try:
                accept_decided(found, audit, profile, bundles=bundles, caches=caches)
            except EnvelopeError as error:
                check_refusal(error)


def receipt(data: bytes) -> None:
    """A receipt of a record."""
    try:
        parsed = RecordReceipt.parse(data)
    except LogError as error:
        check_refusal(error)
        return
    assert parsed.encode() == data


def approvals(data: bytes) -> None:
    """The approvals in the input document of a record."""
    with suppress(ValueError):
        approvals_of(data)


TARGETS: Mapping[str, Target] = {
    "record": record,
    "evidence": evidence,
    "body": body,
    "archive": archive,
    "signed_body": signed_body,
    "receipt": receipt,
    "approvals": approvals,
}
