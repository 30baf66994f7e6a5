"""Where clients learn who issues tokens for this edge: `/.well-known/oauth-protected-resource` (RFC 9728)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

from sealbus.agents.edge.issuers import Issuer
from sealbus.agents.edge.problem import HEADERS

__all__ = ["WELL_KNOWN", "metadata_answer", "metadata_path", "metadata_url"]

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

CACHE_SECONDS: Final = 300


def metadata_path(resource: str) -> str:
    """Return the path under which the metadata of `resource` stands: inserted before the resource's own (section 3.1)."""
    return WELL_KNOWN + urlsplit(resource).path.rstrip("/")


def metadata_url(resource: str) -> str:
    """Return the URL of the metadata of `resource`, an `http` or `https` URL."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(resource)}"


def metadata_answer(resource: str, issuers: Sequence[Issuer]) -> Response:
    """Return the metadata of section 2. Tokens are taken from the `Authorization` field only."""
    document = {
        "resource": resource,
        "authorization_servers": sorted(issuer.issuer for issuer in issuers),
        "bearer_methods_supported": ["header"],
    }
    headers = {**HEADERS, "cache-control": f"public, max-age={CACHE_SECONDS}"}
    return Response(json.dumps(document), 200, headers, "application/json")
