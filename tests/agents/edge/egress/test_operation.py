"""Operations: what a request is of, and that no path has two readings."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.egress.operation import RESERVED, Operation
from sealbus.envelopes.errors import ConfigurationError

ONE = Operation.parse("GET /customers/{customer}")
TWO = Operation.parse("POST /customers/{customer}/notes/{note}")


def test_the_values_of_variables_are_decoded() -> None:
    assert ONE.match("GET", "/customers/acme") == {"customer": "acme"}
    assert ONE.match("GET", "/customers/caf%C3%A9%20one") == {"customer": "café one"}
    assert TWO.match("POST", "/customers/a-b/notes/7") == {"customer": "a-b", "note": "7"}
    assert str(TWO) == "POST /customers/{customer}/notes/{note}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/customers/acme"),
        ("get", "/customers/acme"),
        ("GETS", "/customers/acme"),
        ("GE", "/customers/acme"),
        ("GET", "/customers2/acme"),
        ("GET", "/customer/acme"),
        ("GET", "/customers"),
        ("GET", "/customers/"),
        ("GET", "/customers/acme/"),
        ("GET", "/customers/acme/notes"),
        ("GET", "//customers/acme"),
        ("GET", "customers/acme"),
        ("GET", "/Customers/acme"),
        ("GET", "/customer%73/acme"),
        ("GET", "/customers/."),
        ("GET", "/customers/.."),
        ("GET", "/customers/%2e%2e"),
        ("GET", "/customers/%2E"),
        ("GET", "/customers/a%2Fb"),
        ("GET", "/customers/a%5cb"),
        ("GET", "/customers/a\\b"),
        ("GET", "/customers/a%252e"),
        ("GET", "/customers/a;admin=1"),
        ("GET", "/customers/a%3Badmin"),
        ("GET", "/customers/a%00"),
        ("GET", "/customers/a%0d%0aX: y"),
        ("GET", "/customers/a%3fq"),
        ("GET", "/customers/a%23"),
        ("GET", "/customers/a?q"),
        ("GET", "/customers/a b"),
        ("GET", "/customers/é"),
        ("GET", "/customers/%ff"),
        ("GET", "/customers/%c0%ae"),
        ("GET", "/customers/%"),
        ("GET", "/customers/%4"),
        *(("GET", f"/customers/a%{ord(one):02x}") for one in f"{string.ascii_letters}{string.digits}-._~"),
        ("GET", "/customers/%5Fa"),
        ("GET", f"/customers/{'a' * 257}"),
        ("GET", f"/customers/{'%c3%a9' * 43}"),
        ("GET", "/customers/%7f"),
        ("GET", "/customers/\n"),
    ],
)
def test_a_request_of_no_operation(method: str, path: str) -> None:
    assert ONE.match(method, path) is None


@pytest.mark.parametrize("value", ["...", "..a", ".a", "a..", "a.b"])
def test_dots_that_are_no_steps(value: str) -> None:
    assert ONE.match("GET", f"/customers/{value}") == {"customer": value}


def test_the_longest_value() -> None:
    assert ONE.match("GET", f"/customers/{'a' * 256}") is not None


@given(st.text(string.printable, max_size=40))
def test_what_matches_is_one_segment_in_every_reading(text: str) -> None:
    found = ONE.match("GET", f"/customers/{text}")
    if found is None:
        return
    value = found["customer"]
    assert not set(value) & set("/\\%;?#\r\n\0")
    assert value not in {"", ".", ".."}
    assert "/" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "GET customers",
        "get /customers",
        "TRACE /customers",
        "GETS /customers",
        "GE /customers",
        "CONNECT /customers",
        "GET  /customers",
        "GET /customers//{id}",
        "GET /customers/{}",
        "GET /customers/{Id}",
        "GET /customers/x{id}",
        "GET /customers/../x",
        "GET /./x",
        "GET /customers/{id}/{id}",
        "GET /a%2fb",
        "GET /a?b",
        *(f"GET /{{{name}}}" for name in sorted(RESERVED)),
    ],
)
def test_what_is_no_operation(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Operation.parse(text)


def test_a_root_and_a_slash_at_the_end_are_paths_of_their_own() -> None:
    assert Operation.parse("GET /").match("GET", "/") == {}
    assert Operation.parse("GET /customers/").match("GET", "/customers/") == {}
    assert Operation.parse("GET /customers/").match("GET", "/customers") is None


@pytest.mark.parametrize("value", [chr(n) for n in range(0x20, 0x7F) if chr(n) not in "/\\%;?#"])
def test_what_has_to_be_encoded_may_be(value: str) -> None:
    assert ONE.match("GET", f"/customers/a{quote(value, safe='')}") == {"customer": f"a{value}"}
