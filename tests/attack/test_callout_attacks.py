"""Who tries to get past the auth callout on a real server: each is refused, with its own code where we are asked."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.callout import NAMES, SERVER_ID, CalloutSite, callout_site, policy_folder
from support.lab import until
from support.raw_nats import RawNats
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.control.callout.nkeys import Prefix, SigningKey
from sealbus.bus.answering import Asked
from sealbus.bus.connection import Connection
from sealbus.bus.login import NkeyLogin
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.strict_json import Json

pytestmark = [pytest.mark.nats, pytest.mark.timeout(90)]

REFUSED = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, AssertionError)
INVENTORY = str(NAMES.id_of("inventory"))


async def let_in(site: CalloutSite, svid: IssuedSvid, name: str = "inventory") -> bool:
    """Say whether the server lets a bare client with this certificate in."""
    try:
        async with site.raw(name, svid=svid) as client:
            assert await client.may_publish(f"audit.{name}")
    except REFUSED:
        return False
    return True


# Certificates


async def test_an_authority_that_the_server_trusts_cannot_name_our_agents(tmp_path: Path) -> None:
    """The server trusts both authorities, and asks nobody which of them may vouch for which trust domain."""
    partner = ThrowawayCa("partner.org")
    buyer = "spiffe://partner.org/agent/buyer"
    policy = policy_folder(tmp_path / "policy", agents={buyer: {"actions": {"pricing.quote": True}}})
    async with callout_site(tmp_path / "site", federated=[partner], policy=policy) as site:
        assert not await let_in(site, partner.issue(INVENTORY))
        assert site.responders[0].codes == [Code.WRONG_AUTHORITY]
        assert not await let_in(site, partner.issue("spiffe://partner.org/agent/stranger"))
        assert site.responders[0].codes == [Code.WRONG_AUTHORITY, Code.DENIED]
        # Its own agent, whom our policy knows, may do the one thing that it is granted.
        async with RawNats(site.port, site.ca, partner.issue(buyer), site.folder) as client:
            assert await client.may_publish("call.pricing.quote")
            assert not await client.may_publish("call.inventory.read")
            assert not await client.may_publish("audit.inventory")
        assert await let_in(site, site.ca.issue(INVENTORY))


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (INVENTORY, "spiffe://example.org/agent/pricing"),
        (INVENTORY, INVENTORY),
        ("spiffe://example.org/agent/operator", INVENTORY),
        (INVENTORY, "https://example.org"),
    ],
)
async def test_a_certificate_has_exactly_one_uri(tmp_path: Path, uris: tuple[str, ...]) -> None:
    async with callout_site(tmp_path) as site:
        assert not await let_in(site, site.ca.issue(INVENTORY, uris=uris))
        assert site.responders[0].codes == [Code.NOT_ONE_URI]


async def test_an_authority_is_no_client_and_neither_is_who_nobody_vouches_for(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        assert not await let_in(site, site.ca.issue(INVENTORY, authority=True))
        assert not await let_in(site, ThrowawayCa("example.org").issue(INVENTORY))
        # The second never came so far as to be asked about.
        assert site.responders[0].codes == [Code.BAD_SVID]


async def test_a_trust_domain_whose_bundle_we_no_longer_have(tmp_path: Path) -> None:
    partner = ThrowawayCa("partner.org")
    async with callout_site(tmp_path, federated=[partner]) as site:
        identity = site.responders[0].identity
        identity.anchors.pop(next(one for one in identity.anchors if one.name == "partner.org"))
        identity.rotate()
        assert not await let_in(site, partner.issue("spiffe://partner.org/agent/buyer"))
        assert site.responders[0].codes == [Code.UNKNOWN_TRUST_DOMAIN]


# Requests


async def test_a_server_that_is_not_listed_is_not_answered(tmp_path: Path) -> None:
    async with callout_site(tmp_path, responders=0) as site:
        responder = await site.respond(servers=[SigningKey.generate(Prefix.SERVER).public])
        started = time.monotonic()
        assert not await let_in(site, site.ca.issue(INVENTORY))
        assert time.monotonic() - started > 1.5
        assert responder.codes == [Code.UNKNOWN_SERVER]


async def test_nobody_can_put_a_request_before_responders_not_even_they(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        async with site.raw("inventory") as client:
            assert not await client.may_publish("$SYS.REQ.USER.AUTH")
        link = site.responders[0].connection.link
        link.write(b"PUB $SYS.REQ.USER.AUTH _INBOX.callout.x 1\r\nx\r\n")
        link.write(b"PUB _INBOX.callout.x 1\r\nx\r\n")
        await link.flush(5)
        assert site.responders[0].codes == []
        assert site.log.count("Publish Violation") == 3


async def test_a_request_that_was_answered_is_answered_nobody_else(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        (responder,) = site.responders
        recorded: list[Asked] = []
        answering = responder.callout._answering
        assert answering is not None
        answer = answering._answer

        async def listen(asked: Asked) -> bytes | None:
            recorded.append(asked)
            return await answer(asked)

        answering._answer = listen
        assert await let_in(site, site.ca.issue(INVENTORY))
        (asked,) = recorded
        assert await responder.callout.answer(asked) is not None
        assert responder.codes == [Code.REPLAYED]
        # A minute later, or by another responder: too old.
        other = await site.respond()
        clock = other.callout._clock
        other.callout._clock = lambda: clock() + 60 * SECOND
        assert await other.callout.answer(asked) is None
        assert other.codes == [Code.AUTH_REQUEST_EXPIRED]


async def test_a_responder_is_known_by_its_key_and_not_by_its_certificate(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        stranger = SigningKey.generate(Prefix.USER)
        for login in (
            None,
            NkeyLogin(public=stranger.public, sign=stranger.sign),
            NkeyLogin(public=site.keys.user.public, sign=stranger.sign),
        ):
            connection = Connection(
                [site.url],
                identity=site.identity("spiffe://example.org/agent/stranger"),
                server_ids=frozenset({SERVER_ID}),
                inbox_prefix="_INBOX.callout.",
                login=login,
            )
            with pytest.raises(BusUnavailable):
                async with connection:
                    pass
        # The policy knows this one: it is let in as what it is, and hears no request.
        async with site.connection("inventory") as connection:
            violated = asyncio.Event()
            connection.link.subscribe(
                "$SYS.REQ.USER.AUTH", lambda *_: None, queue="sealbus-callout", refused=lambda _: violated.set()
            )
            await connection.link.flush(5)
            assert violated.is_set()


async def test_a_user_that_the_client_names_itself_counts_for_nothing(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        attempts: tuple[dict[str, object], ...] = (
            {"user": "operator", "pass": "x"},
            {"user": str(NAMES.id_of("operator"))},
            {"auth_token": "x", "jwt": "a.b.c"},
            {"nkey": site.keys.user.public, "sig": "eA"},
        )
        for says in attempts:
            with pytest.raises(REFUSED):
                await site.raw("stranger", says=says).__aenter__()
            async with site.raw("inventory", says={"user": "operator", "pass": "x"}) as client:
                assert not await client.may_publish("$JS.API.STREAM.LIST")
        assert set(site.responders[0].codes) == {Code.DENIED}


# Without a responder


async def test_without_a_responder_nobody_is_let_in_and_who_is_there_stays(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site, site.raw("inventory") as live:
        (responder,) = site.responders
        await responder.stop()
        assert responder.callout.problem
        assert not await let_in(site, site.ca.issue(INVENTORY))
        with pytest.raises(BusUnavailable, match=r"knows no user|no answer in time"):
            async with site.connection("pricing"):
                pass
        assert await live.may_publish("audit.inventory")
        await site.respond()
        assert await let_in(site, site.ca.issue(INVENTORY))
        assert await live.may_publish("audit.inventory")


async def test_one_responder_of_two_is_enough(tmp_path: Path) -> None:
    async with callout_site(tmp_path, responders=2) as site:
        for _ in range(8):
            assert await let_in(site, site.ca.issue(INVENTORY))
        asked = [one.counters.render().count('outcome="allowed"') for one in site.responders]
        assert asked == [1, 1], "both have answered"
        await site.responders[0].stop()
        for _ in range(4):
            assert await let_in(site, site.ca.issue(INVENTORY))


# Ends


async def test_a_connection_ends_with_its_certificate(tmp_path: Path) -> None:
    """The server lets a TLS connection live on past its certificate's end; the user JWT does not."""
    async with callout_site(tmp_path) as site:
        svid = site.ca.issue(INVENTORY, life=2.0)
        async with site.raw("inventory", svid=svid) as client:
            assert await client.may_publish("audit.inventory")
            await client.closed()
            assert abs(time.time() - svid.not_after / SECOND) < 1.5
            assert any("expired" in one.lower() for one in client.errors)


