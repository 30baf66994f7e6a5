from __future__ import annotations

import pytest

from sealbus.agents.dev.idp.registry import CODE, DEMO_CLIENTS, SCRIPTS, DevClient, script_client, valid_scope

NATIVE = DEMO_CLIENTS[0]
WEB = DevClient(client_id="web", redirect_uris=("https://app.example/back?x=1", "http://127.0.0.1:9000/fixed"))


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/callback", "http://127.0.0.1:1/callback", "http://[::1]:65535/callback"]
)
def test_a_loopback_redirect_may_have_any_port(uri: str) -> None:
    assert NATIVE.check_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://127.0.0.1:7777/callback/",
        "http://127.0.0.1:7777/callback?x",
        "http://127.0.0.1:7777/callback#x",
        "http://127.0.0.1:7777/Callback",
        "http://127.0.0.1:7777/x/../callback",
        "https://127.0.0.1:7777/callback",
        "HTTP://127.0.0.1:7777/callback",
        "http://localhost:7777/callback",
        "http://127.0.0.1.evil.example:7777/callback",
        "http://127.0.0.1:7777@evil.example/callback",
        "http://evil.example@127.0.0.1:7777/callback",
        "http://127.0.0.1:07777/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:x/callback",
        "http://[::1/callback",
        "http://0177.0.0.1:7777/callback",
        "http://127.1:7777/callback",
        "http://127.0.0.1:7777\\@evil.example/callback",
        "javascript:alert(1)",
    ],
)
def test_any_other_difference_is_another_place(uri: str) -> None:
    assert not NATIVE.check_redirect_uri(uri)


def test_only_a_loopback_port_is_free() -> None:
    assert WEB.check_redirect_uri("https://app.example/back?x=1")
    assert not WEB.check_redirect_uri("https://app.example:444/back?x=1")
    assert not WEB.check_redirect_uri("https://app.example/back")
    assert WEB.check_redirect_uri("http://127.0.0.1:9000/fixed")
    assert not WEB.check_redirect_uri("http://127.0.0.1:9001/fixed")


def test_a_secret_is_needed_where_there_is_one() -> None:
    client = script_client("s" * 43)
    assert client.check_client_secret("s" * 43)
    assert not client.check_client_secret("s" * 42)
    assert not NATIVE.check_client_secret("")
    assert "sss" not in repr(client)
    assert client.check_endpoint_auth_method("client_secret_basic", "token")
    assert not client.check_endpoint_auth_method("none", "token")
    assert not NATIVE.check_endpoint_auth_method("client_secret_basic", "token")


def test_the_grant_of_scripts_is_for_scripts_alone() -> None:
    assert not any(client.check_grant_type(SCRIPTS) for client in DEMO_CLIENTS)
    assert script_client("s").grants == {SCRIPTS}
    assert not script_client("s").check_response_type("code")
    assert not any(client.check_grant_type("refresh_token") for client in DEMO_CLIENTS)
    assert not NATIVE.check_response_type("token")
    assert CODE in NATIVE.grants


@pytest.mark.parametrize(
    ("scope", "valid"),
    [
        ("", True),
        ("a", True),
        ("a b:c/d", True),
        ("a  b", False),
        (" a", False),
        ("a\tb", False),
        ('"', False),
        ("x " * 33, False),
        ("x" * 65, False),
    ],
)
def test_a_scope_is_a_list_of_tokens(scope: str, valid: bool) -> None:
    assert valid_scope(scope) is valid
    assert NATIVE.get_allowed_scope(scope) == (scope if valid else None)
