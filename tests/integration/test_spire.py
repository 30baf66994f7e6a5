"""Real SPIRE where it says no, goes away or changes its mind; what it does when all is well is the contract's test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from stack.authorities import Kind
from stack.served import until_served
from stack.spire import Spire
from stack.spire_server import SpireServer
from stack.tools import find_tool
from support.howto import commands_of
from support.lab import until
from support.ports import held_port
from support.spire import entry, spire
from support.workload_api import short_folder

from sealbus.agents.identity import Endpoint, WorkloadIdentity
from sealbus.agents.identity.workload_api import RawClient
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import ClaimedKey, verify_credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = [pytest.mark.spire, pytest.mark.workload_api]

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
PLANNER = "spiffe://example.org/agent/planner"
OTHER_USER = 64_123
QUICK = 12
"""Seconds: SPIRE adds ten before the beginning and rotates at the half, so that an SVID is new every second or two."""

ASK_AS = """
import asyncio, json, os, sys
from sealbus.agents.identity import Endpoint, WorkloadIdentity
from sealbus.agents.identity.workload_api import RawClient
from sealbus.envelopes.errors import IdentityUnavailable
uid, address = int(sys.argv[1]), sys.argv[2]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
async def ask():
    try:
        async with WorkloadIdentity.connect(address, deadline=60) as identity:
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
    async with WorkloadIdentity.connect(address, deadline=60) as identity:
        assert str(identity.spiffe_id) == PLANNER


async def test_without_an_entry_there_is_no_identity() -> None:
    """`PermissionDenied` on real SPIRE: final, said at once and in one line."""
    async with spire() as running:
        with pytest.raises(IdentityUnavailable, match=r"no identity for this workload \(uid \d+\): register an entry"):
            async with WorkloadIdentity.connect(running.agent.address, deadline=60.0):
                pass


async def test_who_starts_before_its_agent_gets_its_identity_from_it(running: Spire) -> None:
    """And before its entry: SPIRE's agent takes seconds to hear of a new one."""
    await running.agent.program.kill9()
    mine = SpiffeId("spiffe://example.org/agent/inventory")

    async def connect() -> SpiffeId:
        async with WorkloadIdentity.connect(
            running.agent.address, spiffe_id=mine, deadline=60.0, patient=True
        ) as identity:
            return identity.sealer().iss

    connecting = asyncio.create_task(connect())
    await running.agent.program.start()
    await running.server.create(entry(str(mine)), parent=running.agent.spiffe_id)
    assert await connecting == mine


async def test_an_identity_that_is_not_ours_is_refused(running: Spire) -> None:
    with pytest.raises(IdentityUnavailable, match=r"not spiffe://example\.org/agent/inventory: correct its entry"):
        async with WorkloadIdentity.connect(
            running.agent.address, spiffe_id=SpiffeId("spiffe://example.org/agent/inventory")
        ):
            pass


async def test_a_socket_that_is_missing_is_named() -> None:
    with short_folder() as folder, pytest.raises(IdentityUnavailable, match=r"No such file.*start the SPIRE agent"):
        async with WorkloadIdentity.connect(f"unix://{folder}/agent.sock", deadline=60):
            pass


async def test_an_agent_that_is_killed_is_lived_through_and_found_again(running: Spire) -> None:
    """While it is gone, what it gave stays in force; once it is back, rotation goes on, with no new join token."""
    async with WorkloadIdentity.connect(running.agent.address, deadline=60) as identity:
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
    async with WorkloadIdentity.connect(running.agent.address, deadline=60) as identity:
        await running.agent.program.kill9()

        await until(lambda: refusal_of(identity) != "")
        assert "has expired" in refusal_of(identity)


async def test_an_entry_that_is_deleted_withdraws_the_identity() -> None:
    """The SVIDs would live for minutes; they are not used from the moment on that SPIRE says no."""
    async with spire() as running:
        [entry_id] = await running.register(entry(PLANNER, x509_ttl=600, jwt_ttl=600))
        async with WorkloadIdentity.connect(running.agent.address, deadline=60) as identity:
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
    async with WorkloadIdentity.connect(running.agent.address, deadline=60) as identity:
        authorities = identity.x509().bundles
        await running.server.program.kill9()
        held = identity.x509().chain[0]
        await running.server.program.start()
        await until(lambda: identity.x509().chain[0] != held)
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