async def test_a_connection_of_ours_is_renewed_before_that(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        identity = site.identity(NAMES.id_of("inventory"), life=3.0)
        async with site.connection("inventory", identity=identity) as connection:
            first = connection.link
            identity.rotate(life=3600.0)
            await until(lambda: connection.connected and connection.link is not first)
            await until(lambda: not first.alive)
            assert connection.counters.render().count("sealbus_bus_rotations_total 1") == 1
            assert "sealbus_bus_reconnects_total" not in connection.counters.render()


async def test_a_reload_keeps_who_is_still_allowed_and_ends_who_is_not(tmp_path: Path) -> None:
    policy = policy_folder(tmp_path / "policy")
    async with (
        callout_site(tmp_path / "site", policy=policy) as site,
        site.raw("inventory") as inventory,
        site.raw("pricing") as pricing,
    ):
        await site.reload()
        assert await inventory.may_publish("audit.inventory")
        assert await pricing.may_publish("audit.pricing")
        # Revoked in the policy: the next reload asks again, and this responder knows better.
        site.policy = policy_folder(tmp_path / "revoked", revoked={"agents": {INVENTORY: True}})
        await site.respond()
        await site.responders[0].stop()
        await site.reload()
        await inventory.closed()
        assert await pricing.may_publish("audit.pricing")
        assert site.responders[1].codes == [Code.DENIED]
        assert site.responders[1].refused[0].reasons == ("revoked_agent",)


# Tenants


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[CalloutSite]:
    """`pricing` and its operator are of the tenant acme, all others of the default one."""
    workloads: dict[str, Json] = {
        str(NAMES.id_of(name)): {"role": role, "tenant": "acme"}
        for name, role in (("pricing", "agent"), ("ruler", "operator"), ("buyer", "agent"))
    }
    acme: dict[str, Json] = {"account": "ACME", "limits": {"subscriptions": 4, "payload": 1024, "data": -1}}
    policy = policy_folder(
        tmp_path / "policy",
        workloads=workloads,
        tenants={"acme": acme},
        agents={str(NAMES.id_of("buyer")): {"actions": {"pricing.quote": True}}},
    )
    async with callout_site(tmp_path / "site", policy=policy) as site:
        yield site


async def test_nothing_crosses_from_tenant_to_tenant(tenants: CalloutSite) -> None:
    async with (
        tenants.raw("pricing") as pricing,
        tenants.raw("inventory") as outside,
        tenants.raw("buyer") as inside,
    ):
        pricing.subscribe("call.pricing.* pricing")
        pricing.subscribe("_INBOX.pricing.>")
        assert await pricing.settle() == []
        outside.publish("call.pricing.quote", b"from outside")
        outside.publish("_INBOX.pricing.reply.aa.1", b"an answer from outside")
        assert await outside.settle() == []
        inside.publish("call.pricing.quote", b"from inside")
        assert await inside.settle() == []
        async with asyncio.timeout(10):
            while not pricing.messages:
                await pricing.settle()
        assert pricing.messages == [("call.pricing.quote", b"from inside")]


async def test_each_tenant_has_its_own_streams(tenants: CalloutSite) -> None:
    await tenants.apply_streams()
    async with tenants.raw("inventory") as outside, tenants.raw("pricing") as pricing:
        assert "error" not in await outside.ask("$JS.API.STREAM.INFO.TASKS")
        missing = await pricing.ask("$JS.API.STREAM.INFO.TASKS")
        assert isinstance(missing["error"], dict)
        assert missing["error"]["err_code"] == 10_059


async def test_an_account_limits_each_of_its_connections(tenants: CalloutSite) -> None:
    async with tenants.raw("pricing") as pricing, tenants.raw("buyer") as buyer:
        for number in range(8_193):
            pricing.subscribe(f"_INBOX.pricing.{number}")
        errors = await pricing.settle()
        assert errors
        assert all("maximum subscriptions exceeded" in one.lower() for one in errors)
        buyer.subscribe("_INBOX.buyer.x")
        assert await buyer.settle() == []


# What a permitted subject is asked for in its payload


@pytest.mark.parametrize(
    "payload",
    [
        {"last_by_subj": "state.pricing.x"},
        {"next_by_subj": "state.pricing.>", "seq": 1},
        {"seq": 1},
        {"multi_last": ["state.pricing.>"]},
        {"multi_last": ["state.>"], "batch": 10},
        {"batch": 10, "seq": 1},
        {"start_time": "2020-01-01T00:00:00Z", "batch": 10},
    ],
)
async def test_a_direct_get_of_an_own_value_gives_nobody_elses(tmp_path: Path, payload: dict[str, object]) -> None:
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("pricing") as victim, site.raw("inventory") as agent:
            await victim.request("state.pricing.x", b"a secret of pricing")
            await agent.request("state.inventory.x", b"its own")
            agent.subscribe("_INBOX.inventory.>")
            block = json.dumps(payload).encode()
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", block, reply="_INBOX.inventory.a")
            # Answered in order: whatever came of the first is here before the second.
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", reply="_INBOX.inventory.b")
            async with asyncio.timeout(10):
                while not any(subject == "_INBOX.inventory.b" for subject, _ in agent.messages):
                    assert await agent.settle() == []
            assert not any(b"a secret of pricing" in found for _, found in agent.messages)
            assert any(b"its own" in found for _, found in agent.messages)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "inventory", "filter_subject": "task.>"},
        {"name": "inventory", "filter_subject": "task.pricing.>"},
        {"name": "inventory", "filter_subjects": ["task.inventory.>", "task.pricing.>"]},
        {"name": "inventory", "filter_subjects": ["task.>"]},
        {"name": "inventory"},
        {"name": "other", "filter_subject": "task.inventory.>"},
    ],
)
async def test_a_consumer_is_as_its_permitted_subject_says(tmp_path: Path, config: dict[str, object]) -> None:
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("inventory") as agent:
            subject = "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.inventory.>"
            fits = {"ack_policy": "none", "durable_name": "inventory", "name": "inventory"}
            right = {**fits, "filter_subject": "task.inventory.>"}
            wrong = {**fits, "durable_name": config["name"], **config}
            assert "error" in await agent.ask(subject, {"stream_name": "TASKS", "config": wrong})
            assert "error" not in await agent.ask(subject, {"stream_name": "TASKS", "config": right})
            # Nor can it become so later.
            assert "error" in await agent.ask(subject, {"stream_name": "TASKS", "config": wrong, "action": "update"})


