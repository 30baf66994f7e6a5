"""The search that other tests rely on finds a secret in each form in which one travels, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.secret_search import Group, Kept, Place, Secret, search

SURROUNDED = st.tuples(st.binary(max_size=7), st.binary(min_size=8, max_size=80), st.binary(max_size=7))

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "url-quoted": lambda value: quote(value, safe="").encode(),
    "hex": lambda value: value.hex().encode(),
    "HEX": lambda value: value.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base64url without padding": lambda value: base64.urlsafe_b64encode(value).rstrip(b"="),
    "base64 in JSON in base64": lambda value: base64.b64encode(
        json.dumps({"inner": base64.b64encode(value).decode()}).encode()
    ),
    "hex in JSON in base64url": lambda value: base64.urlsafe_b64encode(json.dumps({"inner": value.hex()}).encode()),
}


def found(value: bytes, content: bytes) -> bool:
    return bool(search([Secret("it", Kept.SECRET, value)], [Place(Group.LOGS, "here", content)]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(parts=SURROUNDED)
def test_what_is_there_is_found(encoding: str, parts: tuple[bytes, bytes, bytes]) -> None:
    before, value, after = parts
    assert found(value, b"GET /?code=" + ENCODINGS[encoding](before + value + after) + b" 200")


@given(value=st.binary(min_size=12, max_size=40), other=st.binary(max_size=200))
def test_what_is_not_there_is_not_found(value: bytes, other: bytes) -> None:
    if value not in other:
        assert not found(value, other)


def test_each_place_is_searched_for_what_must_not_be_in_it() -> None:
    body = Secret("body", Kept.BODY, b"a body of somebody")
    places = [Place(group, "", body.value) for group in Group]
    allowed = {Group.MESSAGES, Group.REFUSALS, Group.ERRORS}
    assert {one.group for one in search([body], places)} == set(Group) - allowed


def test_a_finding_does_not_show_the_secret() -> None:
    secret = Secret("key", Kept.SECRET, b"0123456789abcdef")
    said = repr((secret, search([secret], [Place(Group.LOGS, "here", secret.value)])))
    assert "0123456789abcdef" not in said
