"""Requests that no server of ours made, or made before, and clients that say who they are themselves."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.callout import NAMES, REFUSED, SERVER_ID, callout_site, impatient, let_in

from sealbus.agents.control.callout.nkeys import Prefix, SigningKey
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions, NkeyLogin
from sealbus.bus.nats.subscription import Asked
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND

pytestmark = [pytest.mark.nats]

INVENTORY = str(NAMES.id_of("inventory"))


async def test_a_server_that_is_not_listed_is_not_answered(tmp_path: Path) -> None:
    async with callout_site(tmp_path, responders=0, conf=impatient(tmp_path)) as site:
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
        await link.flush(60.0)
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
                options=ConnectionOptions(login=login),
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
            await connection.link.flush(60.0)
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
                assert not await client.may_publish("$JS.API.STREAM.CREATE.X")
        assert set(site.responders[0].codes) == {Code.DENIED}
