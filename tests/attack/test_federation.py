"""Two real SPIRE servers that trust each other's word about their own workloads, and about nobody else's.

The partner's authority is the attacker here: with its real keys it issues X.509-SVIDs and JWT-SVIDs that carry our trust
domain. Beside each refusal stands the same thing under the partner's own name, which is accepted: what is refused is the
name, and not a mistake of the forger's.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from stack.nats_server import NatsServer, static_users
from stack.spire import Spire, federate
from support.envelopes import task_draft
from support.lab import QUICK, until
from support.ports import held_port
from support.spire import entry, spire
from support.stolen_authority import StolenAuthority, steal
from support.workload_api import short_folder
from support.x509 import IssuedSvid

from sealbus.agents.dev.nats.config import Permissions
from sealbus.agents.edge.http.peer import peer_of
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.identity.svid_files.files import SvidFiles
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context, server_context, spiffe_id_of
from sealbus.bus.ports import X509Material
from sealbus.envelopes.accept.live import LiveProfile, Replays, StreamArrival, VerifiedMessage, accept_live
from sealbus.envelopes.errors import BusUnavailable, Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealer, seal
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = [pytest.mark.spire, pytest.mark.workload_api, pytest.mark.asyncio(loop_scope="module")]

HOME, PARTNER = TrustDomain("example.org"), TrustDomain("partner.org")
INVENTORY, PLANNER = HOME.id("/agent/inventory"), HOME.id("/agent/planner")
SERVER, SUPPLIER = HOME.id("/nats/server"), PARTNER.id("/agent/supplier")
MINUTE = 60 * SECOND
NAMES = Names(HOME, table={"supplier": SUPPLIER})


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Two trust domains with a workload's identity each, and the keys of the partner's authority."""

    home: Spire
    partner: Spire
    inventory: WorkloadIdentity
    supplier: WorkloadIdentity
    stolen: StolenAuthority


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def federation() -> AsyncIterator[Federation]:
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(spire())
        partner = await stack.enter_async_context(spire(trust_domain="partner.org"))
        await federate(home.server, partner.server)
        await home.register(
            entry(str(INVENTORY), federates_with=("partner.org",), x509_ttl=3600, jwt_ttl=3600),
            entry(str(SERVER), federates_with=("partner.org",), x509_ttl=3600, jwt_ttl=3600),
        )
        await partner.register(entry(str(SUPPLIER), federates_with=("example.org",), x509_ttl=3600, jwt_ttl=3600))
        connect = WorkloadIdentity.connect
        yield Federation(
            home=home,
            partner=partner,
            inventory=await stack.enter_async_context(connect(home.agent.address, spiffe_id=INVENTORY)),
            supplier=await stack.enter_async_context(connect(partner.agent.address, spiffe_id=SUPPLIER)),
            stolen=await steal(partner.server),
        )


# What the Workload API says.


@pytest.mark.slow
async def test_a_workload_that_federates_is_given_both_bundles_apart(federation: Federation) -> None:
    ours, theirs = federation.inventory, federation.supplier
    assert set(ours.x509().bundles) == set(theirs.x509().bundles) == {HOME, PARTNER}
    assert set(ours.bundles()) == set(theirs.bundles()) == {HOME, PARTNER}
    for domain in (HOME, PARTNER):
        assert ours.x509().bundles[domain] == theirs.x509().bundles[domain]
        assert ours.bundles()[domain].keys.keys() == theirs.bundles()[domain].keys.keys()
    assert ours.x509().bundles[HOME] != ours.x509().bundles[PARTNER]


@pytest.mark.slow
async def test_a_workload_that_does_not_is_given_its_own(federation: Federation) -> None:
    """Its server knows the partner's bundle; the workload's entry decides."""
    async with spire(entry(str(PLANNER))) as home:
        await home.server.set_foreign_bundle(PARTNER, await federation.partner.server.bundle(spiffe=True))
        async with WorkloadIdentity.connect(home.agent.address, deadline=60) as alone:
            assert set(alone.x509().bundles) == set(alone.bundles()) == {HOME}
        await home.register(entry(str(INVENTORY), federates_with=("partner.org",)))
        async with WorkloadIdentity.connect(home.agent.address, spiffe_id=INVENTORY, deadline=60) as federated:
            assert set(federated.x509().bundles) == set(federated.bundles()) == {HOME, PARTNER}
            arrived(federation.supplier.sealer(), federated.bundles())
            # A bundle that is exchanged anew takes the place of the old one whole.
            bundle = json.loads(await federation.partner.server.bundle(spiffe=True))
            bundle["keys"] = [key for key in bundle["keys"] if key["use"] != "jwt-svid"]
            await home.server.set_foreign_bundle(PARTNER, json.dumps(bundle).encode())
            await until(lambda: not federated.bundles()[PARTNER].keys)
            refused(Code.UNKNOWN_KEY, federation.supplier.sealer(), federated.bundles())