# What NATS does not check


async def test_the_server_leaves_limits_of_a_user_to_its_account(tenants: CalloutSite) -> None:
    """They stand in the JWT; nats-server 2.15 applies them only to JWTs that clients bring themselves.

    Should this fail one day, the comment in deploy/local/nats/nats.conf can go.
    """
    async with tenants.raw("pricing") as pricing:
        for number in range(5):
            pricing.subscribe(f"_INBOX.pricing.{number}")
        assert await pricing.settle() == []


async def test_the_server_asks_nobody_about_reply_subjects(tmp_path: Path) -> None:
    """The one thing that no permission can keep: why claims are signed, and records, and everything that counts.

    A request that an agent may make is answered by the server to whatever reply subject it names, past all permissions.
    What is stored there is not in its name: `tests/attack/test_planted_claims.py` has what acceptance makes of it.
    Should this fail one day, the server has learnt to check, and this can be said in SECURITY.md.
    """
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("inventory") as agent, site.raw("pricing") as victim:
            await agent.request("state.inventory.x", b"planted")
            assert not await agent.may_publish("state.pricing.x")
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", reply="state.pricing.x")
            assert await agent.settle() == []
            answer = await victim.request("$JS.API.DIRECT.GET.STATE.state.pricing.x")
            assert answer.endswith(b"planted")
            assert site.responders[0].codes == []
