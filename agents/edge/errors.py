"""What the edge answers in place of a result: an HTTP status, a stable code, and the word of the OAuth RFC that fits.

::

    EdgeError                 root of what the edge itself refuses; has .status, .code, .error and .retry_after
    +-- TokenRefused          401: the access token is not one that this edge takes
    +-- KeysUnavailable       503: the issuer's keys cannot be had, so no token of it can be judged

Texts name the field or rule that was broken and never hold a token, a part of one, or anything that a token says.
"""

from __future__ import annotations

from sealbus.envelopes.errors import Code, SealbusError

__all__ = ["EdgeError", "KeysUnavailable", "TokenRefused"]


class EdgeError(SealbusError):
    """A request ends at the edge. `detail` may be shown to whoever sent it.

    `status` is the HTTP status, `error` the word of RFC 6750 section 3.1 or RFC 8693 section 2.2.2 ("" where none
    fits), `retry_after` whole seconds after which another try makes sense.
    """

    def __init__(
        self, code: Code, status: int, detail: str = "", *, error: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.error = error
        self.retry_after = retry_after


class TokenRefused(EdgeError):
    """401: the access token is malformed, of an unknown issuer, for someone else, expired, or not signed by its issuer.

    `code` is `bad_token`, `unknown_issuer`, `token_audience` or `token_expired`.
    """

    def __init__(self, detail: str, *, code: Code = Code.BAD_TOKEN) -> None:
        super().__init__(code, 401, detail, error="invalid_token")


class KeysUnavailable(EdgeError):
    """503: no key set of the issuer is young enough to judge with, and a new one cannot be had now."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(
            Code.KEYS_UNAVAILABLE, 503, detail, error="temporarily_unavailable", retry_after=max(1, retry_after)
        )
