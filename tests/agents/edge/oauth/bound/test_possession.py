"""Tokens that are bound to a key, at a real listener: who holds the key is let in, once for each proof, at any process."""

from __future__ import annotations

import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.dpop import Holder
from support.edge import ENDS_SOON, Door, door, edge_table
from support.engines import ScriptedEngine
from support.envelopes import NOW
from support.issuer import TRUSTS_NOBODY, compact, signed
from support.shop import Shop
from support.sites import site_of
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.peer import CLIENT_CERTIFICATE
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.bearer import Presented, Scheme
from sealbus.agents.edge.oauth.bound.dpop import Proof, ProofRefused
from sealbus.agents.edge.oauth.bound.possession import Possession
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken, Binding, BindingKind
from sealbus.bus.work.idempotency.replay_guard import SLOTS, ReplayGuard
from sealbus.envelopes.errors import BusUnavailable, StateUnavailable
from sealbus.envelopes.limits import SECOND

CALL = "/v1/calls/pricing/quote"
ORIGIN = "https://edge.example"
BODY = b'{"item_id": "42"}'


@asynccontextmanager
async def opened(**changes: Any) -> AsyncIterator[Door]:
    async with door(Shop().pricing, engine=ScriptedEngine(), **changes) as edge:
        yield edge


def fields(token: str, *proofs: str, scheme: str = "DPoP") -> list[tuple[str, str]]:
    listed = [("Content-Type", "application/json"), ("Authorization", f"{scheme} {token}")]
    return listed + [("DPoP", proof) for proof in proofs]


