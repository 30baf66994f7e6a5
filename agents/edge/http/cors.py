"""Which pages of other origins may read answers (the Fetch standard, section 3.3): those that the settings name.

Tokens come in a field that a page has to set itself, so nothing here is about cookies: credentials are never allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.envelopes.errors import Code, ConfigurationError

PREFLIGHT: Final = "sealbus.preflight"
"""Key of the request's scope that holds the method that a page asks for, in a preflight of an origin that may ask."""

_ASKED_METHOD: Final = "access-control-request-method"
_ASKED_FIELDS: Final = "access-control-request-headers"
_TAKEN: Final = ("Authorization", "Content-Type", "DPoP", "Idempotency-Key", "Last-Event-ID")
"""Fields of requests that a page may set."""
_SHOWN: Final = ("X-Request-Id", "DPoP-Nonce", "WWW-Authenticate", "Location", "Retry-After")
"""Fields of answers that a page may read."""
_SECONDS: Final = 600
"""How long a browser may remember a preflight."""

_HOST: Final = r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:.]{2,45}\])"
_PORT: Final = r"(?::[1-9][0-9]{0,4})?"
_ORIGIN: Final = re.compile(
    rf"https://{_HOST}{_PORT}(?<!:443)|http://(?:localhost|127\.0\.0\.1|\[::1\]){_PORT}(?<!:80)"
)
"""As browsers write it: small letters, and no port that goes without saying."""


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins whose pages may read answers. Raises `ConfigurationError` for what no browser would call its origin."""

    origins: frozenset[str]

    def __post_init__(self) -> None:
        for origin in sorted(self.origins):
            if origin == "*":
                raise ConfigurationError(
                    "edge.cors '*': any page could use a token that it came by; name the origins of your applications"
                )
            if len(origin) > 300 or not _ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"edge.cors {origin!r}: write an origin as browsers do, such as https://app.example.org: https, or http "
                    "on loopback, in small letters, without a path and without the default port"
                )

    def origin(self, headers: Headers) -> str | None:
        """Return the origin of a request, if its pages may read the answer."""
        origins = headers.getlist("origin")
        return origins[0] if len(origins) == 1 and origins[0] in self.origins else None

    def preflight(self, method: str, headers: Headers) -> str | None:
        """Return the method that a preflight asks for; None for any other request, and for other origins."""
        methods = headers.getlist(_ASKED_METHOD)
        return methods[0] if method == "OPTIONS" and len(methods) == 1 and self.origin(headers) is not None else None

    def fields(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the fields of the answer to a request.

        `Vary` is one of them whoever asks: no cache may give what was for one origin to another.
        """
        added = [(b"vary", b"Origin")]
        origin = self.origin(headers)
        if origin is not None:
            added += [
                (b"access-control-allow-origin", origin.encode("ascii")),
                (b"access-control-expose-headers", ", ".join(_SHOWN).encode("ascii")),
            ]
        return added


def preflight_answer(headers: Headers, methods: Collection[str]) -> Response:
    """Return the answer to a preflight for a resource with `methods`; raise 400 if it asks for a field that is not taken."""
    allowed_names = {name.lower() for name in _TAKEN}
    for value in headers.getlist(_ASKED_FIELDS):
        if not {name.strip().lower() for name in value.split(",")} <= allowed_names:
            raise EdgeError(Code.MALFORMED, 400, f"a page may set {', '.join(_TAKEN)} and no other fields")
    allowed = {
        "access-control-allow-methods": ", ".join(sorted(methods)),
        "access-control-allow-headers": ", ".join(_TAKEN),
        "access-control-max-age": str(_SECONDS),
    }
    return Response(status_code=204, headers={**HEADERS, **allowed})
