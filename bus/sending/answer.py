"""Answers to calls and tasks: what an error reply states, the errors that stand for a missing answer, and marks of calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.bus.sending.message import ERROR_TYPE, Content
from sealbus.bus.sending.status import NOTE_BYTES
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.denial import Explanation, remedies_of, via_of
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import CODE_FORM, BusUnavailable, Code, Denied, ObligationUnknown, SealbusError
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.message.header import Header

ONE_ANSWER: Final[Mapping[str, ExtValue]] = {"_one": True}
"""Marks a call whose sender takes one answer: a handler that answers in chunks is not run for it.

A name in a header's `ext` that begins with `_` is a mark (SPEC.md section 3). An unknown mark is ignored.
"""

DETACHED: Final[Mapping[str, ExtValue]] = {"_det": True}
"""Marks a task or call that continues if the message it follows from is canceled."""

_KNOWN: Final = frozenset(code.value for code in Code)


def takes_one_answer(header: Header) -> bool:
    """Return whether the sender of this call takes only one answer."""
    return header.ext is not None and header.ext.get("_one") is True


def is_detached(header: Header) -> bool:
    """Return whether this message continues if the message it follows from is canceled."""
    return header.ext is not None and header.ext.get("_det") is True


class RemoteError(SealbusError):
    """An error reply: the recipient verified the request, and did not handle it or failed. `code` is a `Code` if it is known.

    A handler that rejects (`Reject`) has its own code and perhaps a `note`, as do recipients in development.
    """

    def __init__(self, code: str, detail: str = "", note: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.note = note

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.note})" if self.note else super().__str__()


def code_of(code: object) -> str:
    """Return the recipient's code, as a `Code` if it is known; raise `ValueError` for a malformed one."""
    if not isinstance(code, str) or not CODE_FORM.fullmatch(code):
        raise ValueError("not a code")
    return Code(code) if code in _KNOWN else code


class ChunkedAnswer(RemoteError):
    """The recipient answers in chunks, but one answer was requested: use `stream`. The call was handled nevertheless."""

    code: Code

    def __init__(self, action: str) -> None:
        super().__init__(Code.BAD_RESULT, f"{action} answers in chunks: use stream")


class CallExpired(BusUnavailable):
    """No answer came in time. The call may have been handled or not."""

    code = Code.EXPIRED


class NoListener(CallExpired):
    """No process subscribes to the call: the agent does not run, or does not have the verb. The call was not handled."""

    code = Code.NO_LISTENER


class AnswerDenied(Denied):
    """Our own policy denies the answer. The reasons are for this agent, not for the user on whose behalf it asked.

    `code` is `obligation_unknown` if the policy allowed the answer with an obligation, because none is honoured on answers.
    """

    def __init__(self, detail: str, reasons: Sequence[str] = (), *, code: Code = Code.DENIED) -> None:
        super().__init__(detail, reasons)
        self.code = code


def answer_of(result: VerifiedResult) -> Content:
    """Return the answer's body, or raise the error that an error reply states.

    An error reply is bounded and never trusted: one that is malformed is a `RemoteError` with `bad_result`.
    """
    if result.header.typ != ERROR_TYPE:
        return Content(body=result.body, typ=result.header.typ)
    try:
        body = json.loads(result.body)
        code = code_of(body["code"])
        reasons = tuple(str(reason)[:256] for reason in body.get("reasons", ()))[:32]
        # A lone surrogate could be in no answer to a person.
        "".join(reasons).encode()
        note = str(body.get("note", ""))
        explanation = Explanation(reasons, remedies_of(body.get("remedy")), via_of(body.get("via")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RemoteError(Code.BAD_RESULT, "an invalid error reply") from error
    explanation = explanation.told_by(result.header.iss.value)
    if code is Code.DENIED:
        raise Denied("the recipient's policy denies the call", *explanation)
    if code is Code.OBLIGATION_UNKNOWN:
        raise ObligationUnknown("the recipient does not honour an obligation of its policy", *explanation)
    raise RemoteError(code, "the recipient did not handle the call", note if is_text(note, NOTE_BYTES) else "")
