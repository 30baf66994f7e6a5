"""The public client: what cannot be right is refused before anything is asked, and names its setting."""

from __future__ import annotations

from typing import Any

import pytest

from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.runtime.settings.schema import ClientTable
from sealbus.envelopes.errors import ConfigurationError

GOOD: dict[str, Any] = {"issuer": "https://idp.example/realms/shop", "client_id": "sealbus-cli"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", ""),
        ("issuer", "idp.example"),
        ("issuer", "http://idp.example"),
        ("issuer", "http://127.0.0.1.example"),
        ("issuer", "https://idp.example?x=1"),
        ("issuer", "https://idp.example#x"),
        ("issuer", "https://user@idp.example"),
        ("issuer", "https://idp.example\n"),
        ("client_id", ""),
        ("client_id", "a b"),
        ("client_id", "é"),
        ("client_id", "x" * 257),
        ("client_id", "x\n"),
        ("scope", " openid"),
        ("scope", "a  b"),
        ("scope", 'a"b'),
        ("scope", "a\nb"),
        ("resource", ""),
        ("resource", "api"),
        ("resource", "https://api.example/#x"),
        ("resource", "https://api.example/a b"),
        ("resource", "https://[x"),
        ("resource", "https://api.example/" + "x" * 2_048),
        ("redirect_uri", "https://127.0.0.1/callback"),
        ("redirect_uri", "http://192.0.2.1/callback"),
        ("redirect_uri", "http://127.0.0.1.example/callback"),
        ("redirect_uri", "http://127.0.0.1:0/callback"),
        ("redirect_uri", "http://127.0.0.1:65536/callback"),
        ("redirect_uri", "http://127.0.0.1/callback?x=1"),
        ("redirect_uri", "http://127.0.0.1/callback\n"),
    ],
)
def test_what_cannot_be_right_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{name} "):
        PublicClient(**{**GOOD, name: value})


@pytest.mark.parametrize(("name", "value"), [("acr", ""), ("acr", "a  b"), ("max_age", -1)])
def test_so_is_what_is_asked_of_a_login(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match="--" + name.replace("_", "-")):
        PublicClient(**{**GOOD, name: value})


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/callback", "http://[::1]:7777/", "http://localhost", "http://127.0.0.1:1/a/b"]
)
def test_a_redirect_uri_is_on_loopback(uri: str) -> None:
    assert PublicClient(**GOOD, redirect_uri=uri).redirect_uri == uri


def test_the_settings_name_it() -> None:
    table = ClientTable(issuer="http://127.0.0.1:5/x", client_id="cli", scope="", resource="urn:api")
    client = PublicClient.of(table, acr="urn:mfa", max_age=0)
    assert client.parameters == {"acr_values": "urn:mfa", "max_age": "0", "resource": "urn:api"}
    assert client.target == {"resource": "urn:api"}
    assert PublicClient(**GOOD).parameters == {"scope": "openid"}


@pytest.mark.parametrize("missing", ["issuer", "client_id"])
def test_what_the_settings_do_not_name_is_told(missing: str) -> None:
    table = ClientTable(**{**GOOD, missing: None})
    with pytest.raises(ConfigurationError, match=rf"client\.{missing} is not set"):
        PublicClient.of(table)
