"""What an API is shown: keys that are replaced, and tokens that are got once for each user, and kept while they live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from support.egress import ScriptedApi, answered
from support.issuer import TRUSTS_NOBODY
from support.scripted_provider import ENDLESS, ScriptedProvider

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.edge.egress import credential
from sealbus.agents.edge.egress.credential import (
    LEAST_SECONDS,
    MOST_SECONDS,
    UNSAID_SECONDS,
    ApiKey,
    AssertionGrant,
    AuthorizationServer,
    ClientGrant,
    ExchangeGrant,
    Grant,
    IssuedTokens,
    Target,
)
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.client_authentication import (
    ClientAuthentication,
    ClientSecret,
    JwtSvidClient,
    PrivateKeyJwt,
)
from sealbus.agents.edge.oauth.keys.discovery import Documents
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens, Owner
from sealbus.bus.routing.retry import Reject
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable, SealbusError
from sealbus.envelopes.message.user_context import SubjectType, UserContext, parse_payload
from sealbus.testing import TestBus

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
IDP = "https://idp.example"
SECRET = ClientSecret("the-exit", "s3cret")


class Clock:
    """A clock that a test puts forward."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


def user(subject: str = "alice", *, idp: str = IDP, session: str = "s-1") -> UserContext:
    bus = TestBus(clock=lambda: NOW)
    made = parse_payload(bus.user(subject, "shop-web", session=session).payload)
    assert made.idp
    return made if idp == IDP and made.idp == IDP else _of(made, idp)


def _of(made: UserContext, idp: str) -> UserContext:
    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    return UserContext(**{**fields, "idp": idp})


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def documents() -> AsyncIterator[Documents]:
    async with Documents(DEFAULT_EDGE_LIMITS, TRUSTS_NOBODY) as documents:
        yield documents


def tokens(
    provider: ScriptedProvider,
    documents: Documents,
    grant: Grant | None = None,
    *,
    client: ClientAuthentication = SECRET,
    clock: Clock | None = None,
    target: Target | None = None,
    **server: Any,
) -> IssuedTokens:
    at = AuthorizationServer(provider.issuer, client, documents, **server)
    return IssuedTokens(at, grant or ClientGrant(), target or Target(), clock=clock or Clock())


def issued(name: str = "token-1", **changes: Any) -> dict[str, Any]:
    said = {"access_token": name, "token_type": "Bearer", "expires_in": 600, **changes}
    return {name: value for name, value in said.items() if value is not None}


async def test_the_exit_for_itself(provider: ScriptedProvider, documents: Documents) -> None:
    provider.says("/token", issued())
    made = tokens(
        provider, documents, target=Target(audience="crm", resource="https://crm.example", scope="read write")
    )
    assert await made.secret(user()) == "token-1"
    assert await made.secret(user("bob")) == "token-1"
    assert await made.secret(None) == "token-1"
    assert made.fields("token-1") == {"Authorization": "Bearer token-1"}
    assert provider.fields("/token") == [
        {
            "grant_type": "client_credentials",
            "audience": "crm",
            "resource": "https://crm.example",
            "scope": "read write",
        }
    ]


async def test_a_token_is_got_anew_before_it_ends(provider: ScriptedProvider, documents: Documents) -> None:
    clock = Clock()
    provider.says("/token", issued("one", expires_in=60))
    provider.says("/token", issued("two", expires_in=None))
    provider.says("/token", issued("three", expires_in=10**9))
    provider.says("/token", issued("four"))
    made = tokens(provider, documents, clock=clock)
    assert await made.secret(None) == "one"
    clock.now = NOW + (60 - LEAST_SECONDS) * SECOND - 1
    assert await made.secret(None) == "one"
    clock.now += 1
    assert await made.secret(None) == "two"
    clock.now += (UNSAID_SECONDS - LEAST_SECONDS) * SECOND
    assert await made.secret(None) == "three"
    clock.now += (MOST_SECONDS - LEAST_SECONDS) * SECOND - 1
    assert await made.secret(None) == "three"
    clock.now += 1
    assert await made.secret(None) == "four"


