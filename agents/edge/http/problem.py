"""The edge's answer for an error: problem+json (RFC 9457) with the code of sealbus.

::

    {"type": "about:blank", "title": "Forbidden", "status": 403, "code": "denied", "detail": "...", "reasons": [...]}

Programs use `code`, the code of the sealbus error (SPEC.md section 10). `detail` is one fixed sentence per code, or names
the fault that the edge found in the request; nothing from an agent or a token gets into it. `reasons`, `remedy` and `via`
(SPEC.md section 7, "What a denial tells") are present only if the policy that denied allows it.

::

    EdgeError                 root of the edge's own refusals; has .status, .code, .error and .retry_after
    +-- TokenRefused          401: this edge does not accept the access token
    +-- ProofRefused          401: the sender does not prove to hold the key to which the token is bound (`dpop.py`)
    +-- KeysUnavailable       503: the issuer's keys are not available, so its tokens cannot be verified

Texts name the field or rule that was broken. They never hold a token, a part of a token, or its contents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from sealbus.bus.sending.answer import AnswerDenied
from sealbus.envelopes.denial import NOTHING_TOLD, Explanation
from sealbus.envelopes.errors import Code, Denied, SealbusError

PROBLEM: Final = "application/problem+json"

HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    # Results are data. A browser that is pointed at one must not run what an agent put into it.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer of the edge."""

STATUS: Final[Mapping[str, int]] = {
    Code.MALFORMED: 400,
    Code.NO_TOKEN: 401,
    Code.BAD_TOKEN: 401,
    Code.UNKNOWN_ISSUER: 401,
    Code.TOKEN_AUDIENCE: 401,
    Code.TOKEN_EXPIRED: 401,
    Code.BAD_DPOP_PROOF: 401,
    Code.USE_DPOP_NONCE: 401,
    Code.DENIED: 403,
    Code.OBLIGATION_UNKNOWN: 403,
    Code.GRANT_EXCEEDED: 403,
    Code.REVOKED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.NOT_ACCEPTABLE: 406,
    Code.REQUEST_TIMEOUT: 408,
    Code.IDEMPOTENCY_CONFLICT: 409,
    Code.CANCELED: 409,
    Code.TASK_ENDED: 409,
    Code.APPROVAL_FOREIGN: 409,
    Code.APPROVAL_CLOSED: 409,
    Code.APPROVAL_REPEATED: 409,
    Code.APPROVAL_SELF: 403,
    Code.APPROVAL_WEAK: 403,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.BAD_BODY: 422,
    Code.RATE_LIMITED: 429,
    Code.UNKNOWN_VERB: 502,
    Code.HANDLER_FAILED: 502,
    Code.BAD_RESULT: 502,
    Code.OUTCOME_UNKNOWN: 502,
    Code.KILLED: 502,
    Code.OVERLOADED: 503,
    Code.RESOURCE_UNAVAILABLE: 503,
    Code.POLICY_UNAVAILABLE: 503,
    Code.AUDIT_UNAVAILABLE: 503,
    Code.STATE_UNAVAILABLE: 503,
    Code.IDENTITY_UNAVAILABLE: 503,
    Code.CLOCK_SKEW: 503,
    Code.BUS_UNAVAILABLE: 503,
    Code.NO_LISTENER: 503,
    Code.KEYS_UNAVAILABLE: 503,
    Code.EXPIRED: 504,
    Code.HANDLER_TIMEOUT: 504,
}
"""The status of each code of sealbus. Any other code is a fault of ours and is answered with 500."""

REJECTED: Final = 422
"""The status of a handler's own code (`Reject`): the handler understood the request and will never do it."""