@asynccontextmanager
async def beside(edge: Door, tls: ssl.SSLContext = TRUSTS_NOBODY, **changes: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Run another process of the edge, with other settings, and give a client of it."""
    node = (await edge.bus.client("edge")).node
    scheme = "http" if tls is TRUSTS_NOBODY else "https"
    async with (
        serve_edge(edge_table(edge.issuer, **changes), node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as other,
        httpx2.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{other.port}", trust_env=False, timeout=60, verify=tls
        ) as http,
    ):
        yield http


async def called(edge: Door, token: str, *proofs: str, scheme: str = "DPoP") -> httpx2.Response:
    return await edge.http.post(CALL, content=BODY, headers=fields(token, *proofs, scheme=scheme))


async def test_who_holds_the_key_is_let_in_once_for_each_proof() -> None:
    holder = Holder()
    async with opened() as edge:
        token = edge.issuer.token(cnf=holder.cnf)
        proof = holder.proof(token, "POST", ORIGIN + CALL)
        assert (await called(edge, token, proof)).status_code == 200
        again = await called(edge, token, proof)
        assert (again.status_code, again.json()["code"]) == (401, "bad_dpop_proof")
        assert again.headers["www-authenticate"].startswith('DPoP error="invalid_dpop_proof", algs="ES256 ')
        assert (await called(edge, token, holder.proof(token, "POST", ORIGIN + CALL))).status_code == 200
        assert "dpop-nonce" not in again.headers


async def test_another_process_of_the_edge_knows_what_was_used() -> None:
    holder = Holder()
    async with opened() as edge, beside(edge) as http:
        token = edge.issuer.token(cnf=holder.cnf)
        proof = holder.proof(token, "POST", ORIGIN + CALL)
        assert (await called(edge, token, proof)).status_code == 200
        answer = await http.post(CALL, content=BODY, headers=fields(token, proof))
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_dpop_proof")


async def test_whatever_lacks_gets_nowhere() -> None:
    holder, other = Holder(), Holder()
    async with opened() as edge:
        bound, free = edge.issuer.token(cnf=holder.cnf), edge.issuer.token()
        good = holder.proof(bound, "POST", ORIGIN + CALL)
        for answer, code in (
            (await called(edge, bound), "bad_dpop_proof"),
            (await called(edge, bound, good, good), "bad_dpop_proof"),
            (await called(edge, bound, ""), "bad_dpop_proof"),
            (await called(edge, bound, other.proof(bound, "POST", ORIGIN + CALL)), "bad_dpop_proof"),
            (await called(edge, bound, holder.proof(bound, "GET", ORIGIN + CALL)), "bad_dpop_proof"),
            (await called(edge, bound, holder.proof(bound, "POST", ORIGIN + CALL + "x")), "bad_dpop_proof"),
            (await called(edge, bound, holder.proof(free, "POST", ORIGIN + CALL)), "bad_dpop_proof"),
            (await called(edge, bound, good, scheme="Bearer"), "bad_token"),
            (await called(edge, bound, scheme="Bearer"), "bad_token"),
            (await called(edge, free, holder.proof(free, "POST", ORIGIN + CALL)), "bad_token"),
            (await called(edge, edge.issuer.token(cnf={"x5t#S256": holder.cnf["jkt"]}), scheme="Bearer"), "bad_token"),
            (await called(edge, edge.issuer.token(cnf={"x5t#S256": holder.cnf["jkt"]}), good), "bad_token"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert not any(edge.published().values())
        # And what was shown with something else was not used up by it.
        assert (await called(edge, bound, good)).status_code == 200


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        {"jkt": 7},
        {"jkt": "short"},
        {"jkt": "x" * 44},
        {"jwk": {"kty": "EC"}},
        {"kid": "x"},
        {"jkt": "x" * 43, "x5t#S256": "x" * 43},
        [],
        "x" * 43,
        None,
    ],
    ids=str,
)
async def test_a_token_that_is_bound_in_another_way_is_refused(cnf: object) -> None:
    async with opened() as edge:
        claims = {**edge.issuer.claims(), "cnf": cnf}
        token = compact(edge.issuer.header(), claims, signed("ES256", edge.issuer.keys["key-1"]))
        for scheme in ("Bearer", "DPoP"):
            answer = await called(edge, token, scheme=scheme)
            assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (401, "bad_token", "cnf")


async def test_without_the_bus_no_proof_is_taken_for_unused() -> None:
    holder = Holder()
    async with opened() as edge:
        token = edge.issuer.token(cnf=holder.cnf)
        edge.bus.broker.fail("STATE", BusUnavailable("down"))
        answer = await called(edge, token, holder.proof(token, "POST", ORIGIN + CALL))
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        assert edge.published()["AUDIT"] == 0


async def test_with_a_nonce_key_a_proof_holds_what_the_edge_gave_out(tmp_path: Path) -> None:
    key = tmp_path / "nonce.key"
    write_key(key)
    holder = Holder()
    async with opened(nonce_key=key) as edge:
        token = edge.issuer.token(cnf=holder.cnf)
        asked = await called(edge, token, holder.proof(token, "POST", ORIGIN + CALL))
        assert (asked.status_code, asked.json()["code"]) == (401, "use_dpop_nonce")
        assert asked.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce", ')
        nonce = asked.headers["dpop-nonce"]
        done = await called(edge, token, holder.proof(token, "POST", ORIGIN + CALL, nonce=nonce))
        assert (done.status_code, done.headers["dpop-nonce"]) == (200, nonce)
        free = await called(edge, edge.issuer.token(), scheme="Bearer")
        assert (free.status_code, "dpop-nonce" in free.headers) == (200, False)


async def test_an_issuer_may_have_to_bind_its_tokens() -> None:
    holder = Holder()
    async with opened() as edge:
        row = edge_table(edge.issuer).issuers[0].model_copy(update={"bound": True})
        async with beside(edge, issuers=(row,)) as http:
            token = edge.issuer.token()
            free = await http.post(CALL, content=BODY, headers=fields(token, scheme="Bearer"))
            assert (free.status_code, free.json()["detail"]) == (401, "cnf: not bound to a key")
            token = edge.issuer.token(cnf=holder.cnf)
            proof = holder.proof(token, "POST", ORIGIN + CALL)
            assert (await http.post(CALL, content=BODY, headers=fields(token, proof))).status_code == 200


def client_tls(ca: ThrowawayCa, of_server: ThrowawayCa, folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return the TLS of a client with a certificate by `ca`, and how a token is bound to that."""
    leaf = ca.issue("spiffe://example.org/client")
    file = folder / f"{id(leaf)}.pem"
    file.write_bytes(leaf.cert_pem + leaf.key_pem)
    context = trusting(of_server)
    context.load_cert_chain(file)
    return context, urlsafe_b64encode(sha256(leaf.cert_der).digest()).rstrip(b"=").decode()


def trusting(of_server: ThrowawayCa) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=of_server.cert_pem.decode())


