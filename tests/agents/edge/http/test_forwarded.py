"""Whose request it is, by what the known proxies say, and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.shop import Shop

from sealbus.agents.edge.http.forwarded import client_address
from sealbus.agents.edge.http.problem import EdgeError

PATH = "/v1/other"
LOGGER = "sealbus.agents.edge.http.application"


def fields(*values: str) -> Headers:
    return Headers(raw=[(b"x-forwarded-for", value.encode("latin-1")) for value in values])


@pytest.mark.parametrize(
    ("values", "proxies", "address"),
    [
        (["192.0.2.7"], 1, "192.0.2.7"),
        (["203.0.113.9, 192.0.2.7"], 1, "192.0.2.7"),
        (["203.0.113.9, 192.0.2.7"], 2, "203.0.113.9"),
        (["203.0.113.9,192.0.2.7", "10.0.0.1"], 2, "192.0.2.7"),
        (["10.0.0.9", "203.0.113.9", "192.0.2.7\t,\t10.0.0.1"], 3, "203.0.113.9"),
        (["192.0.2.7:4711"], 1, "192.0.2.7"),
        (["2001:db8::1"], 1, "2001:db8::1"),
        (["2001:DB8:0::1"], 1, "2001:db8::1"),
        (["[2001:db8::1]"], 1, "2001:db8::1"),
        (["[2001:db8::1]:443"], 1, "2001:db8::1"),
        (["::ffff:192.0.2.7"], 1, "::ffff:c000:207"),
        # What a client writes itself stands left of what counts, whatever it is.
        (["unknown, _hidden, <script>, , 192.0.2.7"], 1, "192.0.2.7"),
        (["9" * 20_000 + ",192.0.2.7"], 1, "192.0.2.7"),
        ([",,,,", "192.0.2.7"], 1, "192.0.2.7"),
    ],
)
def test_it_is_counted_from_the_right_over_all_fields(values: Sequence[str], proxies: int, address: str) -> None:
    assert ip_address(client_address(fields(*values), proxies)) == ip_address(address)


@pytest.mark.parametrize(
    ("values", "proxies"),
    [
        ([], 1),
        ([""], 1),
        (["192.0.2.7"], 2),
        (["192.0.2.7", "192.0.2.8"], 3),
        (["192.0.2.7,"], 1),
        (["192.0.2.7, ,192.0.2.8"], 3),
        (["unknown"], 1),
        (["unknown, 10.0.0.1"], 2),
        (["192.0.2.7, unknown"], 2),
        (["_hidden"], 1),
        (["localhost"], 1),
        (["192.0.2"], 1),
        (["192.0.2.256"], 1),
        (["192.0.2.07"], 1),
        (["192.0.2.7:"], 1),
        (["192.0.2.7:123456"], 1),
        (["192.0.2.7 192.0.2.8"], 1),
        (['"192.0.2.7"'], 1),
        (["for=192.0.2.7"], 1),
        (["[192.0.2.7"], 1),
        (["[2001:db8::1"], 1),
        (["2001:db8::1]"], 1),
        (["[2001:db8::1]x"], 1),
        (["2001:db8::1::2"], 1),
        (["fe80::1%eth0"], 1),
        (["\u00b2.0.2.7"], 1),
        (["192.0.2.7\x0b"], 1),
        (["192.0.2.0/24"], 1),
        (["0x7f000001"], 1),
        (["2130706433"], 1),
    ],
)
def test_a_request_that_did_not_come_through_the_proxies_is_refused(values: Sequence[str], proxies: int) -> None:
    with pytest.raises(EdgeError) as caught:
        client_address(fields(*values), proxies)
    assert (caught.value.status, caught.value.code) == (400, "malformed")


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=4), st.integers(1, 4))
def test_whatever_is_said_gives_an_address_or_is_refused(values: list[str], proxies: int) -> None:
    try:
        found = client_address(fields(*values), proxies)
    except EdgeError:
        return
    assert str(ip_address(found)) == found


@given(st.lists(st.ip_addresses(), min_size=1, max_size=5), st.text(st.characters(max_codepoint=255)))
def test_nothing_that_a_client_says_changes_what_the_proxies_say(addresses: list[object], said: str) -> None:
    told = ", ".join(map(str, addresses))
    assert client_address(fields(said, told), len(addresses)) == str(addresses[0])


async def _ask(edge: Door, *values: str, **others: str) -> int:
    said = [("X-Forwarded-For", value) for value in values]
    answer = await edge.http.get(PATH, headers=[*said, *others.items()])
    return answer.status_code


async def test_limits_and_the_log_go_by_the_client_and_not_by_the_proxy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=LOGGER)
    limits = {"address_rate": 0.001, "address_burst": 1}
    async with door(Shop().pricing, engine=ScriptedEngine(), limits=limits, proxies=1) as edge:
        assert await _ask(edge, "203.0.113.9, 192.0.2.7") == 404
        assert await _ask(edge, "203.0.113.8, 192.0.2.7:99") == 429
        assert await _ask(edge, "192.0.2.8") == 404
        # One network of IPv6 is one address, as without a proxy.
        assert await _ask(edge, "[2001:db8::1]:5") == 404
        assert await _ask(edge, "2001:db8::2") == 429
        assert await _ask(edge) == await _ask(edge, "junk") == 400
        refused = await edge.http.get(PATH, headers={"Forwarded": "for=192.0.2.9"})
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed")
    shown = [line.getMessage().partition(" ")[0] for line in caplog.records if line.name == LOGGER]
    assert shown == ["192.0.2.7", "192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8::2", *["127.0.0.1"] * 3]


async def test_without_proxies_nobody_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=LOGGER)
    limits = {"address_rate": 0.001, "address_burst": 1}
    async with door(Shop().pricing, engine=ScriptedEngine(), limits=limits) as edge:
        assert await _ask(edge, "192.0.2.7") == 404
        assert await _ask(edge, "192.0.2.8") == 429
    assert all("127.0.0.1 GET" in line.getMessage() for line in caplog.records if line.name == LOGGER)


async def test_what_is_said_of_scheme_and_host_goes_nowhere() -> None:
    said = {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "192.0.2.7"}
    async with door(Shop().inventory, engine=ScriptedEngine(), proxies=1) as edge:
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, headers=said)
        metadata = await edge.http.get("/.well-known/oauth-protected-resource", headers=said)
    assert answer.status_code == 202
    assert "evil" not in str(answer.headers) + answer.text + metadata.text
