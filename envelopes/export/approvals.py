"""The facts about approvals in a log, message by message (SPEC.md section 14, "Approvals").

Three decisions show an approval: the denial that asks for it, the person's verdict, and the decision that rests on it. They
are in different messages, and tiles are read in any order. So each message yields facts, which are combined in the order of
the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

REDACTED: Final = "its approvals are redacted"

_MOST: Final = 16
"""Most approvals of one message."""
_LATEST: Final = DEFAULT_LIMITS.max_integer // SECOND
"""Latest time that a context can have, in seconds."""
_NESTING: Final = 32
"""Deepest nesting of an input document."""
_APPROVE: Final = "._approve"
_CONTROL: Final = re.compile(r"control\.[A-Za-z0-9_-]+\.approve")
_POINTER: Final = "/context/approvals"
_HEX: Final = re.compile("[0-9a-f]{64}")
_TEXTS: Final = ("verdict", "user", "idp", "session", "client", "acr", "time", "message", "record")
_MEMBERS: Final = frozenset({*_TEXTS, "auth_time"})


class ApprovalEntry(NamedTuple):
    """A well-formed entry of `context.approvals` in an input document. `auth_time` is in seconds, 0 if unknown."""

    verdict: str
    user: str
    idp: str
    session: str
    client: str
    acr: str
    auth_time: int
    time: str
    message: bytes
    record: bytes


class ApprovalRequested(NamedTuple):
    """A denial that may ask for an approval of the message with H(header) `message`. Times are microseconds."""

    leaf: bytes
    recorder: str
    message: bytes
    obligations: bytes
    made: int
    """`iat` of the message."""
    stored: int
    """Time of the log entry."""


class ApprovalVerdict(NamedTuple):
    """An allowed verdict about the message with H(header) `about`, and the person who gave it. Times are microseconds.

    If `fault` is not empty, it names the reason why the verdict approves nothing, and no other field counts.
    """

    leaf: bytes
    recorder: str
    message: bytes
    fault: str = ""
    about: bytes | None = None
    grants: tuple[str, ...] | None = None
    typ: str = ""
    body: bytes = b""
    made: int = 0
    stored: int = 0
    user: str = ""
    idp: str = ""
    session: str = ""
    client: str = ""
    acr: str | None = None
    authenticated: int | None = None

    @property
    def person(self) -> tuple[str, str]:
        """Identity provider and user: the same person in every session and client."""
        return self.idp, self.user


class ApprovalUsed(NamedTuple):
    """An allowed decision that rests on approvals. If `fault` is not empty, it says why these cannot be read."""

    sequence: int
    recorder: str
    message: bytes
    requester: tuple[str, str] | None
    """Identity provider and user of the decided message, if it has one."""
    entries: tuple[ApprovalEntry, ...] = ()
    fault: str = ""


ApprovalFact = ApprovalRequested | ApprovalVerdict | ApprovalUsed


def approvals_of(document: bytes) -> tuple[ApprovalEntry, ...]:
    """Return the approvals that an input document names. Older documents have no such member, and name none.

    Raises `ValueError` for a document that cannot be parsed, and for malformed approvals.
    """
    if _names_no_approval(document):
        return ()
    context = parse_object(document, depth=_NESTING).get("context")
    approvals = context.get("approvals", []) if isinstance(context, dict) else []
    if not isinstance(approvals, list) or len(approvals) > _MOST:
        raise ValueError(f"approvals are not an array of at most {_MOST}")
    return tuple([_entry(entry) for entry in approvals])


def covers_approvals(pointer: str) -> bool:
    """Return whether a JSON pointer removes approvals, or parts of them, from an input document."""
    return pointer in ("/context", _POINTER) or pointer.startswith(f"{_POINTER}/")


def approval_facts_of(
    leaf: bytes,
    record: DecisionRecord,
    decided: VerifiedDecided,
    *,
    recorder: SpiffeId,
    names: Names,
    sequence: int,
    stored: int,
) -> Iterator[ApprovalFact]:
    """Yield the facts about approvals in a decision; most decisions have none.

    `leaf` names the decision's record. `decided` is its message, verified again. `sequence` and `stored` are those of its log
    entry.
    """
    header, context = decided.header, decided.context
    if not record.allow:
        if record.code == Code.DENIED and _may_ask_for_approval(record.obligations):
            yield ApprovalRequested(leaf, recorder.value, header.digest, record.obligations, header.iat, stored)
        return
    if record.action.endswith(_APPROVE):
        yield _verdict(leaf, record, header, context, recorder=recorder, names=names)
    if record.redacted and any(map(covers_approvals, record.redacted)):
        yield ApprovalUsed(sequence, recorder.value, header.digest, None, fault=REDACTED)
    elif not _names_no_approval(record.input or b"") and _CONTROL.fullmatch(header.to) is None:
        try:
            entries = approvals_of(record.input or b"")
        except ValueError:
            yield ApprovalUsed(sequence, recorder.value, header.digest, None, fault="its approvals are not of the form")
            return
        if entries:
            requester = (context.idp, context.sub) if context is not None else None
            yield ApprovalUsed(sequence, recorder.value, header.digest, requester, entries)


def _may_ask_for_approval(obligations: bytes) -> bool:
    """Return False only if no obligation is an approval: the word is missing, and no escape can spell it."""
    return b"approval" in obligations or b"\\u" in obligations


def _names_no_approval(document: bytes) -> bool:
    """Return True only if no reader finds an approval in `document`. Nearly all documents need no parsing."""
    if b"\\u" in document:
        return False
    named = document.count(b'"approvals"')
    return named == 0 or (named == 1 and b'"approvals":[]' in document)


def _entry(value: Json) -> ApprovalEntry:
    if not isinstance(value, dict) or value.keys() != _MEMBERS:
        raise ValueError("an approval has other members")
    texts = [text for name in _TEXTS if isinstance(text := value[name], str) and is_text(text)]
    auth_time = value["auth_time"]
    if len(texts) != len(_TEXTS) or type(auth_time) is not int or not 0 <= auth_time <= _LATEST:
        raise ValueError("a member of an approval has another type")
    verdict, user, idp, session, client, acr, time, message, record = texts
    if verdict not in ("approve", "deny") or not _HEX.fullmatch(message) or not _HEX.fullmatch(record):
        raise ValueError("an approval has another verdict, or names no message or record")
    return ApprovalEntry(
        verdict, user, idp, session, client, acr, auth_time, time, bytes.fromhex(message), bytes.fromhex(record)
    )


def _verdict(
    leaf: bytes,
    record: DecisionRecord,
    header: Header,
    context: UserContext | None,
    *,
    recorder: SpiffeId,
    names: Names,
) -> ApprovalVerdict:
    place, token = record.place, names.token(recorder)
    fault = ""
    if (record.action, header.to, header.kind) != (f"{token}{_APPROVE}", f"control.{token}.approve", Kind.TASK):
        fault = "it was no approval for its agent"
    elif context is None or context.wkl is not None or context.typ is not None:
        fault = "no person gave it"
    elif header.par is not None:
        # The edge that minted the context sent a root without `wkl`: step 11 was done again.
        fault = "the person's edge did not send it"
    elif not isinstance(place, StreamPlace) or record.body is None:
        fault = "it was recorded without its body"
    if fault or context is None:
        return ApprovalVerdict(leaf, recorder.value, header.digest, fault)
    return ApprovalVerdict(
        leaf,
        recorder.value,
        header.digest,
        about=header.re,
        grants=header.grt,
        typ=header.typ,
        body=record.body or b"",
        made=header.iat,
        stored=place.time,
        user=context.sub,
        idp=context.idp,
        session=context.sid,
        client=context.cid,
        acr=context.acr,
        authenticated=context.aut,
    )