async def test_a_token_may_be_bound_to_a_certificate(tmp_path: Path) -> None:
    ours, clients = ThrowawayCa("example.org"), ThrowawayCa("clients.example")
    leaf = ours.issue("spiffe://example.org/edge", addresses=["127.0.0.1"])
    for name, content in (("edge.pem", leaf.cert_pem), ("edge.key", leaf.key_pem), ("clients.pem", clients.cert_pem)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)
    files = {
        "certificate": tmp_path / "edge.pem",
        "key": tmp_path / "edge.key",
        "client_authorities": tmp_path / "clients.pem",
    }
    holds, value = client_tls(clients, ours, tmp_path)
    another, _ = client_tls(clients, ours, tmp_path)
    stranger, _ = client_tls(ThrowawayCa("clients.example"), ours, tmp_path)
    async with opened() as edge:
        bound, free = edge.issuer.token(cnf={"x5t#S256": value}), edge.issuer.token()
        machine = edge.issuer.token(cnf={"x5t#S256": value}, sub="shop-web")
        for tls, token, status in (
            (holds, bound, 200),
            (holds, free, 200),
            (another, bound, 401),
            (holds, machine, 200),
            (another, machine, 401),
            (another, free, 200),
            (trusting(ours), bound, 401),
            (trusting(ours), free, 200),
        ):
            async with beside(edge, tls, **files) as http:
                answer = await http.post(CALL, content=BODY, headers=fields(token, scheme="Bearer"))
                assert answer.status_code == status
                if status != 200:
                    assert (answer.json()["code"], answer.json()["detail"]) == (
                        "bad_token",
                        "cnf: not the client's certificate",
                    )
                described = await http.get("/.well-known/oauth-protected-resource")
                assert described.json()["tls_client_certificate_bound_access_tokens"] is True
        async with beside(edge, stranger, **files) as http:
            with pytest.raises(httpx2.TransportError):
                await http.post(CALL, content=BODY, headers=fields(bound, scheme="Bearer"))
        # Behind a proxy nobody shows one, whatever a field says.
        told = [*fields(bound, scheme="Bearer"), ("Client-Cert", ":MII=:"), ("X-Client-Cert", value)]
        assert (await edge.http.post(CALL, content=BODY, headers=told)).status_code == 401


class NoGuard:
    """What `check` has no use for."""


@pytest.mark.parametrize(
    "near", [str.swapcase, lambda one: one[:-1], lambda one: one + "A"], ids=["case", "less", "more"]
)
def test_what_it_is_bound_to_is_compared_whole(near: Callable[[str], str]) -> None:
    now, url = 1_800_000_000_000_000, "https://edge.example/v1/calls/pricing/quote"
    possession = Possession("https://edge.example", NoGuard())  # type: ignore[arg-type]  # not asked
    holder = Holder()
    token = AccessToken(
        issuer="https://idp.example", subject="alice", client="web", session="s", scope=(), claims={}, tenant=None, acr=None,
        amr=None, auth_time=None, issued=now, expires=now + 1,
    )  # fmt: skip
    proof = holder.proof("a.b.c", "POST", url, now=now)
    asked = {"type": "http", "method": "POST", "path": CALL, "headers": [(b"dpop", proof.encode())]}
    key = holder.cnf["jkt"]
    good = replace(token, bound=Binding(BindingKind.KEY, key))
    assert possession.check(Presented(Scheme.DPOP, "a.b.c"), good, asked, now=now) is not None
    other = replace(token, bound=Binding(BindingKind.KEY, near(key)))
    with pytest.raises(ProofRefused, match="not the key of the token"):
        possession.check(Presented(Scheme.DPOP, "a.b.c"), other, asked, now=now)
    shown = asked | {CLIENT_CERTIFICATE: key}
    good = replace(token, bound=Binding(BindingKind.CERTIFICATE, key))
    assert possession.check(Presented(Scheme.BEARER, "a.b.c"), good, shown, now=now) is None
    other = replace(token, bound=Binding(BindingKind.CERTIFICATE, near(key)))
    with pytest.raises(TokenRefused, match="not the client's certificate"):
        possession.check(Presented(Scheme.BEARER, "a.b.c"), other, shown, now=now)


