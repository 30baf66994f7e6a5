"""Requests of a NATS server: verified and typed, or refused with a code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.auth_request import AskingServer

from sealbus.agents.control.callout.nkeys import Prefix, SigningKey
from sealbus.agents.control.callout.protocol import CERTIFICATES, CHAINS, AuthorizationRequest, verify_request
from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.limits import SECOND

NOW = 1_700_000_000 * SECOND
SERVER = AskingServer()


def refused(token: bytes, *, now: int = NOW, servers: tuple[str, ...] = ()) -> Code:
    with pytest.raises(ConnectRefused) as caught:
        verify_request(token, now=now, servers=servers)
    return caught.value.code


def test_a_request_is_typed() -> None:
    request = verify_request(SERVER.request(SERVER.claims([["leaf", "root"]])), now=NOW, servers=[SERVER.key.public])
    assert (request.server, request.server_name, request.server_xkey) == (SERVER.key.public, "n1", SERVER.xkey.public)
    assert (request.user, request.chains) == (SERVER.user, (("leaf", "root"),))
    assert (request.expires, request.timeout) == (1_700_000_002, 2)
    assert verify_request(SERVER.request(SERVER.claims([["leaf"]])), now=NOW).chains == (("leaf",),)


@pytest.mark.parametrize(("issued", "timeout"), [(1_699_999_962, 40), (1_600_000_000, 120), (1_700_000_003, 0)])
def test_a_server_says_how_long_it_waits(issued: int, timeout: int) -> None:
    assert verify_request(SERVER.request(SERVER.claims(), issued=issued), now=NOW).timeout == timeout


def test_a_client_without_a_certificate_has_no_chains() -> None:
    claims = SERVER.claims()
    assert verify_request(SERVER.request(claims), now=NOW).chains == ()
    del claims["nats"]["client_tls"]
    assert verify_request(SERVER.request(claims), now=NOW).chains == ()


def test_a_server_that_is_not_listed() -> None:
    assert refused(SERVER.request(SERVER.claims()), servers=(AskingServer().key.public,)) is Code.UNKNOWN_SERVER


@pytest.mark.parametrize(
    "near",
    [SERVER.key.public[:-1], SERVER.key.public + "A", SERVER.key.public.lower()],
    ids=["shorter", "longer", "in small letters"],
)
def test_a_server_that_is_nearly_listed(near: str) -> None:
    assert refused(SERVER.request(SERVER.claims()), servers=(near,)) is Code.UNKNOWN_SERVER


def test_as_many_chains_and_certificates_as_may_be() -> None:
    claims = SERVER.claims([["x"] * CERTIFICATES] * CHAINS)
    assert verify_request(SERVER.request(claims), now=NOW).chains == (("x",) * CERTIFICATES,) * CHAINS


def test_a_request_in_anothers_name() -> None:
    other = AskingServer()
    assert refused(other.request(SERVER.claims())) is Code.BAD_AUTH_REQUEST


@pytest.mark.parametrize("late", [6, 60, 3_600])
def test_an_expired_request(late: int) -> None:
    token = SERVER.request(SERVER.claims(expires=1_700_000_000 - late))
    assert refused(token) is Code.AUTH_REQUEST_EXPIRED


def test_clocks_may_differ_a_little() -> None:
    verify_request(SERVER.request(SERVER.claims(expires=1_700_000_000 - 5)), now=NOW)


def test_a_request_that_could_be_kept() -> None:
    verify_request(SERVER.request(SERVER.claims(expires=1_700_000_125)), now=NOW)
    assert refused(SERVER.request(SERVER.claims(expires=1_700_000_126))) is Code.BAD_AUTH_REQUEST


@pytest.mark.parametrize("kind", ["Leafnode", "Router", "", "client", "Clients", "Clien"])
def test_what_is_no_client(kind: str) -> None:
    claims = SERVER.claims([["leaf", "root"]])
    claims["nats"]["client_info"]["kind"] = kind
    assert refused(SERVER.request(claims)) is Code.BAD_AUTH_REQUEST


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(aud="nats"),
        lambda one: one.update(aud=one["aud"].upper()),
        lambda one: one.update(aud=one["aud"] + "s"),
        lambda one: one["nats"].update(type="authorization_requests"),
        lambda one: one["nats"].update(type="authorization"),
        lambda one: one["nats"].update(type="Authorization_Request"),
        lambda one: one["nats"]["server_id"].update(id=SERVER.key.public[:-1]),
        lambda one: one["nats"]["server_id"].update(id=SERVER.key.public.lower()),
        lambda one: one.pop("aud"),
        lambda one: one.pop("exp"),
        lambda one: one.update(exp="soon"),
        lambda one: one.update(exp=True),
        lambda one: one.pop("nats"),
        lambda one: one.update(nats=[]),
        lambda one: one["nats"].update(type="user"),
        lambda one: one["nats"].update(server_id="N"),
        lambda one: one["nats"].pop("server_id"),
        lambda one: one["nats"].pop("user_nkey"),
        lambda one: one["nats"].update(user_nkey=1),
        lambda one: one["nats"].update(user_nkey=SigningKey.generate(Prefix.ACCOUNT).public),
        lambda one: one["nats"]["server_id"].update(xkey="X"),
        lambda one: one["nats"].update(client_info=1),
        lambda one: one["nats"].update(client_tls={"verified_chains": "x"}),
        lambda one: one["nats"].update(client_tls={"verified_chains": [["x"]] * (CHAINS + 1)}),
        lambda one: one["nats"].update(client_tls={"verified_chains": [[]]}),
        lambda one: one["nats"].update(client_tls={"verified_chains": ["x"]}),
        lambda one: one["nats"].update(client_tls={"verified_chains": [[1]]}),
        lambda one: one["nats"].update(client_tls={"verified_chains": [["x"] * (CERTIFICATES + 1)]}),
    ],
)
def test_what_is_no_request(change: Change) -> None:
    claims = SERVER.claims([["leaf", "root"]])
    change(claims)
    assert refused(SERVER.request(claims)) is Code.BAD_AUTH_REQUEST


def test_what_is_no_jwt() -> None:
    assert refused(b"x") is Code.BAD_AUTH_REQUEST


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("server_id", "user_nkey", "client_info", "client_tls", "type")


@given(st.sampled_from(FIELDS), JSON)
def test_whatever_a_server_signs_is_a_request_or_one_error(name: str, value: object) -> None:
    claims = SERVER.claims([["leaf", "root"]])
    claims["nats"][name] = value
    with contextlib.suppress(ConnectRefused):
        assert isinstance(verify_request(SERVER.request(claims), now=NOW), AuthorizationRequest)