_DETAIL: Final[Mapping[str, str]] = {
    Code.NO_TOKEN: "An access token is needed.",
    Code.DENIED: "The policy does not allow this.",
    Code.OBLIGATION_UNKNOWN: "The policy does not allow this.",
    Code.GRANT_EXCEEDED: "The policy does not allow this.",
    Code.REVOKED: "The session or the client was revoked.",
    Code.NOT_FOUND: "There is nothing here.",
    Code.RESOURCE_NOT_FOUND: "The resource of the request does not exist.",
    Code.METHOD_NOT_ALLOWED: "The method is not allowed here.",
    Code.NOT_ACCEPTABLE: "The agent answers in chunks, which a call over HTTP does not carry. The call was not done.",
    Code.IDEMPOTENCY_CONFLICT: "The idempotency key was used with another body.",
    Code.CANCELED: "The task was canceled.",
    Code.TASK_ENDED: "The task has ended: nothing of it can be canceled.",
    Code.APPROVAL_FOREIGN: "The verdict is about another decision than the one that waits.",
    Code.APPROVAL_CLOSED: "The task no longer waits for a verdict.",
    Code.APPROVAL_REPEATED: "You have given this verdict already.",
    Code.APPROVAL_SELF: "You cannot approve your own request.",
    Code.APPROVAL_WEAK: "The login is not strong enough, or too old.",
    Code.BAD_BODY: "The agent does not accept this body.",
    Code.RATE_LIMITED: "Too many requests.",
    Code.UNKNOWN_VERB: "The agent has no such action.",
    Code.HANDLER_FAILED: "The agent failed.",
    Code.BAD_RESULT: "The agent's answer cannot be used.",
    Code.OUTCOME_UNKNOWN: "Whether this was done is not known, and it is not tried again.",
    Code.KILLED: "The agent cannot handle this.",
    Code.OVERLOADED: "Too busy now; try again.",
    Code.NO_LISTENER: "Nobody handles this action now. The call was not done.",
    Code.EXPIRED: "No answer in time. Whether this was done is not known.",
    Code.HANDLER_TIMEOUT: "The agent took too long.",
}
_REJECTED: Final = "The agent rejected this."
_AGAIN: Final = "Not possible now; try again."
_OURS: Final = "The edge failed."

RETRY_SECONDS: Final = 1
"""`Retry-After` of a 503 for which no better value is known."""


def explanation_of(error: SealbusError) -> Explanation:
    """Return the explanation of a denial, for callers: empty if our own policy refused an answer, whose reasons are ours."""
    return error.explanation if isinstance(error, Denied) and not isinstance(error, AnswerDenied) else NOTHING_TOLD


def problem_of(error: SealbusError, *, status: int | None = None, retry_after: int | None = None) -> Response:
    """Return the answer for `error`; `status` and `retry_after` replace those of a denial."""
    if isinstance(error, EdgeError):
        return problem(error.code, detail=error.detail, status=error.status, retry_after=error.retry_after)
    return problem(error.code, status=status, explanation=explanation_of(error), retry_after=retry_after)


def problem(
    code: str,
    *,
    detail: str = "",
    status: int | None = None,
    explanation: Explanation = NOTHING_TOLD,
    retry_after: int | None = None,
) -> Response:
    """Return an answer with `code`; `detail` replaces the code's sentence."""
    if not isinstance(code, Code):
        status, detail = REJECTED, _REJECTED
    status = status or STATUS.get(code, 500)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and code not in STATUS:
        code, detail = Code.INTERNAL, _OURS
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": str(code),
        "detail": detail or _DETAIL.get(code, _AGAIN if status == HTTPStatus.SERVICE_UNAVAILABLE else _OURS),
    }
    body |= explanation.members()
    headers = dict(HEADERS)
    if status == HTTPStatus.SERVICE_UNAVAILABLE or retry_after is not None:
        headers["retry-after"] = str(retry_after or RETRY_SECONDS)
    if code in (Code.REQUEST_TIMEOUT, Code.TOO_LARGE):
        # Do not wait for the rest of the body.
        headers["connection"] = "close"
    return Response(json.dumps(body, ensure_ascii=False), status, headers, PROBLEM)


class EdgeError(SealbusError):
    """A request that ends at the edge. `detail` may be shown to its sender.

    `status` is the HTTP status, `error` the word of RFC 6750 section 3.1, RFC 9449 section 7.1 or RFC 8693 section 2.2.2
    ("" if none fits), `retry_after` whole seconds after which another try makes sense.
    """

    code: Code

    def __init__(
        self, code: Code, status: int, detail: str = "", *, error: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.error = error
        self.retry_after = retry_after


class TokenRefused(EdgeError):
    """401: the access token is malformed, of an unknown issuer, for another audience, expired, or not signed by its issuer.

    `code` is `bad_token`, `unknown_issuer`, `token_audience`, `token_expired` or `revoked`.
    """

    def __init__(self, detail: str, *, code: Code = Code.BAD_TOKEN) -> None:
        super().__init__(code, 401, detail, error="invalid_token")


class KeysUnavailable(EdgeError):
    """503: no key set of the issuer is recent enough to verify with, and a new one is not available now."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(
            Code.KEYS_UNAVAILABLE, 503, detail, error="temporarily_unavailable", retry_after=max(1, retry_after)
        )


def json_answer(document: Mapping[str, object], status: int = 200, **headers: str) -> Response:
    """Return an answer of the edge with `document` as JSON, and `headers` beside those of every answer."""
    return Response(json.dumps(document, ensure_ascii=False), status, {**HEADERS, **headers}, "application/json")


def too_often(wait: float) -> EdgeError:
    """Return the 429 that asks the client to wait for `wait` seconds."""
    return EdgeError(Code.RATE_LIMITED, 429, retry_after=int(wait) + 1)
