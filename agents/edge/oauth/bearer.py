"""The access token of a request: read from its one place, verified, and forgotten (RFC 6750, RFC 9068).

Also `/.well-known/oauth-protected-resource` (RFC 9728), where clients learn who issues tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.agents.edge.oauth.access_token import AccessToken, AccessTokenVerifier
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code

__all__ = [
    "WELL_KNOWN",
    "NoToken",
    "authenticated",
    "bearer_token",
    "challenge",
    "metadata_answer",
    "metadata_path",
    "metadata_url",
    "needed",
]

_CREDENTIALS: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+) +(\S.*)")
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1."""

_QUOTED: Final = re.compile(r"[ !#-\[\]-~]*")
"""What a quoted string of a field holds without escapes (RFC 9110 section 5.6.4), in ASCII."""

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

CACHE_SECONDS: Final = 300


class NoToken(EdgeError):
    """401: the request has no access token, so it is only told where to get one (RFC 6750 section 3.1)."""

    def __init__(self) -> None:
        super().__init__(Code.NO_TOKEN, 401)


def bearer_token(headers: Headers) -> str:
    """Return the access token in `Authorization`; no other place is searched.

    Raises `NoToken` if there is none, `EdgeError` (400 `malformed`, `invalid_request`) for more than one or for one that does
    not have the form of RFC 6750.
    """
    values = headers.getlist("authorization")
    if not values:
        raise NoToken
    if len(values) > 1:
        raise EdgeError(Code.MALFORMED, 400, "more than one Authorization field", error="invalid_request")
    found = _CREDENTIALS.fullmatch(values[0].strip())
    if found is None or found[1].lower() != "bearer":
        raise NoToken
    if not _B64TOKEN.fullmatch(found[2]):
        raise EdgeError(Code.MALFORMED, 400, "the Bearer credentials are not a token", error="invalid_request")
    return found[2]


async def authenticated(headers: Headers, verifier: AccessTokenVerifier, *, now: int) -> AccessToken:
    """Return the contents of the request's access token; raises as `bearer_token` and `AccessTokenVerifier.verify` do."""
    return await verifier.verify(bearer_token(headers), now=now)


def challenge(answer: Response, resource: str, **parameters: object) -> None:
    """Write `WWW-Authenticate` on the answer to a request whose token is missing, not accepted or not enough.

    `parameters` are left out where they are None or empty. They are quoted as they are: raises `ValueError` for a quote, a
    backslash or a control character, so that no word of a policy begins a parameter, or a field, of its own.
    """
    said = {name: text for name, value in parameters.items() if value is not None and (text := str(value))}
    if not all(_QUOTED.fullmatch(value) for value in said.values()):
        raise ValueError("a parameter that cannot be quoted")
    said["resource_metadata"] = metadata_url(resource)
    answer.headers["www-authenticate"] = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in said.items())


def needed(answer: Response, remedy: Remedy, resource: str) -> None:
    """Write which login (RFC 9470 section 3) or scope (RFC 6750 section 3.1) the denied request needs."""
    if remedy.kind is RemedyKind.LOGIN:
        error = "insufficient_user_authentication"
        challenge(answer, resource, error=error, acr_values=remedy.acr, max_age=remedy.max_age)
    else:
        challenge(answer, resource, error="insufficient_scope", scope=remedy.scope)


def metadata_path(resource: str) -> str:
    """Return the path of the metadata of `resource`: the well-known part precedes its own path (section 3.1)."""
    return WELL_KNOWN + urlsplit(resource).path.rstrip("/")


def metadata_url(resource: str) -> str:
    """Return the URL of the metadata of `resource`, an `http` or `https` URL."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(resource)}"


def metadata_answer(resource: str, issuers: Sequence[Issuer]) -> Response:
    """Return the metadata of section 2. Tokens are read from the `Authorization` field only."""
    document = {
        "resource": resource,
        "authorization_servers": sorted(issuer.issuer for issuer in issuers),
        "bearer_methods_supported": ["header"],
    }
    headers = {**HEADERS, "cache-control": f"public, max-age={CACHE_SECONDS}"}
    return Response(json.dumps(document), 200, headers, "application/json")
