"""What sealbus relies on in any Workload API: the embedded one and SPIRE's, and another that the environment names."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator

import grpc  # type: ignore[import-untyped]  # grpc has no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc
from spiffe.errors import PySpiffeError
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.svid.jwt_svid import JwtSvid
from support.workload_api import Served

from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.identity.x509_svid import read_x509
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.trust.bundles import JwtBundle, Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import ClaimedKey, verify_credential
from sealbus.envelopes.trust.keys import SigningKey

pytestmark = pytest.mark.workload_api

HEADER = (("workload.spiffe.io", "true"),)
DEADLINE = 60.0


def thumbprint() -> str:
    return SigningKey(ec.generate_private_key(ec.SECP256R1())).public.thumbprint


@contextlib.contextmanager
def raw_stub(socket: str) -> Iterator[workload_pb2_grpc.SpiffeWorkloadAPIStub]:
    """A bare stub that adds no header."""
    with grpc.insecure_channel(f"unix:{socket.removeprefix('unix://')}") as channel:
        yield workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)  # type: ignore[no-untyped-call]


async def test_spiffe_x509_source_runs_unchanged(served: Served) -> None:
    """`spiffe`'s own source is ready with the expected identity, and its chain verifies by our rules."""

    def use() -> None:
        with X509Source(socket_path=served.socket, timeout_in_seconds=DEADLINE) as source:
            context = source.get_x509_context()
            assert str(context.default_svid.spiffe_id) == str(served.spiffe_id)
            bundle = source.get_bundle_for_trust_domain(TrustDomain(served.spiffe_id.trust_domain.name))
            assert bundle is not None
            assert bundle.x509_authorities

    await asyncio.to_thread(use)


async def test_spiffe_jwt_source_runs_unchanged(served: Served) -> None:
    """`spiffe`'s own source gets a JWT-SVID for a thumbprint audience that its bundle verifies."""

    def use() -> None:
        audience = thumbprint()
        with JwtSource(socket_path=served.socket, timeout_in_seconds=DEADLINE) as source:
            svid = source.fetch_svid({audience}, timeout=DEADLINE)
            bundle = source.get_bundle_for_trust_domain(TrustDomain(served.spiffe_id.trust_domain.name))
            assert bundle is not None
            parsed = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
            assert str(parsed.spiffe_id) == str(served.spiffe_id)
            assert parsed.audience == {audience}

    await asyncio.to_thread(use)


async def test_first_x509_response_is_a_leaf_that_verifies(served: Served) -> None:
    """One URI SAN, the leaf's key usage and constraints, a chain to the bundle, a subject that is not the CA's."""

    def use() -> None:
        with raw_stub(served.socket) as stub:
            response = next(stub.FetchX509SVID(proto.X509SVIDRequest(), metadata=HEADER, timeout=DEADLINE))
        material = read_x509(response, now=wall_clock()).material
        assert material.spiffe_id == served.spiffe_id
        leaf = x509.load_der_x509_certificate(material.chain[0])
        assert leaf.subject != leaf.issuer
        assert leaf.extensions.get_extension_for_class(x509.KeyUsage).critical
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(purposes)

    await asyncio.to_thread(use)


async def test_x509_bundles_hold_the_bundle_of_the_svid(served: Served) -> None:
    """`FetchX509Bundles` is keyed by the trust domain's SPIFFE ID and says the same as `FetchX509SVID`."""

    def use() -> None:
        with raw_stub(served.socket) as stub:
            svids = next(stub.FetchX509SVID(proto.X509SVIDRequest(), metadata=HEADER, timeout=DEADLINE)).svids
            bundles = next(stub.FetchX509Bundles(proto.X509BundlesRequest(), metadata=HEADER, timeout=DEADLINE)).bundles
        assert bundles[f"spiffe://{served.spiffe_id.trust_domain}"] == svids[0].bundle

    await asyncio.to_thread(use)


async def test_jwt_bundle_is_one_that_we_accept(served: Served) -> None:
    """`FetchJWTBundles` is keyed alike, and its JWK set passes the rules of SPEC.md section 5."""

    def use() -> None:
        with raw_stub(served.socket) as stub:
            response = next(stub.FetchJWTBundles(proto.JWTBundlesRequest(), metadata=HEADER, timeout=DEADLINE))
        trust_domain = served.spiffe_id.trust_domain
        assert JwtBundle.parse(trust_domain, response.bundles[f"spiffe://{trust_domain}"]).keys

    await asyncio.to_thread(use)


async def test_jwt_svid_has_spires_form_and_is_cached(served: Served) -> None:
    """Claims aud, exp, iat and sub, and no more; asked again at once, the same token."""

    def use() -> None:
        request = proto.JWTSVIDRequest(audience=[thumbprint()], spiffe_id=str(served.spiffe_id))
        with raw_stub(served.socket) as stub:
            first = stub.FetchJWTSVID(request, metadata=HEADER, timeout=DEADLINE)
            second = stub.FetchJWTSVID(request, metadata=HEADER, timeout=DEADLINE)
        assert [svid.spiffe_id for svid in first.svids] == [str(served.spiffe_id)]
        assert first.svids[0].svid == second.svids[0].svid
        header, claims = (json.loads(unpadded(part)) for part in first.svids[0].svid.split(".")[:2])
        assert set(claims) == {"aud", "exp", "iat", "sub"}
        assert claims["aud"] in (request.audience[0], [request.audience[0]])
        assert set(header) <= {"alg", "kid", "typ"}

    await asyncio.to_thread(use)