async def test_a_token_that_ends_at_once_is_used_once(provider: ScriptedProvider, documents: Documents) -> None:
    provider.says("/token", issued("one", expires_in=0))
    provider.says("/token", issued("two"))
    made = tokens(provider, documents)
    assert [await made.secret(None), await made.secret(None)] == ["one", "two"]


async def test_metadata_are_read_again_after_an_hour(provider: ScriptedProvider, documents: Documents) -> None:
    clock, hour = Clock(), DEFAULT_EDGE_LIMITS.metadata_seconds * SECOND
    made = tokens(provider, documents, clock=clock)
    provider.says("/token", issued("one", expires_in=0))
    provider.says("/token", issued("two", expires_in=0))
    provider.says("/moved", issued("three"))
    assert await made.secret(None) == "one"
    provider.more["token_endpoint"] = f"{provider.issuer}/moved"
    clock.now = NOW + hour - 1
    assert await made.secret(None) == "two"
    clock.now = NOW + hour
    assert await made.secret(None) == "three"


async def test_whoever_needs_the_same_token_waits_for_one_request(
    provider: ScriptedProvider, documents: Documents
) -> None:
    go = asyncio.Event()
    provider.says("/token", issued(), after=go)
    made = tokens(provider, documents)
    waiting = [asyncio.ensure_future(made.secret(None)) for _ in range(10)]
    await provider.asked.wait()
    waiting[0].cancel()
    go.set()
    assert set(await asyncio.gather(*waiting[1:])) == {"token-1"}
    assert len(provider.forms) == 1


async def test_what_the_api_did_not_accept_is_forgotten(provider: ScriptedProvider, documents: Documents) -> None:
    provider.says("/token", issued("one"))
    provider.says("/token", issued("two"))
    made = tokens(provider, documents)
    assert await made.secret(None) == "one"
    assert made.forget(user(), "one")
    assert await made.secret(None) == "two"


async def test_what_took_its_place_meanwhile_is_kept(provider: ScriptedProvider, documents: Documents) -> None:
    go = asyncio.Event()
    provider.says("/token", issued("one"))
    provider.says("/token", issued("two"), after=go)
    made = tokens(provider, documents)
    await made.secret(None)
    # Three requests were refused with the same token: one after the other they hear of it.
    assert made.forget(None, "one")
    renewing = asyncio.ensure_future(made.secret(None))
    await asyncio.sleep(0)
    assert made.forget(None, "one")
    go.set()
    assert await renewing == "two"
    for other in ("one", "tw", "two2", "twp", "TWO"):
        assert made.forget(None, other)
    assert await made.secret(None) == "two"
    assert len(provider.forms) == 2


async def test_an_assertion_about_the_user(provider: ScriptedProvider, documents: Documents) -> None:
    key = ECKey.generate_key("P-256", private=True)
    client = PrivateKeyJwt("the-exit", key)
    provider.says("/token", issued("alices"))
    provider.says("/token", issued("bobs"))
    clock = Clock()
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), client), client=client, clock=clock)
    assert await made.secret(user()) == "alices"
    assert await made.secret(user("bob")) == "bobs"
    assert await made.secret(user()) == "alices"
    first, second = provider.fields("/token")
    assert first["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    said = [jwt.decode(form["assertion"], key, algorithms=["ES256"]).claims for form in (first, second)]
    assert [(one["iss"], one["sub"], one["aud"]) for one in said] == [
        ("the-exit", "alice", provider.issuer),
        ("the-exit", "bob", provider.issuer),
    ]
    assert (said[0]["iat"], said[0]["exp"]) == (NOW // SECOND, NOW // SECOND + 60)
    assert len({one["jti"] for one in said}) == 2
    authenticated = jwt.decode(first["client_assertion"], key, algorithms=["ES256"]).claims
    assert authenticated["sub"] == "the-exit"


@pytest.mark.parametrize(
    "who",
    [
        None,
        user(idp="https://other.example"),
        user(idp=f"{IDP}/x"),
        user(idp=IDP[:-1]),
        user(idp="https://IDP.example"),
    ],
)
async def test_users_of_other_issuers_are_not_spoken_for(
    provider: ScriptedProvider, documents: Documents, who: UserContext | None
) -> None:
    key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), key))
    with pytest.raises(Reject) as refused:
        await made.secret(who)
    assert refused.value.code == "user_required"
    assert provider.forms == []


