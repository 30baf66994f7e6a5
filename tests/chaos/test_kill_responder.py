"""Responders of the auth callout killed at any moment: another one answers, and who is connected notices nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import responder_process
from support.callout import CONTROL, SERVER_ID, CalloutSite, callout_site, impatient, let_in
from support.lab import until

pytestmark = [pytest.mark.nats]


@asynccontextmanager
async def responding(site: CalloutSite, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a responder as a process, which answers once this is entered."""
    folder, keys = site.folder / name, site.folder / "keys"
    folder.mkdir()
    svid = site.ca.issue(str(CONTROL))
    (folder / "svid.pem").write_bytes(svid.cert_pem)
    (folder / "svid.key").write_bytes(svid.key_pem)
    (folder / "ca.pem").write_bytes(site.ca.cert_pem)
    (folder / "sealbus.toml").write_text(
        f"""
trust_domain = "example.org"
nats = ["{site.url}"]
nats_ids = ["{SERVER_ID}"]
[policy]
engine = "embedded"
[control.callout]
issuer = "{keys / "issuer.seed"}"
xkey = "{keys / "xkey.seed"}"
nkey = "{keys / "user.seed"}"
"""
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(responder_process.__file__)), str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"answers\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_one_of_two_is_killed_between_connections(tmp_path: Path) -> None:
    async with (
        callout_site(tmp_path, responders=0, conf=impatient(tmp_path)) as site,
        responding(site, "one") as one,
        responding(site, "two"),
        site.raw("pricing") as live,
    ):
        assert all([await let_in(site) for _ in range(10)])
        one.kill()
        await one.wait()
        # What the server gave to the one that is gone is lost with it: at most the first, if it has not noticed yet.
        assert [await let_in(site) for _ in range(20)].count(False) <= 1
        assert await live.may_publish("audit.pricing")


@pytest.mark.slow
async def test_one_that_hangs_is_missed_in_the_end(tmp_path: Path) -> None:
    """Until then its share of the connections is refused: the server waits for an answer, and lets nobody in without."""
    async with (
        callout_site(tmp_path, responders=0, conf=impatient(tmp_path)) as site,
        responding(site, "one") as one,
        responding(site, "two"),
    ):
        one.send_signal(signal.SIGSTOP)
        refused = row = 0
        async with asyncio.timeout(60):
            while row < 10:
                if await let_in(site):
                    row += 1
                else:
                    refused, row = refused + 1, 0
        assert refused
        one.send_signal(signal.SIGCONT)
        assert await let_in(site)


async def test_all_are_killed_and_one_comes_back(tmp_path: Path) -> None:
    async with (
        callout_site(tmp_path, responders=0, conf=impatient(tmp_path)) as site,
        responding(site, "one") as one,
        site.raw("pricing") as live,
    ):
        one.kill()
        await one.wait()
        assert not await let_in(site)
        assert await live.may_publish("audit.pricing")
        async with responding(site, "two"):
            assert await let_in(site)
            assert await live.may_publish("audit.pricing")


async def test_a_bus_connection_waits_for_a_responder(tmp_path: Path) -> None:
    """The server has forgotten everybody, and nobody may say who they are: connections try until somebody does."""
    async with (
        callout_site(tmp_path, responders=0, conf=impatient(tmp_path)) as site,
        responding(site, "one") as one,
        site.connection("inventory") as connection,
    ):
        one.kill()
        await one.wait()
        await site.stop()
        await site.start()
        await until(lambda: not connection.connected)
        async with responding(site, "two"):
            await connection.ready(30)
            await connection.link.flush(60.0)


async def test_a_responders_certificate_is_renewed_while_it_answers(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        (responder,) = site.responders
        first = responder.connection.link
        responder.identity.rotate()
        tried = 0
        while responder.connection.link is first or first.alive:
            assert await let_in(site)
            tried += 1
        assert tried
        assert await let_in(site)
        assert responder.refused == []
