"""Login by a code on another device: what is shown, how often is asked, and how each answer ends it (RFC 8628)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.envelopes import NOW
from support.issuer import TRUSTS_NOBODY
from support.scripted_provider import SECRETS, ScriptedProvider, given

from sealbus.agents.login.device_flow import DeviceCode, by_device
from sealbus.agents.login.provider import LoginFailed, open_provider
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.envelopes.limits import SECOND

PENDING = {"error": "authorization_pending"}


def codes(**changed: Any) -> dict[str, Any]:
    good = {
        "device_code": SECRETS["device"],
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://idp.example/device",
        "verification_uri_complete": "https://idp.example/device?user_code=WDJB-MJHT",
        "expires_in": 600,
        "interval": 5,
        **changed,
    }
    return {name: value for name, value in good.items() if value is not None}


class Person:
    """Waits as the flow says, in no time, and reads what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.pauses: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def clock(self) -> int:
        return NOW + int(sum(self.pauses) * SECOND)


@pytest.fixture
async def idp() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as idp:
        yield idp


async def log_in(idp: ScriptedProvider, person: Person, **asked: Any) -> Tokens:
    client = PublicClient(issuer=idp.issuer, client_id="cli", **asked)
    async with open_provider(client, tls=TRUSTS_NOBODY) as provider:
        return await by_device(provider, person.lines.append, clock=person.clock, pause=person.pause)


async def test_a_person_types_the_code_and_is_logged_in(idp: ScriptedProvider) -> None:
    person = Person()
    idp.says("/device", codes())
    idp.says("/token", PENDING, 400)
    idp.says("/token", given())
    tokens = await log_in(idp, person, scope="openid read", resource="https://api.example", max_age=60)
    assert (tokens.access_token, tokens.expires) == (SECRETS["access"], NOW + 610 * SECOND)
    target = {"client_id": "cli", "resource": "https://api.example"}
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": SECRETS["device"]}
    assert idp.fields("/device") == [{**target, "scope": "openid read", "max_age": "60"}]
    assert idp.fields("/token") == [{**target, **grant}] * 2
    assert person.pauses == [5, 5]
    assert person.lines == [
        "On any device, open https://idp.example/device and type the code WDJB-MJHT",
        "or open https://idp.example/device?user_code=WDJB-MJHT and go on only if it shows that code.",
        "Waiting for you, 10 min at most.",
    ]


async def test_who_is_told_to_slow_down_does_so_for_good(idp: ScriptedProvider) -> None:
    person = Person()
    idp.says("/device", codes(interval=None))
    for answer in ({"error": "slow_down"}, PENDING, {"error": "slow_down"}):
        idp.says("/token", answer, 400)
    idp.says("/token", given())
    await log_in(idp, person)
    assert person.pauses == [5, 10, 10, 15]
    assert "Asked too often: from now on every 15 s." in person.lines


async def test_a_provider_that_cannot_answer_is_asked_less_and_less(idp: ScriptedProvider) -> None:
    person = Person()
    idp.says("/device", codes())
    for _ in range(5):
        idp.says("/token", b"", 503)
    idp.says("/token", given())
    await log_in(idp, person)
    assert person.pauses == [5, 10, 20, 40, 60, 60]
    assert sum("asking again in" in line for line in person.lines) == 5


async def test_what_nobody_answers_ends_with_the_code(idp: ScriptedProvider) -> None:
    person = Person()
    idp.says("/device", codes(expires_in=20))
    for _ in range(3):
        idp.says("/token", PENDING, 400)
    with pytest.raises(LoginFailed, match=r"expired before you logged in.*run `sealbus login` again"):
        await log_in(idp, person)
    assert person.pauses == [5] * 4
    assert len(idp.fields("/token")) == 3


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "refused on its page"),
        ("expired_token", "run `sealbus login` again"),
        ("invalid_grant", "run `sealbus login` again"),
        ("invalid_client", r"check client\.client_id"),
        ("something_else", "something_else"),
    ],
)
async def test_a_refusal_ends_it_and_says_what_to_do(error: str, told: str, idp: ScriptedProvider) -> None:
    idp.says("/device", codes())
    idp.says("/token", {"error": error, "error_description": SECRETS["device"]}, 400)
    with pytest.raises(LoginFailed, match=told) as caught:
        await log_in(idp, Person())
    assert "nobody-may-see" not in str(caught.value)
    assert len(idp.fields("/token")) == 1


@pytest.mark.parametrize(
    ("error", "told"), [("invalid_scope", r"client\.scope"), ("invalid_target", r"client\.resource")]
)
async def test_what_it_does_not_give_is_told_before_anybody_types(error: str, told: str, idp: ScriptedProvider) -> None:
    idp.says("/device", {"error": error}, 400)
    person = Person()
    with pytest.raises(LoginFailed, match=told):
        await log_in(idp, person)
    assert person.lines == []


async def test_a_provider_without_it_is_told() -> None:
    async with ScriptedProvider(device_authorization_endpoint=None) as idp:
        with pytest.raises(LoginFailed, match="--browser"):
            await log_in(idp, Person())


@pytest.mark.parametrize(
    "changed",
    [
        {"device_code": None},
        {"device_code": ""},
        {"device_code": 1},
        {"user_code": None},
        {"user_code": ""},
        {"user_code": " A"},
        {"user_code": "A\nOpen https://evil.example"},
        {"user_code": "\x1b[2J"},
        {"user_code": "\u202eTHJM"},
        {"user_code": "X" * 65},
        {"verification_uri": None},
        {"verification_uri": "http://idp.example/device"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://idp.example/\x1b[2J"},
        {"verification_uri": "https://idp.example/" + "x" * 2_048},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": "600"},
        {"expires_in": True},
        {"interval": -1},
        {"interval": "5"},
    ],
)
async def test_what_cannot_be_shown_or_waited_for_is_refused(changed: dict[str, Any], idp: ScriptedProvider) -> None:
    person = Person()
    idp.says("/device", codes(**changed))
    with pytest.raises(LoginFailed) as caught:
        await log_in(idp, person)
    assert "nobody-may-see" not in str(caught.value)
    assert (person.lines, person.pauses) == ([], [])


@pytest.mark.parametrize("page", ["http://evil.example/", "https://idp.example/\u202e", 1])
def test_a_strange_page_with_the_code_in_it_is_not_shown(page: object) -> None:
    assert DeviceCode.parse(codes(verification_uri_complete=page), "https://idp.example").page_with_code is None


def test_times_are_bounded_and_the_code_is_not_shown() -> None:
    code = DeviceCode.parse(codes(expires_in=10**9, interval=10**9), "https://idp.example")
    assert (code.expires_in, code.interval) == (1_800, 60)
    assert DeviceCode.parse(codes(interval=0), "https://idp.example").interval == 1
    assert "nobody-may-see" not in repr(code)


def test_only_an_issuer_on_loopback_may_show_a_plain_page() -> None:
    plain = codes(verification_uri="http://127.0.0.1:1/device")
    assert DeviceCode.parse(plain, "http://127.0.0.1:1").page == "http://127.0.0.1:1/device"
    with pytest.raises(LoginFailed):
        DeviceCode.parse(plain, "https://idp.example")
