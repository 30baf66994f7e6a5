from __future__ import annotations

import json

import pytest
from support.edge import door
from support.engines import ScriptedEngine
from support.issuer import AUDIENCE

from sealbus.agents.edge.oauth.bearer import metadata_answer, metadata_path, metadata_url
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.envelopes.trust.spiffe_id import TrustDomain


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.example.org", "https://api.example.org/.well-known/oauth-protected-resource"),
        ("https://api.example.org/", "https://api.example.org/.well-known/oauth-protected-resource"),
        ("https://api.example.org/a/b", "https://api.example.org/.well-known/oauth-protected-resource/a/b"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/.well-known/oauth-protected-resource"),
    ],
)
def test_the_metadata_stands_where_rfc_9728_puts_it(resource: str, url: str) -> None:
    assert metadata_url(resource) == url
    assert url.endswith(metadata_path(resource))


def test_it_names_the_resource_and_its_issuers() -> None:
    issuers = [Issuer(issuer=f"https://{name}.example", audiences=frozenset({"x"})) for name in ("b", "a")]
    answer = metadata_answer("https://api.example.org", issuers)
    assert json.loads(bytes(answer.body)) == {
        "resource": "https://api.example.org",
        "authorization_servers": ["https://a.example", "https://b.example"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "ES384", "Ed25519", "PS256"],
        "tls_client_certificate_bound_access_tokens": False,
    }
    shown = metadata_answer("https://api.example.org", issuers, certificates=True)
    assert json.loads(bytes(shown.body))["tls_client_certificate_bound_access_tokens"] is True
    assert answer.headers["cache-control"] == "public, max-age=300"


def test_it_names_nobody_whom_clients_cannot_ask() -> None:
    domain = TrustDomain("partner.example")
    issuers = [
        Issuer(issuer="https://a.example", audiences=frozenset({"x"}), domain=domain),
        Issuer(issuer="https://ci.example", audiences=frozenset({"x"}), domain=domain, workloads=True),
        Issuer(issuer="https://b.example", audiences=frozenset(), domain=domain, assertion_audience="y"),
    ]
    said = json.loads(bytes(metadata_answer("https://api.example.org", issuers).body))
    assert said["authorization_servers"] == ["https://a.example"]


async def test_it_is_served_to_everybody() -> None:
    async with door(engine=ScriptedEngine()) as edge:
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/api"):
            answer = await edge.http.get(path)
            assert (answer.status_code, answer.json()["resource"]) == (200, AUDIENCE)
        posted = await edge.http.post(path)
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