async def test_a_client_is_not_spoken_for_as_a_user(provider: ScriptedProvider, documents: Documents) -> None:
    key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), key))
    client = TestBus(clock=lambda: NOW).user("alice", "shop-web", typ=SubjectType.CLIENT)
    with pytest.raises(Reject) as refused:
        await made.secret(_of(parse_payload(client.payload), IDP))
    assert refused.value.code == "user_required"
    assert provider.forms == []


async def test_a_user_who_is_called_as_the_client_is_not_spoken_for(
    provider: ScriptedProvider, documents: Documents
) -> None:
    key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), key), client=key)
    with pytest.raises(Reject) as refused:
        await made.secret(user("the-exit"))
    assert refused.value.code == "user_required"
    assert provider.forms == []
    for other in ("the-exits", "the-exi", "the-exiu", "The-Exit"):
        provider.says("/token", issued())
        assert await made.secret(user(other)) == "token-1"


def test_a_grant_for_users_names_their_issuers() -> None:
    with pytest.raises(ConfigurationError, match="users is empty"):
        AssertionGrant(frozenset(), PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True)))


async def test_the_users_own_token_is_exchanged(provider: ScriptedProvider, documents: Documents) -> None:
    broker = MemoryBroker(lambda: NOW)
    broker.add_stream(STATE, ["state.>"], max_bytes=1 << 20)
    kept = KeptTokens(bytes(32), KeyValue(broker.connect()), edge="edge")
    made = tokens(provider, documents, ExchangeGrant(frozenset({IDP}), kept), target=Target(audience="crm"))
    alice = user()
    await kept.keep("alices-own", Owner.of(alice), expires=NOW + SECOND, now=NOW)
    provider.says("/token", issued("exchanged", issued_token_type="urn:ietf:params:oauth:token-type:access_token"))
    assert await made.secret(alice) == "exchanged"
    kind = "urn:ietf:params:oauth:token-type:access_token"
    assert provider.fields("/token") == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "alices-own",
            "subject_token_type": kind,
            "requested_token_type": kind,
            "audience": "crm",
        }
    ]
    for other in (user("bob"), user(session="s-2")):
        with pytest.raises(Reject) as refused:
            await made.secret(other)
        assert refused.value.code == "user_login_required"


async def test_a_jwt_svid_for_the_issuer_alone(provider: ScriptedProvider, documents: Documents) -> None:
    asked: list[str] = []

    async def fetch(audience: str) -> str:
        asked.append(audience)
        return "an-svid"

    provider.says("/token", issued())
    await tokens(provider, documents, client=JwtSvidClient("the-exit", fetch)).secret(None)
    assert asked == [provider.issuer]
    assert provider.fields("/token") == [
        {
            "grant_type": "client_credentials",
            "client_id": "the-exit",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
            "client_assertion": "an-svid",
        }
    ]