async def test_jwt_svids_for_all_identities_without_a_spiffe_id(served: Served) -> None:
    """An empty SPIFFE ID asks for all identities, ours among them."""

    def use() -> None:
        with raw_stub(served.socket) as stub:
            answer = stub.FetchJWTSVID(proto.JWTSVIDRequest(audience=[thumbprint()]), metadata=HEADER, timeout=DEADLINE)
        assert str(served.spiffe_id) in [svid.spiffe_id for svid in answer.svids]

    await asyncio.to_thread(use)


async def test_validate_jwt_svid(served: Served) -> None:
    """Validated for its audience, refused for another."""

    def use() -> None:
        audience = thumbprint()
        with WorkloadApiClient(served.socket, default_timeout=DEADLINE) as client:
            token = client.fetch_jwt_svid({audience}).token
            assert str(client.validate_jwt_svid(token, audience).spiffe_id) == str(served.spiffe_id)
            with pytest.raises(PySpiffeError):
                client.validate_jwt_svid(token, thumbprint())

    await asyncio.to_thread(use)


Call = Callable[[workload_pb2_grpc.SpiffeWorkloadAPIStub, tuple[tuple[str, str], ...]], object]

CALLS: dict[str, Call] = {
    "FetchX509SVID": lambda s, m: next(s.FetchX509SVID(proto.X509SVIDRequest(), metadata=m, timeout=DEADLINE)),
    "FetchX509Bundles": lambda s, m: next(s.FetchX509Bundles(proto.X509BundlesRequest(), metadata=m, timeout=DEADLINE)),
    "FetchJWTSVID": lambda s, m: s.FetchJWTSVID(proto.JWTSVIDRequest(audience=["a"]), metadata=m, timeout=DEADLINE),
    "FetchJWTBundles": lambda s, m: next(s.FetchJWTBundles(proto.JWTBundlesRequest(), metadata=m, timeout=DEADLINE)),
    "ValidateJWTSVID": lambda s, m: s.ValidateJWTSVID(
        proto.ValidateJWTSVIDRequest(audience="a", svid="a.b.c"), metadata=m, timeout=DEADLINE
    ),
}


@pytest.mark.parametrize("rpc", sorted(CALLS))
@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "false"),)], ids=["absent", "false"])
async def test_security_header_is_enforced(served: Served, rpc: str, metadata: tuple[tuple[str, str], ...]) -> None:
    """SPIFFE_Workload_Endpoint.md section 3: without `workload.spiffe.io: true`, `InvalidArgument`."""

    def use() -> None:
        with raw_stub(served.socket) as stub, pytest.raises(grpc.RpcError) as caught:
            CALLS[rpc](stub, metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    await asyncio.to_thread(use)


@pytest.mark.parametrize("rpc", ["FetchWITSVID", "FetchWITBundles"])
async def test_wit_profile_is_unimplemented(served: Served, rpc: str) -> None:
    """SPIFFE_Workload_API.md section 7: without the profile, `Unimplemented`."""

    def use() -> None:
        with grpc.insecure_channel(f"unix:{served.socket.removeprefix('unix://')}") as channel:
            call = channel.unary_stream(
                f"/SpiffeWorkloadAPI/{rpc}", request_serializer=bytes, response_deserializer=bytes
            )
            with pytest.raises(grpc.RpcError) as caught:
                next(call(b"", metadata=HEADER, timeout=DEADLINE))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    await asyncio.to_thread(use)


async def test_jwt_svid_needs_an_audience(served: Served) -> None:
    """No audience: `InvalidArgument`."""
    assert await asyncio.to_thread(status_of_token, served.socket, []) is grpc.StatusCode.INVALID_ARGUMENT


async def test_jwt_svid_of_another_is_denied(served: Served) -> None:
    """A SPIFFE ID that is not ours: `PermissionDenied`."""
    other = f"spiffe://{served.spiffe_id.trust_domain}/not/ours"
    assert await asyncio.to_thread(status_of_token, served.socket, ["a"], other) is grpc.StatusCode.PERMISSION_DENIED


async def test_workload_identity_is_whole(served: Served) -> None:
    """Our own edge on it: one SPIFFE ID everywhere, and a credential that any reader accepts."""
    async with WorkloadIdentity.connect(served.socket, deadline=DEADLINE) as identity:
        sealer = identity.sealer()
        assert identity.spiffe_id == identity.x509().spiffe_id == sealer.iss == served.spiffe_id
        says = verify_credential(
            sealer.credential,
            ClaimedKey(sealer.iss, sealer.key.public, sealer.crd),
            reference=wall_clock(),
            trust=Trust(bundles=identity.bundles()),
            caches=Caches(),
        )
        assert says.exp == sealer.expires


def status_of_token(socket: str, audience: list[str], spiffe_id: str = "") -> object:
    with raw_stub(socket) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.FetchJWTSVID(
            proto.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id), metadata=HEADER, timeout=DEADLINE
        )
    return caught.value.code()


def unpadded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
