"""Approvals: the obligation by which a denial asks for approval, and the question whether a person may give it.

::

    {"type": "approval", "queue": "managers", "text": "Pay 1200 EUR to ACME", "until": 604800, "count": 1,
     "acr": ["urn:example:silver"], "max_age": 300, "follows": ["ledger.post"], "body": false}

Only the first four members are required.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.message.header import is_grant
from sealbus.envelopes.trust.names import is_token
from sealbus.policies.decision.documents import InputDocument, canonical, checked_document, extended_document

APPROVAL: Final = "data.sealbus.approval.decision"
"""The rule that decides who may approve. Its input is the question."""

APPROVE: Final = "._approve"
"""The end of the action of every verdict: `payments._approve`, for each action of `payments` that waits."""

UNTIL: Final = 2_592_000
"""Longest time in seconds that a message may wait, 30 days."""
MAX_AGE: Final = 31_536_000
"""Greatest age of a login that a policy may set, in seconds, a year."""

_QUEUE_BYTES: Final = 64
"""Longest name of a queue. It is part of a subject, with an agent's token and a hash."""
_ACR: Final = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749 appendix A.4: one value of a list in a quoted string, as RFC 9470 sends them to a client."""
_TYPE: Final = "approval"
_MEMBERS: Final = frozenset({"type", "queue", "text", "until", "count", "acr", "max_age", "follows", "body"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalObligation:
    """The approval that a denial asks for. Construction raises `ValueError` for invalid members.

    `queue` is a token of a subject. `text` is the question to people, who have `until` seconds to answer. They must have
    logged in by one of `acr`, if there are any, and at most `max_age` seconds ago. `follows` are the grants for actions that
    may be sent on in the approver's name. If `body` is false, nobody sees the message's body. `count` approvals are enough;
    it is always 1 so far. `json` is the obligation as in the decision, with sorted names; it does not count for equality.
    """

    queue: str
    text: str
    until: int
    count: int = 1
    acr: tuple[str, ...] = ()
    max_age: int | None = None
    follows: tuple[str, ...] = ()
    body: bool = True
    json: bytes = field(compare=False)

    def __post_init__(self) -> None:
        if type(self.queue) is not str or len(self.queue) > _QUEUE_BYTES or not is_token(self.queue):
            raise ValueError(f"queue is not a token of a subject of at most {_QUEUE_BYTES} bytes")
        if type(self.text) is not str or not self.text or not is_text(self.text):
            raise ValueError("text does not have 1 to 256 bytes without control characters")
        if type(self.until) is not int or not 0 < self.until <= UNTIL:
            raise ValueError(f"until is not whole seconds from 1 to {UNTIL}")
        if type(self.count) is not int or self.count != 1:
            raise ValueError("count is not 1")
        if any(type(value) is not str or not _ACR.fullmatch(value) for value in self.acr) or not is_text(
            " ".join(self.acr)
        ):
            raise ValueError("acr does not hold values that can be asked for, of at most 256 bytes together")
        if self.max_age is not None and not (type(self.max_age) is int and 0 <= self.max_age <= MAX_AGE):
            raise ValueError(f"max_age is not whole seconds from 0 to {MAX_AGE}")
        if any(type(grant) is not str or not is_grant(grant) for grant in self.follows):
            raise ValueError("follows does not hold grants")
        if type(self.body) is not bool:
            raise ValueError("body is not a boolean")

    @classmethod
    def parse(cls, members: Mapping[str, object]) -> ApprovalObligation:
        """Return the obligation in a JSON object; raise `ValueError` for anything else.

        An unknown member is refused, because it could require more than is checked.
        """
        values = dict(members)
        if not values.keys() <= _MEMBERS or values.pop("type", None) != _TYPE:
            raise ValueError("an obligation of another type, or with other members")
        for name in ("acr", "follows"):
            items = values.setdefault(name, [])
            if type(items) is not list:
                raise ValueError(f"{name} is not an array")
            values[name] = tuple(items)
        if "max_age" in values and values["max_age"] is None:
            raise ValueError("max_age is null")
        if not {"queue", "text", "until"} <= values.keys():
            raise ValueError("queue, text or until is missing")
        return cls(**values, json=canonical(cast("Json", dict(members))))  # type: ignore[arg-type]  # checked above


def approval_of(obligations: Sequence[Mapping[str, object]]) -> ApprovalObligation | None:
    """Return the approval that the obligations of a denial ask for.

    Returns None, as for a plain denial, if they ask for no approval or for several, or if the obligation is invalid.
    """
    approvals = [obligation for obligation in obligations if obligation.get("type") == _TYPE]
    if len(approvals) != 1:
        return None
    try:
        return ApprovalObligation.parse(approvals[0])
    except ValueError:
        return None


def approval_question(document: InputDocument, *, of: bytes, obligation: bytes) -> InputDocument:
    """Return the question whether the approver of `document` may give this verdict: the bytes that are decided and recorded.

    `document` is the input document about the verdict, `of` the recorded document that was denied, and `obligation` the
    obligation of that denial (`ApprovalObligation.json`). Raises `PolicyFailed` for over 65,536 bytes, and if a part is not
    exactly one JSON object, because it could add other keys.
    """
    return extended_document(document, {b"of": checked_document(of), b"obligation": checked_document(obligation)})


def is_question(document: bytes) -> bool:
    """Return whether a valid input document is a question whether a person may approve (`approval_question`)."""
    question = json.loads(document)
    return "of" in question and "obligation" in question