# Messages.


def arrived(sealer: Sealer, bundles: TrustBundles) -> VerifiedMessage:
    """Return the task that `sealer` sealed now for the inventory, accepted by somebody who has `bundles`."""
    now = wall_clock()
    identifier = (now // 1000).to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7)
    [sealed] = seal([task_draft()._replace(id=identifier, iat=now, exp=now + MINUTE, end=now + MINUTE)], sealer)
    return accept_live(
        sealed.wire,
        StreamArrival(
            subject="task.inventory.update",
            header_block=b"NATS/1.0\r\nNats-Msg-Id: " + identifier.hex().encode() + b"\r\n\r\n",
            stream="TASKS",
            sequence=1,
            stored=now,
            created=now - MINUTE,
            delivery=1,
        ),
        LiveProfile(own=INVENTORY, names=NAMES, kinds=frozenset({Kind.TASK})),
        action="inventory.update",
        trust=Trust(bundles=bundles),
        caches=Caches(),
        replays=Replays(ReplayMemory(8)),
        now=now,
    )


def refused(code: Code, sealer: Sealer, bundles: TrustBundles) -> None:
    with pytest.raises(EnvelopeError) as caught:
        arrived(sealer, bundles)
    assert (caught.value.code, caught.value.step) == (code, 7), caught.value.detail


def forged(federation: Federation, spiffe_id: SpiffeId) -> Sealer:
    """Return a sealer of `spiffe_id` whose JWT-SVID the partner's authority signed."""
    now = wall_clock()
    return federation.stolen.issuer.sealer(spiffe_id, iat=now, exp=now + 10 * MINUTE)


async def test_a_partners_message_verifies_with_the_partners_bundle_only(federation: Federation) -> None:
    bundles = federation.inventory.bundles()
    assert arrived(federation.supplier.sealer(), bundles).header.iss == SUPPLIER
    home, partner = bundles[HOME], bundles[PARTNER]
    refused(Code.UNKNOWN_TRUST_DOMAIN, federation.supplier.sealer(), TrustBundles([home]))
    swapped = [JwtBundle.parse(HOME, partner.jwks), JwtBundle.parse(PARTNER, home.jwks)]
    refused(Code.UNKNOWN_KEY, federation.supplier.sealer(), TrustBundles(swapped))
    refused(Code.UNKNOWN_KEY, federation.inventory.sealer(), TrustBundles(swapped))


async def test_the_partners_authority_cannot_speak_for_our_workloads(federation: Federation) -> None:
    """Its key is in the reader's hands, under the partner's name; that is what makes this an attack."""
    bundles = federation.inventory.bundles()
    assert arrived(forged(federation, PARTNER.id("/agent/any")), bundles).header.iss == PARTNER.id("/agent/any")
    refused(Code.UNKNOWN_KEY, forged(federation, PLANNER), bundles)
    refused(Code.UNKNOWN_KEY, forged(federation, HOME.id("/edge")), bundles)


async def test_a_partners_credential_is_no_ones_elses(federation: Federation) -> None:
    """The partner's own JWT-SVID under the header of one of ours."""
    genuine = federation.supplier.sealer()
    borrowed = Sealer(iss=PLANNER, key=genuine.key, credential=genuine.credential, expires=genuine.expires)
    with pytest.raises(EnvelopeError) as caught:
        arrived(borrowed, federation.inventory.bundles())
    assert (caught.value.code, caught.value.step) == (Code.BAD_CREDENTIAL, 7), caught.value.detail


# Connections.


async def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, clients: TrustDomain = HOME) -> tuple[str, str]:
    """Connect over loopback and return whom the client and the server saw; raises what either side raises.

    The server takes workloads of `clients` only, as the edge's does.
    """
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.set_result(str(peer_of(writer.get_extra_info("ssl_object"), clients).spiffe_id))
        except ValueError as error:
            seen.set_exception(error)
        writer.write(b"!")
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    try:
        async with asyncio.timeout(60):
            port = listener.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            try:
                # With TLS 1.3 a server refuses a client after the client's handshake is over.
                if await reader.read(1) != b"!":
                    raise ConnectionResetError("the server hung up")
                found = spiffe_id_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                return found, await seen
            finally:
                writer.transport.abort()
    finally:
        listener.close()


