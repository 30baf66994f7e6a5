"""Real SPIRE where it says no, goes away or changes its mind; what it does when all is well is the contract's test."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest
from stack.spire import Spire
from stack.spire_server import SpireServer
from support.lab import until
from support.nats_server import free_port
from support.spire import entry, spire
from support.workload_api import short_folder

from sealbus.agents.identity import WorkloadIdentity
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain

pytestmark = [pytest.mark.spire, pytest.mark.workload_api]

PLANNER = "spiffe://example.org/agent/planner"
OTHER_USER = 64_123
QUICK = 12
"""Seconds: SPIRE adds ten before the beginning and rotates at the half, so that an SVID is new every second or two."""

ASK_AS = """
import asyncio, json, os, sys
from sealbus.agents.identity import WorkloadIdentity
from sealbus.envelopes.errors import IdentityUnavailable
uid, address = int(sys.argv[1]), sys.argv[2]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
async def ask():
    try:
        async with WorkloadIdentity.connect(address) as identity:
            return str(identity.spiffe_id)
    except IdentityUnavailable as error:
        return error.detail
print(json.dumps(asyncio.run(ask())))
"""


@pytest.fixture
async def running() -> AsyncIterator[Spire]:
    async with spire(entry(PLANNER, x509_ttl=QUICK)) as started:
        yield started


async def ask_as(uid: int, address: str) -> str:
    """Return who user `uid` is to the Workload API, or the one line that says why nobody."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK_AS, str(uid), address, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return str(json.loads(out))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a process of another user asks")
async def test_each_user_gets_its_own_identity_and_a_stranger_none(running: Spire) -> None:
    address = running.agent.address
    await running.register(entry("spiffe://example.org/agent/inventory", uid=OTHER_USER))
    assert await ask_as(OTHER_USER, address) == "spiffe://example.org/agent/inventory"
    refused = await ask_as(OTHER_USER + 1, address)
    assert f"no identity for this workload (uid {OTHER_USER + 1})" in refused
    assert "\n" not in refused
    async with WorkloadIdentity.connect(address) as identity:
        assert str(identity.spiffe_id) == PLANNER


async def test_without_an_entry_there_is_no_identity() -> None:
    """`PermissionDenied` on real SPIRE: final, said at once and in one line."""
    async with spire() as running:
        with pytest.raises(IdentityUnavailable, match=r"no identity for this workload \(uid \d+\): register an entry"):
            async with WorkloadIdentity.connect(running.agent.address, deadline=30.0):
                pass


async def test_an_identity_that_is_not_ours_is_refused(running: Spire) -> None:
    with pytest.raises(IdentityUnavailable, match=r"gave no X\.509-SVID of .*/agent/inventory"):
        async with WorkloadIdentity.connect(
            running.agent.address, spiffe_id=SpiffeId("spiffe://example.org/agent/inventory")
        ):
            pass


async def test_a_socket_that_is_missing_is_named() -> None:
    with short_folder() as folder, pytest.raises(IdentityUnavailable, match=r"No such file.*start the SPIRE agent"):
        async with WorkloadIdentity.connect(f"unix://{folder}/agent.sock"):
            pass


async def test_an_agent_that_is_killed_is_lived_through_and_found_again(running: Spire) -> None:
    """While it is gone, what it gave stays in force; once it is back, rotation goes on, with no new join token."""
    async with WorkloadIdentity.connect(running.agent.address) as identity:
        await running.agent.program.kill9()
        await until(lambda: "does not answer" in identity.status().failure)
        assert str(identity.x509().spiffe_id) == PLANNER
        assert identity.sealer().iss == identity.spiffe_id
        held = identity.x509().chain[0]
        await running.agent.program.start()
        await until(lambda: identity.x509().chain[0] != held)
        await until(lambda: identity.status().failure == "")


def refusal_of(identity: WorkloadIdentity) -> str:
    """Return why there is no X.509-SVID, or nothing if there is one."""
    try:
        identity.x509()
    except IdentityUnavailable as error:
        return error.detail
    return ""


async def test_an_agent_that_is_gone_cannot_prolong_an_identity(running: Spire) -> None:
    """Fail closed: at the end of the X.509-SVID nothing connects with it any more."""
    async with WorkloadIdentity.connect(running.agent.address) as identity:
        await running.agent.program.kill9()

        await until(lambda: refusal_of(identity) != "", seconds=QUICK + 5.0)
        assert "has expired" in refusal_of(identity)


async def test_an_entry_that_is_deleted_withdraws_the_identity() -> None:
    """The SVIDs would live for minutes; they are not used from the moment on that SPIRE says no."""
    async with spire() as running:
        [entry_id] = await running.register(entry(PLANNER, x509_ttl=600, jwt_ttl=600))
        async with WorkloadIdentity.connect(running.agent.address) as identity:
            await running.server.delete(entry_id)
            # Two streams say it, in whatever order.
            await until(lambda: refusal_of(identity) != "")
            assert "register an entry" in refusal_of(identity)
            with pytest.raises(IdentityUnavailable, match="register an entry"):
                identity.sealer()
            await running.register(entry(PLANNER))
            await until(lambda: identity.status().x509_not_after > 0)
            assert identity.x509().spiffe_id == identity.spiffe_id


async def test_a_server_that_is_killed_keeps_its_authorities_and_entries(running: Spire) -> None:
    """Agents go on with what they have, and a restarted server is the same trust domain."""
    async with WorkloadIdentity.connect(running.agent.address) as identity:
        authorities = identity.x509().bundles
        await running.server.program.kill9()
        held = identity.x509().chain[0]
        await running.server.program.start()
        await until(lambda: identity.x509().chain[0] != held, seconds=30.0)
        assert identity.x509().bundles == authorities


async def test_starting_says_in_one_line_why_it_failed(running: Spire) -> None:
    """A port in use: what SPIRE logs is in its folder, and the error names the folder."""
    with short_folder() as folder, pytest.raises(ConfigurationError, match="spire-server ended at once") as caught:
        async with SpireServer(folder, trust_domain=TrustDomain("example.org"), port=running.server.port):
            pass
    assert str(folder) in caught.value.detail
    assert "\n" not in caught.value.detail


async def test_an_entry_is_registered_once(running: Spire) -> None:
    with pytest.raises(ConfigurationError, match="planner is not registered: similar entry already exists"):
        await running.server.create(entry(PLANNER), parent=running.agent.spiffe_id)


async def test_a_folder_too_deep_for_a_socket_is_refused() -> None:
    with short_folder() as folder, pytest.raises(ConfigurationError, match="107 are allowed"):
        SpireServer(folder / ("x" * 100), trust_domain=TrustDomain("example.org"), port=free_port())