@pytest.mark.parametrize("lost", [IdentityUnavailable("no JWT-SVID"), BusUnavailable("not connected")])
async def test_an_exit_that_cannot_ask(
    provider: ScriptedProvider, documents: Documents, lost: SealbusError, caplog: pytest.LogCaptureFixture
) -> None:
    failing: list[SealbusError] = [lost]

    async def fetch(_: str) -> str:
        if failing:
            raise failing.pop()
        return "an-svid"

    provider.says("/token", issued())
    made = tokens(provider, documents, client=JwtSvidClient("the-exit", fetch))
    with pytest.raises(Reject) as refused:
        await made.secret(None)
    assert (refused.value.code, provider.forms) == ("token_unavailable", [])
    assert lost.detail in caplog.text
    assert await made.secret(None) == "token-1"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, b"[]"),
        (200, b"not json"),
        (200, ENDLESS),
        (200, {}),
        (200, issued(access_token=None)),
        (200, issued(access_token="")),
        (200, issued(access_token="with blank")),
        (200, issued(access_token="a\r\nX: y")),
        (200, issued(access_token=7)),
        (200, issued(token_type=None)),
        (200, issued(token_type="DPoP")),
        (200, issued(token_type="bearers")),
        (200, issued(token_type="bear")),
        (200, issued(token_type=["Bearer"])),
        (200, issued(expires_in="600")),
        (200, issued(expires_in=-1)),
        (200, issued(expires_in=True)),
        (302, b"{}"),
        (400, {"error": "invalid_client"}),
        (401, {"error": "invalid_client"}),
        (400, {"error": "invalid_grant"}),
        (400, {"error": "x" * 65}),
        (400, {"error": ["invalid_grant"]}),
        (500, b"{}"),
        (503, b""),
    ],
)
async def test_servers_that_give_no_token(
    provider: ScriptedProvider, documents: Documents, status: int, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider.says("/token", answer, status)
    provider.says("/token", issued())
    made = tokens(provider, documents)
    with pytest.raises(Reject) as refused:
        await made.secret(None)
    assert refused.value.code == "token_unavailable"
    assert "gave no token" in caplog.text
    assert "x" * 65 not in caplog.text
    assert await made.secret(None) == "token-1"


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("invalid_grant", "user_login_required"),
        ("invalid_token", "user_login_required"),
        ("invalid_request", "user_login_required"),
        ("invalid_client", "token_unavailable"),
        ("invalid_grants", "token_unavailable"),
        ("invalid", "token_unavailable"),
        ("temporarily_unavailable", "token_unavailable"),
    ],
)
async def test_a_server_that_does_not_take_the_user(
    provider: ScriptedProvider, documents: Documents, word: str, code: str
) -> None:
    key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
    provider.says("/token", {"error": word}, 400)
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), key), client=key)
    with pytest.raises(Reject) as refused:
        await made.secret(user())
    assert refused.value.code == code


@pytest.mark.parametrize("error", [BusUnavailable("stopped"), IdentityUnavailable("no SVID")])
async def test_what_the_exit_needs_itself_is_missing(
    provider: ScriptedProvider, documents: Documents, error: Exception
) -> None:
    async def fetch(audience: str) -> str:
        raise error

    with pytest.raises(Reject) as refused:
        await tokens(provider, documents, client=JwtSvidClient("the-exit", fetch)).secret(None)
    assert refused.value.code == "token_unavailable"


async def test_what_follows_an_answer_is_no_token_of_the_next_one(documents: Documents) -> None:
    def answer(name: str) -> bytes:
        return answered(200, json.dumps(issued(name)).encode(), ("Set-Cookie", "session=alices; Path=/"))

    async with ScriptedApi(lambda asked: answer("alices") + answer("nobodys")) as server:
        at = AuthorizationServer(server.url, SECRET, documents, endpoint=f"{server.url}/token")
        key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
        made = IssuedTokens(at, AssertionGrant(frozenset({IDP}), key), Target(), clock=Clock())
        assert await made.secret(user("alice")) == "alices"
        server.answer = lambda asked: answer("bobs")
        assert await made.secret(user("bob")) == "bobs"
        assert ["cookie" in asked.headers for asked in server.asked] == [False, False]


async def test_closing_ends_what_is_open(provider: ScriptedProvider, documents: Documents) -> None:
    provider.says("/token", issued(), after=asyncio.Event())
    made = tokens(provider, documents)
    waiting = asyncio.ensure_future(made.secret(None))
    await provider.asked.wait()
    await made.close()
    with pytest.raises(Reject) as refused:
        await waiting
    assert refused.value.code == "token_unavailable"
    await made.close()