def issued(federation: Federation, spiffe_id: SpiffeId) -> tuple[X509Material, IssuedSvid]:
    """Return an X.509-SVID of `spiffe_id` that the partner's authority signed, with both bundles."""
    return federation.stolen.x509(spiffe_id, dict(federation.inventory.x509().bundles))


async def test_a_client_does_not_take_a_partners_word_for_our_server(federation: Federation) -> None:
    ours, theirs = SERVER, PARTNER.id("/nats/server")
    for spiffe_id in (ours, theirs):
        material, _ = issued(federation, spiffe_id)
        server = server_context(material, trust_domain=HOME)
        client = client_context(federation.inventory.x509(), expected=frozenset({spiffe_id}))
        if spiffe_id == theirs:
            assert await shake_hands(client, server) == (str(theirs), str(INVENTORY))
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
                await shake_hands(client, server)


async def test_a_server_does_not_take_a_partners_word_for_our_client(federation: Federation) -> None:
    """A server trusts the bundle of the one trust domain that it said, whatever others it has been given."""
    async with WorkloadIdentity.connect(federation.home.agent.address, spiffe_id=SERVER, deadline=60) as server:
        forged_planner, _ = issued(federation, PLANNER)
        client = client_context(forged_planner, expected=frozenset({SERVER}))
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await shake_hands(client, server_context(server.x509(), trust_domain=HOME))
        # At a listener for partners its chain is good, and its name is not.
        partners = server_context(server.x509(), trust_domain=PARTNER)
        with pytest.raises(ValueError, match="of another trust domain"):
            await shake_hands(client, partners, PARTNER)
        genuine, _ = issued(federation, PARTNER.id("/agent/any"))
        client = client_context(genuine, expected=frozenset({SERVER}))
        assert await shake_hands(client, partners, PARTNER) == (str(SERVER), "spiffe://partner.org/agent/any")
        client = client_context(federation.inventory.x509(), expected=frozenset({SERVER}))
        ours = server_context(server.x509(), trust_domain=HOME)
        assert await shake_hands(client, ours) == (str(SERVER), str(INVENTORY))


class Forger:
    """An identity for the bus whose X.509-SVID is somebody else's work."""

    def __init__(self, material: X509Material, genuine: WorkloadIdentity) -> None:
        self._material = material
        self.spiffe_id = material.spiffe_id
        self.sealer, self.bundles, self.on_rotation = genuine.sealer, genuine.bundles, genuine.on_rotation

    def x509(self) -> X509Material:
        return self._material


@pytest.mark.nats
@pytest.mark.parametrize("also_trusted", [(), (PARTNER,)], ids=["one-trust-domain", "two"])
async def test_nats_with_one_trust_domains_bundle_refuses_a_forged_agent(
    federation: Federation, also_trusted: tuple[TrustDomain, ...]
) -> None:
    """And with two it does not: nats-server binds no trust domain to its bundle, which is why `identity write` writes
    one, and adds another only if told so, behind an auth callout that looks at the chain again."""
    with short_folder() as folder:
        async with WorkloadIdentity.connect(federation.home.agent.address, spiffe_id=SERVER, deadline=60) as server:
            files = SvidFiles(Path(folder) / "svid", also_trusted=also_trusted)
            files.prepare()
            files.write(server.x509())
        access = static_users({PLANNER: Permissions(publish=(">",), subscribe=(">",))})
        async with NatsServer(
            Path(folder) / "nats", svid=files.folder, port=held_port(), monitor=held_port(), access=access
        ) as nats:
            material, _ = issued(federation, PLANNER)
            connection = Connection(
                [nats.url],
                identity=Forger(material, federation.inventory),
                server_ids=frozenset({SERVER}),
                inbox_prefix="_INBOX.planner.",
                options=QUICK,
            )
            if also_trusted:
                async with connection:
                    assert connection.connected
            else:
                with pytest.raises(BusUnavailable):
                    await connection.__aenter__()
                # The server writes this after the client has heard of it.
                await until(lambda: "tls: failed to verify certificate" in nats.log_file.read_text())
