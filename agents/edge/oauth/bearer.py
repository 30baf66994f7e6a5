"""The access token of a request, read from its one place, and the challenge where it does not do (RFC 6750, RFC 9449).

Also `/.well-known/oauth-protected-resource` (RFC 9728), where clients learn who issues tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code


class Scheme(StrEnum):
    """How an access token is presented: by who has it (RFC 6750), or by who holds its key (RFC 9449 section 7.1)."""

    BEARER = "Bearer"
    DPOP = "DPoP"


_CREDENTIALS: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+) +(\S.*)")
_SCHEMES: Final = {one.value.lower(): one for one in Scheme}
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1."""

_QUOTED: Final = re.compile(r"[ !#-\[\]-~]*")
"""What a quoted string of a field holds without escapes (RFC 9110 section 5.6.4), in ASCII."""

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

CACHE_SECONDS: Final = 300
PROOF_ALGORITHMS: Final = ("ES256", "ES384", "Ed25519", "PS256")
"""Algorithms with which a proof of possession may be signed (`oauth/bound/dpop.py`)."""


class NoToken(EdgeError):
    """401: the request has no access token, so it is only told where to get one (RFC 6750 section 3.1)."""

    def __init__(self) -> None:
        super().__init__(Code.NO_TOKEN, 401)


@dataclass(frozen=True, slots=True)
class Presented:
    """An access token, and the scheme under which it came."""

    scheme: Scheme
    token: str = field(repr=False)


def presented_token(headers: Headers) -> Presented:
    """Return the access token in `Authorization`; no other place is searched.

    Raises `NoToken` if there is none, `EdgeError` (400 `malformed`, `invalid_request`) for more than one or for one that does
    not have the form of RFC 6750, which is that of RFC 9449 too.
    """
    values = headers.getlist("authorization")
    if not values:
        raise NoToken
    if len(values) > 1:
        raise EdgeError(Code.MALFORMED, 400, "more than one Authorization field", error="invalid_request")
    match = _CREDENTIALS.fullmatch(values[0].strip())
    scheme = _SCHEMES.get(match[1].lower()) if match is not None else None
    if match is None or scheme is None:
        raise NoToken
    if not _B64TOKEN.fullmatch(match[2]):
        raise EdgeError(Code.MALFORMED, 400, f"the {scheme} credentials are not a token", error="invalid_request")
    return Presented(scheme, match[2])


def challenge(answer: Response, resource: str, scheme: Scheme = Scheme.BEARER, **parameters: object) -> None:
    """Add `WWW-Authenticate` to the answer to a request whose token is missing, not accepted or not enough.

    `parameters` are left out where they are None or empty. They are quoted as they are: raises `ValueError` for a quote, a
    backslash or a control character, so that no word of a policy begins a parameter, or a field, of its own.
    """
    quoted = {name: text for name, value in parameters.items() if value is not None and (text := str(value))}
    if not all(_QUOTED.fullmatch(value) for value in quoted.values()):
        raise ValueError("a parameter that cannot be quoted")
    if scheme is Scheme.DPOP:
        quoted["algs"] = " ".join(PROOF_ALGORITHMS)
    quoted["resource_metadata"] = metadata_url(resource)
    answer.headers.append(
        "www-authenticate", f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in quoted.items())
    )


def needed(answer: Response, remedy: Remedy, resource: str, scheme: Scheme = Scheme.BEARER) -> None:
    """Write which login (RFC 9470 section 3) or scope (RFC 6750 section 3.1) the denied request needs."""
    if remedy.kind is RemedyKind.LOGIN:
        error = "insufficient_user_authentication"
        challenge(answer, resource, scheme, error=error, acr_values=remedy.acr, max_age=remedy.max_age)
    else:
        challenge(answer, resource, scheme, error="insufficient_scope", scope=remedy.scope)


def metadata_path(resource: str) -> str:
    """Return the path of the metadata of `resource`: the well-known part precedes its own path (section 3.1)."""
    return WELL_KNOWN + urlsplit(resource).path.rstrip("/")


def metadata_url(resource: str) -> str:
    """Return the URL of the metadata of `resource`, an `http` or `https` URL."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(resource)}"


def metadata_answer(
    resource: str, issuers: Sequence[Issuer], *, certificates: bool = False, scopes: Sequence[str] = ()
) -> Response:
    """Return the metadata of section 2; `certificates` says that clients can show one here, `scopes` are worth asking for.

    Whom clients cannot ask for an access token is not named: who only asserts, and who vouches for workloads.
    Tokens are read from the `Authorization` field only.
    """
    document = {
        "resource": resource,
        "authorization_servers": sorted(row.issuer for row in issuers if row.grants),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "tls_client_certificate_bound_access_tokens": certificates,
        **({"scopes_supported": list(scopes)} if scopes else {}),
    }
    headers = {**HEADERS, "cache-control": f"public, max-age={CACHE_SECONDS}"}
    return Response(json.dumps(document), 200, headers, "application/json")