async def test_the_endpoint_of_the_settings_is_asked_without_metadata(
    provider: ScriptedProvider, documents: Documents
) -> None:
    provider.says("/elsewhere", issued())
    made = tokens(provider, documents, endpoint=f"{provider.issuer}/elsewhere")
    assert await made.secret(None) == "token-1"


@pytest.mark.parametrize("endpoint", [None, 7, "http://idp.example/token", "https://user@idp.example/token"])
async def test_metadata_without_an_endpoint_that_can_be_used(
    documents: Documents, endpoint: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedProvider(token_endpoint=endpoint) as provider:
        with pytest.raises(Reject) as refused:
            await tokens(provider, documents).secret(None)
    assert refused.value.code == "token_unavailable"
    assert "token_endpoint is missing or not https" in caplog.text


@pytest.mark.parametrize("url", ["http://idp.example", "idp.example", "https://a@idp.example"])
async def test_a_server_that_cannot_be(documents: Documents, url: str) -> None:
    with pytest.raises(ConfigurationError):
        AuthorizationServer(url, SECRET, documents)
    with pytest.raises(ConfigurationError):
        AuthorizationServer(url, SECRET, documents, endpoint="https://idp.example/token")
    with pytest.raises(ConfigurationError):
        AuthorizationServer("https://idp.example", SECRET, documents, endpoint=url)


async def test_the_oldest_token_gives_way(
    provider: ScriptedProvider, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential, "KEPT", 2)
    key = PrivateKeyJwt("the-exit", ECKey.generate_key("P-256", private=True))
    made = tokens(provider, documents, AssertionGrant(frozenset({IDP}), key), client=key)
    for name in ("one", "two", "three", "four"):
        provider.says("/token", issued(name))
    assert [await made.secret(user(who)) for who in ("a", "b", "c")] == ["one", "two", "three"]
    assert [await made.secret(user(who)) for who in ("b", "c")] == ["two", "three"]
    assert await made.secret(user("a")) == "four"


def key_file(folder: Path, content: bytes, *, mode: int = 0o600) -> Path:
    made = folder / "key"
    made.touch(mode=mode)
    made.write_bytes(content)
    made.chmod(mode)
    return made


async def test_a_key_that_is_replaced_counts_at_once(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"the-first-key\n")
    made = ApiKey("X-API-Key", file)
    assert made.fields(await made.secret(None)) == {"X-API-Key": "the-first-key"}
    file.write_bytes(b"the-second-key")
    assert await made.secret(user()) == "the-second-key"
    assert not made.forget(None, "the-first-key")
    await made.close()


async def test_a_key_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = key_file(tmp_path, b"the-first-key\n")
    made = ApiKey("X-API-Key", file)
    file.unlink()
    with pytest.raises(Reject) as refused:
        await made.secret(None)
    assert refused.value.code == "token_unavailable"
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("content", "mode"),
    [(b"", 0o600), (b"short", 0o600), (b"with blanks in it", 0o600), (b"k" * 4_097, 0o600), (b"a-good-key", 0o640)],
)
def test_a_file_that_is_no_key(tmp_path: Path, content: bytes, mode: int) -> None:
    with pytest.raises(ConfigurationError):
        ApiKey("X-API-Key", key_file(tmp_path, content, mode=mode))


@pytest.mark.parametrize("name", ["", "X API", "X-Key:", "X\r\n", "é"])
def test_a_field_that_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        ApiKey(name, key_file(tmp_path, b"the-first-key\n"))


def test_nothing_that_is_shown_is_shown_to_readers_of_logs(tmp_path: Path) -> None:
    made = ApiKey("X-API-Key", key_file(tmp_path, b"the-first-key\n"))
    assert "the-first-key" not in repr(made)
    assert json.dumps(Target().form()) == "{}"