async def test_an_entry_of_nobody_is_not_waited_for_for_ever(running: Spire) -> None:
    missing = SpiffeId("spiffe://example.org/agent/missing")
    with pytest.raises(ConfigurationError, match=r"did not give spiffe://example\.org/agent/missing$"):
        await until_served(running.agent.address, [SpiffeId(PLANNER), missing], uid=os.geteuid(), seconds=0.5)


async def test_a_folder_too_deep_for_a_socket_is_refused() -> None:
    with short_folder() as folder, pytest.raises(ConfigurationError, match="107 are allowed"):
        SpireServer(folder / ("x" * 100), trust_domain=TrustDomain("example.org"), port=held_port())


async def test_authorities_change_and_nobody_notices(running: Spire) -> None:
    """The steps of docs/runbooks.md for both kinds, with real overlap: there is always an SVID that every reader accepts."""
    async with WorkloadIdentity.connect(running.agent.address, deadline=60) as identity:

        def anchors() -> tuple[bytes, ...]:
            return identity.x509().bundles[identity.spiffe_id.trust_domain]

        def keys() -> set[str]:
            return set(identity.bundles()[identity.spiffe_id.trust_domain].keys)

        [old_anchor], [old_key] = anchors(), keys()
        ids = {}
        for kind in Kind:
            await at(running, "prepare", kind)
            [said] = await at(running, "look", kind)
            ids[kind] = {"OLD": said["active"]["authority_id"], "NEXT": said["prepared"]["authority_id"]}
        old_jwt, next_jwt = ids[Kind.JWT]["OLD"], ids[Kind.JWT]["NEXT"]
        await until(lambda: len(anchors()) == len(keys()) == 2)
        for kind in Kind:
            await at(running, "activate", kind, **ids[kind])
        new_anchor = next(one for one in anchors() if one != old_anchor)
        await until(lambda: signed_by(identity, new_anchor))
        assert next_jwt in keys() - {old_key}
        for kind in Kind:
            await at(running, "taint", kind, **ids[kind])
        async with asyncio.timeout(60):
            while key_of(await given(identity)) != next_jwt:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        # Ours is of the old authority, and good as long as that one is in the bundle.
        assert key_of(identity.sealer().credential.token) == old_jwt
        for kind in Kind:
            await at(running, "revoke", kind, **ids[kind])
        await until(lambda: anchors() == (new_anchor,) and keys() == {next_jwt})
        await until(lambda: key_of(identity.sealer().credential.token) == next_jwt)
        verify_credential(
            identity.sealer().credential,
            ClaimedKey(identity.spiffe_id, identity.sealer().key.public, identity.sealer().crd),
            reference=wall_clock(),
            trust=Trust(bundles=identity.bundles()),
            caches=Caches(),
        )


async def at(running: Spire, step: str, kind: Kind, **ids: str) -> list[dict[str, Any]]:
    """Return what the commands of a step of the runbook say, each as JSON."""
    said = []
    for command in commands_of(RUNBOOKS.read_text(encoding="utf-8"), f"spire: {step}"):
        process = await asyncio.create_subprocess_exec(
            "sh", "-ec", f"{command.rstrip()} -output json", stdout=asyncio.subprocess.PIPE,
            env={"PATH": f"{find_tool('spire-server').parent}:{os.environ['PATH']}", "KIND": kind,
                 "SOCKET": str(running.server.socket), **ids},
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0, command
        said.append(json.loads(out))
    return said


async def given(identity: WorkloadIdentity) -> bytes:
    """Return the JWT-SVID for the identity's key that SPIRE's agent would give it now."""

    def fetch() -> str:
        with contextlib.closing(RawClient(Endpoint.find(identity.status().endpoint))) as client:
            return client.fetch_token(identity.spiffe_id, identity.sealer().key.public, timeout=5.0)

    return (await asyncio.to_thread(fetch)).encode()


def key_of(token: bytes) -> str:
    """Return the `kid` of the authority that signed a JWT-SVID."""
    header = token.split(b".")[0]
    return str(json.loads(urlsafe_b64decode(header + b"=" * (-len(header) % 4)))["kid"])


def signed_by(identity: WorkloadIdentity, anchor: bytes) -> bool:
    authority = x509.load_der_x509_certificate(anchor)
    try:
        x509.load_der_x509_certificate(identity.x509().chain[0]).verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError):
        return False
    return True