def test_a_token_comes_by_the_scheme_of_what_it_is_bound_to() -> None:
    """Also where the client shows the certificate, or a proof, that would do for another scheme."""
    url = "https://edge.example/v1/calls/pricing/quote"
    possession = Possession("https://edge.example", NoGuard())  # type: ignore[arg-type]  # not asked
    holder = Holder()
    certificate = "c" * 43
    token = AccessToken(
        issuer="https://idp.example", subject="alice", client="web", session="s", scope=(), claims={}, tenant=None, acr=None,
        amr=None, auth_time=None, issued=NOW, expires=NOW + 1,
    )  # fmt: skip
    proof = holder.proof("a.b.c", "POST", url, now=NOW)
    asked = {
        "type": "http",
        "method": "POST",
        "path": CALL,
        "headers": [(b"dpop", proof.encode())],
        CLIENT_CERTIFICATE: certificate,
    }
    good = {
        Scheme.DPOP: Binding(BindingKind.KEY, holder.cnf["jkt"]),
        Scheme.BEARER: Binding(BindingKind.CERTIFICATE, certificate),
    }
    for scheme, other in ((Scheme.DPOP, Scheme.BEARER), (Scheme.BEARER, Scheme.DPOP)):
        bound = replace(token, bound=good[scheme])
        possession.check(Presented(scheme, "a.b.c"), bound, asked, now=NOW)
        with pytest.raises(TokenRefused, match="does not belong to this scheme"):
            possession.check(Presented(other, "a.b.c"), bound, asked, now=NOW)
    assert possession.check(Presented(Scheme.BEARER, "a.b.c"), token, asked, now=NOW) is None
    with pytest.raises(TokenRefused, match="does not belong to this scheme"):
        possession.check(Presented(Scheme.DPOP, "a.b.c"), token, asked, now=NOW)


class Process:
    """A process of an edge with a clock of its own; `broker` has another."""

    def __init__(self, broker: MemoryBroker, now: int) -> None:
        self.now = now
        self.guard = ReplayGuard("proof", site_of(broker.connect(), lambda: self.now))
        self.possession = Possession("https://edge.example", self.guard)


def used_proof(issued: int = NOW) -> Proof:
    return Proof(thumbprint="k" * 43, digest=bytes(16), issued=issued)


def stored_at(now: int) -> MemoryBroker:
    broker = MemoryBroker(lambda: now)
    broker.add_stream("STATE", ["state.>"])
    return broker


@pytest.mark.parametrize("early", [1, 0], ids=["until then", "no longer"])
async def test_a_proof_is_used_for_as_long_as_the_slowest_process_takes_it(early: int) -> None:
    """A clock may be off by `future_seconds` either way, and the process with the quicker clock forgets what is over."""
    taken = DEFAULT_EDGE_LIMITS.proof_seconds * SECOND
    apart = 2 * DEFAULT_EDGE_LIMITS.future_seconds * SECOND
    broker = stored_at(NOW + taken + apart)
    quick, slow = Process(broker, NOW + taken), Process(broker, NOW + taken - early)
    await quick.possession.use(used_proof())
    # It writes the same value for another proof, without what is over by its own clock.
    quick.now = NOW + taken + apart - early
    other = SLOTS.to_bytes(2) + bytes(14)
    assert await quick.guard.use(other, made=quick.now, until=quick.now + SECOND)
    if early:
        with pytest.raises(ProofRefused, match="used before"):
            await slow.possession.use(used_proof())
    else:
        await slow.possession.use(used_proof())


async def test_a_proof_may_have_been_used_before_it_says_it_was_made() -> None:
    """Its client's clock may be ahead. What somebody wrote over at that time may have been its use."""
    ahead = DEFAULT_EDGE_LIMITS.future_seconds * SECOND
    broker = stored_at(NOW)
    process = Process(broker, NOW)
    broker.inject("state.inventory.proof.0", b"bytes of another agent")
    with pytest.raises(StateUnavailable):
        await process.possession.use(used_proof(NOW + 2 * ahead))
    await process.possession.use(used_proof(NOW + 2 * ahead + 1))
