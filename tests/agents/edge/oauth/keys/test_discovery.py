"""Metadata of issuers: where it is looked for, and what of it is believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.x509 import self_signed

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.keys.discovery import Documents, FetchFailed


@pytest.fixture
async def documents() -> AsyncIterator[Documents]:
    async with Documents(DEFAULT_EDGE_LIMITS, TRUSTS_NOBODY) as documents:
        yield documents


@pytest.mark.parametrize("path", ["", "/", "/realms/shop", "/realms/shop/"])
async def test_openid_metadata_stands_below_the_issuer(path: str, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        row = issuer.row(issuer=issuer.issuer + path)
        issuer.metadata.body = json.dumps({"issuer": row.issuer, "jwks_uri": issuer.jwks_uri}).encode()
        issuer.metadata_paths = {f"{path.rstrip('/')}/.well-known/openid-configuration"}
        assert await documents.jwks_uri(row) == issuer.jwks_uri
        assert len(issuer.requests) == 1


@pytest.mark.parametrize("path", ["", "/realms/shop"])
async def test_else_that_of_rfc_8414_stands_before_its_path(path: str, documents: Documents) -> None:
    async with LoopbackIssuer(path=path) as issuer:
        issuer.metadata_paths = {f"/.well-known/oauth-authorization-server{path}"}
        assert await documents.jwks_uri(issuer.row()) == issuer.jwks_uri
        assert issuer.requests == [
            f"{path}/.well-known/openid-configuration",
            f"/.well-known/oauth-authorization-server{path}",
        ]


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_any_refusal_of_the_one_leads_to_the_other(status: int, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.metadata.status = status
        with pytest.raises(FetchFailed, match="metadata: not found"):
            await documents.jwks_uri(issuer.row())
        assert len(issuer.requests) == 2


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_a_key_set_needs_status_200(status: int, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.key_set.status = status
        issuer.key_set.body = b""
        with pytest.raises(FetchFailed, match=f"key set: status {status}"):
            await documents.keys(issuer.jwks_uri)


async def test_a_key_set_is_as_long_as_allowed(documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.key_set.body += b" " * (DEFAULT_EDGE_LIMITS.document_bytes - len(issuer.key_set.body))
        assert (await documents.keys(issuer.jwks_uri)).keys.find_key("key-1", "ES256") is not None
        issuer.key_set.body += b" "
        with pytest.raises(FetchFailed, match="too large"):
            await documents.keys(issuer.jwks_uri)


async def test_an_issuer_without_metadata(documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.metadata_paths = set()
        with pytest.raises(FetchFailed, match="metadata: not found"):
            await documents.jwks_uri(issuer.row())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"issuer": "https://evil.example"}, "of another issuer"),
        ({"issuer": None}, "of another issuer"),
        ({"issuer": ["x"]}, "of another issuer"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"jwks_uri": 7}, "jwks_uri"),
        ({"jwks_uri": "http://192.0.2.1/jwks"}, "jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"jwks_uri": "https://user:secret@idp.example/jwks"}, "jwks_uri"),
    ],
)
async def test_metadata_that_is_not_believed(change: dict[str, Any], reason: str, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        metadata = {"issuer": issuer.issuer, "jwks_uri": issuer.jwks_uri, **change}
        issuer.metadata.body = json.dumps(metadata).encode()
        with pytest.raises(FetchFailed, match=f"^metadata: .*{reason}"):
            await documents.jwks_uri(issuer.row())
        assert issuer.fetches == 0


@pytest.mark.parametrize("end", ["", "/"])
async def test_the_issuer_is_compared_character_by_character(end: str, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        row = issuer.row(issuer=issuer.issuer + end)
        issuer.metadata.body = json.dumps({"issuer": issuer.issuer, "jwks_uri": issuer.jwks_uri}).encode()
        if end:
            with pytest.raises(FetchFailed, match="of another issuer"):
                await documents.jwks_uri(row)
        else:
            assert await documents.jwks_uri(row) == issuer.jwks_uri


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"issuer": "a", "issuer": "b"}'])
async def test_metadata_that_is_no_object(body: bytes, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.metadata.body = body
        with pytest.raises(FetchFailed, match="metadata: not a JSON object"):
            await documents.jwks_uri(issuer.row())


@pytest.mark.parametrize("status", [302, 500, 503])
async def test_metadata_with_another_status_ends_the_search(status: int, documents: Documents) -> None:
    async with LoopbackIssuer() as issuer:
        issuer.metadata.status = status
        issuer.metadata.headers["Location"] = issuer.jwks_uri
        with pytest.raises(FetchFailed, match=f"^metadata: status {status}$"):
            await documents.jwks_uri(issuer.row())
        assert len(issuer.requests) == 1


async def test_proxies_and_credentials_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Documents(DEFAULT_EDGE_LIMITS, TRUSTS_NOBODY) as documents, LoopbackIssuer() as issuer:
        assert await documents.jwks_uri(issuer.row()) == issuer.jwks_uri


async def test_https_is_verified(documents: Documents) -> None:
    served, trusted = self_signed()
    async with LoopbackIssuer(tls=served) as issuer:
        with pytest.raises(FetchFailed, match="ConnectError"):
            await documents.jwks_uri(issuer.row())
        assert issuer.requests == []
        async with Documents(DEFAULT_EDGE_LIMITS, trusted) as trusting:
            assert await trusting.jwks_uri(issuer.row()) == issuer.jwks_uri
            # A key set in plain text could be exchanged on its way.
            plain = issuer.jwks_uri.replace("https:", "http:")
            issuer.metadata.body = json.dumps({"issuer": issuer.issuer, "jwks_uri": plain}).encode()
            with pytest.raises(FetchFailed, match="jwks_uri"):
                await trusting.jwks_uri(issuer.row())


async def test_the_systems_certificates_are_the_default() -> None:
    served, _ = self_signed()
    async with LoopbackIssuer(tls=served) as issuer, Documents(DEFAULT_EDGE_LIMITS) as documents:
        with pytest.raises(FetchFailed, match="ConnectError"):
            await documents.jwks_uri(issuer.row())
