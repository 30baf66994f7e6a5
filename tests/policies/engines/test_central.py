"""The central engine: several OPAs, of which any may be gone, slow, wrong or somebody else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from support.central_opa import OPA_ID, WORKER, CentralOpa, tls_of
from support.identity import StaticIdentity
from support.opa import OpaServer
from support.opa_faults import BROKEN, NONSENSE, Handler, always, answer_well, batch_of, codes, good, serving_tls
from support.policies import bundle, document, eventually
from support.ports import held_port
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.runtime.policy.opa_tls import OpaTls
from sealbus.bus.nats.connection.tls import server_context
from sealbus.envelopes.errors import Code, ConfigurationError, PolicyUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines import central
from sealbus.policies.engines.central import URLS, CentralEngine
from sealbus.policies.engines.circuit_breaker import AFTER

CA = ThrowawayCa("example.org")
UNAVAILABLE = Code.POLICY_UNAVAILABLE


def engine_of(*urls: str, deadline: float = 60.0) -> CentralEngine:
    return CentralEngine(urls, tls=tls_of(CA), deadline=deadline)


@asynccontextmanager
async def asking(*handlers: Handler, deadline: float = 60.0) -> AsyncGenerator[CentralEngine, None]:
    """Enter an engine over one server for each of at most two handlers."""
    first, *rest = handlers
    async with serving_tls(CA, first) as url:
        if rest:
            async with serving_tls(CA, rest[0]) as other, engine_of(url, other, deadline=deadline) as engine:
                yield engine
        else:
            async with engine_of(url, deadline=deadline) as engine:
                yield engine


def counting(handler: Handler) -> tuple[list[int], Handler]:
    """Return `handler`, and the sizes of the questions that it was asked."""
    sizes: list[int] = []

    async def counted(request: web.Request) -> web.StreamResponse:
        sizes.append(len(await batch_of(request)))
        return await handler(request)

    return sizes, counted


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def dead() -> str:
    return f"https://127.0.0.1:{held_port()}"


async def one(engine: CentralEngine) -> PolicyUnavailable | Decision:
    [answer] = await engine.decide([document()])
    assert isinstance(answer, PolicyUnavailable | Decision)
    return answer


@pytest.mark.parametrize(
    "urls", [[], ["https://a", "https://a/"], [f"https://a{number}" for number in range(URLS + 1)]]
)
def test_it_asks_a_few_different_servers(urls: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="1 to 8 different URLs"):
        engine_of(*urls)


@pytest.mark.parametrize(("handler", "code"), NONSENSE)
async def test_nonsense_never_allows(handler: Handler, code: Code) -> None:
    async with asking(handler) as engine:
        assert codes(await engine.decide([document()])) == [code]
    async with asking(handler) as engine:
        assert codes(await engine.decide([document()] * 3)) == [code] * 3


@pytest.mark.parametrize("handler", BROKEN)
async def test_broken_answers_are_unavailable(handler: Handler) -> None:
    async with asking(handler) as engine:
        assert codes(await engine.decide([document()] * 2)) == [UNAVAILABLE] * 2
        assert (await engine.status()).problem


@pytest.mark.parametrize("url", ["https://user@opa", "https://:password@opa"])
def test_an_address_has_no_login(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not https://HOST:PORT"):
        engine_of(url)


async def test_it_asks_only_while_it_is_entered() -> None:
    engine = engine_of("https://127.0.0.1:1")
    await engine.__aexit__(None, None, None)
    assert "not entered" in str(await one(engine))
    assert (await engine.status()).problem == "the engine is not entered"


async def test_questions_are_bounded_in_number() -> None:
    running = most = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await answer_well(request)

    async with asking(handler) as engine:
        answers = await asyncio.gather(*(engine.decide([document()] * 120) for _ in range(4)))
    assert [codes(one) for one in answers] == [["allow"] * 120] * 4
    assert most == central.IN_FLIGHT


async def test_the_deadline_is_for_the_whole_call() -> None:
    async with asking(never, deadline=0.2) as engine:
        answers = await engine.decide([document()] * 330)
        assert codes(answers) == [UNAVAILABLE] * 330
        assert {str(one) for one in answers if "turn" in str(one)} == {
            f"{UNAVAILABLE}: there was no turn to ask OPA within 0.2 s"
        }


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], ids=["silent", "in the body"]
)
async def test_a_question_that_is_left_keeps_no_connection_to_a_server_that_hangs(answer: bytes) -> None:
    """A close of TLS waits 30 s for the other side's, which a server that hangs does not send."""
    ended = asyncio.Event()

    def handshake(tls: ssl.SSLObject) -> bool:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(StaticIdentity(CA, OPA_ID).x509(), trust_domain=TrustDomain("example.org"))
        tls = context.wrap_bio(arrived, leaving, server_side=True)
        done = False
        with suppress(ConnectionError):
            while raw := await reader.read(65536):
                arrived.write(raw)
                if not done and (done := handshake(tls)) and answer:
                    tls.write(answer)
                writer.write(leaving.read())
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, engine_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadline=1.0) as engine:
        assert codes(await engine.decide([document()])) == [UNAVAILABLE]
        async with asyncio.timeout(15):
            await ended.wait()


async def test_the_first_that_is_well_decides() -> None:
    sizes, second = counting(answer_well)
    async with asking(answer_well, second) as engine:
        assert codes(await engine.decide([document()] * 120)) == ["allow"] * 120
    assert sizes == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [never, always(b"oops", 500), always(b"{}"), always(b"{}", 401), *BROKEN])
async def test_where_one_fails_the_next_decides(fault: Handler) -> None:
    first, faulty = counting(fault)
    async with asking(faulty, answer_well, deadline=4.0) as engine:
        for _ in range(AFTER + 1):
            assert codes(await engine.decide([document()])) == ["allow"]
    # Those broken off are asked again, for the connection might have been an old one.
    assert AFTER <= len(first) <= AFTER * (1 + central.IN_FLIGHT)


async def test_what_cannot_be_evaluated_is_not_asked_of_the_next() -> None:
    failing = always(b'{"code": "internal_error", "errors": [{"code": "eval_conflict_error"}]}', 500)
    sizes, second = counting(answer_well)
    async with asking(failing, second) as engine:
        for _ in range(2 * AFTER):
            assert codes(await engine.decide([document()])) == [Code.POLICY_ERROR]
    assert sizes == []


async def test_the_circuit_opens_fails_closed_at_once_and_closes_by_one_trial() -> None:
    broken = True
    sizes: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        sizes.append(len(await batch_of(request)))
        return web.Response(status=503) if broken else await answer_well(request)

    async with asking(handler) as engine:
        for _ in range(AFTER):
            assert "status" in str(await one(engine)) or "JSON" in str(await one(engine))
        sizes.clear()
        answers = await engine.decide([document()] * 120)
        assert codes(answers) == [UNAVAILABLE] * 120
        assert sizes == []
        assert all(isinstance(found, PolicyUnavailable) and "circuit is open" in found.detail for found in answers)
        broken = False

        async def allows() -> bool:
            return codes([await one(engine)]) == ["allow"]

        await eventually(allows)
        assert sizes == [1]
        assert codes(await engine.decide([document()] * 120)) == ["allow"] * 120


async def test_while_one_question_is_on_trial_the_others_fail_closed() -> None:
    broken, sizes, go_on = True, [], asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if broken:
            return web.Response(status=503)
        sizes.append(len(await batch_of(request)))
        await go_on.wait()
        return await answer_well(request)

    async with asking(handler) as engine:
        while "circuit" not in str(await one(engine)):
            pass
        broken = False
        trial: asyncio.Task[PolicyUnavailable | Decision] | None = None

        async def tried() -> bool:
            nonlocal trial
            if trial is None or trial.done():
                trial = asyncio.create_task(one(engine))
            await asyncio.sleep(0.01)
            return bool(sizes)

        await eventually(tried)
        assert "circuit is open" in str(await one(engine))
        go_on.set()
        assert trial is not None
        assert codes([await trial]) == ["allow"]
        assert sizes == [1]


async def test_a_cancelled_trial_leaves_its_place_to_the_next() -> None:
    hang = asyncio.Event()
    state = "broken"

    async def handler(request: web.Request) -> web.StreamResponse:
        if state == "broken":
            return web.Response(status=503)
        if state == "hangs":
            hang.set()
            await asyncio.Event().wait()
        return await answer_well(request)

    async with asking(handler) as engine:
        while "circuit" not in str(await one(engine)):
            pass
        state = "hangs"
        trial = asyncio.create_task(one(engine))

        async def hanging() -> bool:
            nonlocal trial
            if trial.done():
                trial = asyncio.create_task(one(engine))
            return hang.is_set()

        await eventually(hanging)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        state = "well"
        assert codes([await one(engine)]) == ["allow"]


@pytest.mark.slow
async def test_a_call_that_was_nearly_over_is_no_failure_of_the_server() -> None:
    """Documents that fail are searched for in halves, for as long as there is time."""
    asked = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if len(await batch_of(request)) == 1:
            return await answer_well(request)
        await asyncio.sleep(0.45)
        return web.json_response({"code": "internal_error", "errors": []}, status=500)

    async with asking(handler, deadline=1.2) as engine:
        for _ in range(2 * AFTER):
            assert UNAVAILABLE in codes(await engine.decide([document()] * 50))
        assert codes([await one(engine)]) == ["allow"]


async def test_status_tells_the_revision_and_who_is_missed() -> None:
    gone = dead()

    async def other(request: web.Request) -> web.StreamResponse:
        return web.json_response(good(len(await batch_of(request)), "r2"))

    async with (
        serving_tls(CA, answer_well) as first,
        serving_tls(CA, other) as second,
        serving_tls(CA, always(b"{}")) as third,
        engine_of(gone, first, second, third) as engine,
    ):
        status = await engine.status()
    assert (status.engine, status.revision, status.problem) == ("central", "r1", "")
    assert status.missed == (
        f"OPA at {gone} does not answer: ClientConnectorError",
        f"{second} decides by revision r2, not r1",
        f"{third}: OPA has no data.sealbus.authz.batch, or it is not an array",
    )


async def test_a_status_that_goes_well_closes_the_circuit() -> None:
    broken = True

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if broken else await answer_well(request)

    async with asking(handler) as engine:
        while "circuit" not in str(await one(engine)):
            pass
        assert not (await engine.status()).revision
        broken = False
        assert (await engine.status()).revision == "r1"
        assert codes([await one(engine)]) == ["allow"]


async def test_without_an_svid_nothing_is_asked_and_no_server_is_blamed() -> None:
    sizes, handler = counting(answer_well)
    identity = StaticIdentity(CA, WORKER)
    tls = OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))
    async with serving_tls(CA, handler) as url, CentralEngine([url], tls=tls) as engine:
        material, identity.material = identity.material, None
        for _ in range(2 * AFTER):
            assert "OPA cannot be asked" in str(await one(engine))
        assert "OPA cannot be asked" in (await engine.status()).problem
        assert sizes == []
        identity.material = material
        assert codes([await one(engine)]) == ["allow"]


async def test_a_rotated_svid_is_shown_from_the_next_question_on() -> None:
    serials: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        serials.append(request.transport.get_extra_info("peercert")["serialNumber"])
        return await answer_well(request)

    identity = StaticIdentity(CA, WORKER)
    tls = OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))
    async with serving_tls(CA, handler) as url, CentralEngine([url], tls=tls) as engine:
        for _ in range(3):
            assert codes([await one(engine)] * 2) == ["allow"] * 2
            identity.rotate()
    assert len(serials) == len(set(serials)) == 3


@pytest.fixture
def bundle_file(tmp_path: Path) -> Path:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), file)
    return file


StartOpa = Callable[..., CentralOpa]


@pytest.fixture
def start(bundle_file: Path) -> Iterator[StartOpa]:
    """Start real OPAs, each with an SVID of its own."""
    with ExitStack() as stack:

        def started(svid: IssuedSvid | None = None) -> CentralOpa:
            return stack.enter_context(CentralOpa(CA, bundle_file, svid=svid))

        yield started


@pytest.mark.opa
async def test_a_real_opa_killed_in_the_middle_of_a_batch(start: StartOpa) -> None:
    """Whatever is answered was decided; the rest is unavailable, and decided once OPA is back."""
    opa = start()
    async with engine_of(opa.url) as engine:
        asking = [asyncio.create_task(engine.decide([document()] * 500)) for _ in range(8)]
        await asyncio.wait(asking, return_when="FIRST_COMPLETED")
        await asyncio.to_thread(opa.kill)
        found = [code for task in asking for code in codes(await task)]
        assert len(found) == 4000
        assert set(found) == {"allow", UNAVAILABLE}
        await asyncio.to_thread(opa.start)

        async def well() -> bool:
            return codes(await engine.decide([document()] * 120)) == ["allow"] * 120

        await eventually(well)


@pytest.mark.opa
async def test_a_real_opa_restarted_between_two_calls(start: StartOpa) -> None:
    opa = start()
    async with engine_of(opa.url) as engine:
        assert codes([await one(engine)]) == ["allow"]
        await asyncio.to_thread(opa.kill)
        await asyncio.to_thread(opa.start)
        assert codes([await one(engine)]) == ["allow"]


@pytest.mark.opa
async def test_of_two_real_opas_the_second_decides_while_the_first_is_dead(start: StartOpa) -> None:
    first, second = start(), start()
    async with engine_of(first.url, second.url) as engine:
        assert codes(await engine.decide([document()] * 120)) == ["allow"] * 120
        assert (await engine.status()).missed == ()
        await asyncio.to_thread(first.kill)
        assert codes(await engine.decide([document()] * 500)) == ["allow"] * 500
        status = await engine.status()
        assert status.revision == "r1"
        [missed] = status.missed
        assert first.url in missed
        await asyncio.to_thread(first.start)
        assert (await engine.status()).missed == ()
        await asyncio.to_thread(second.kill)
        assert codes(await engine.decide([document()] * 500)) == ["allow"] * 500


@pytest.mark.opa
async def test_a_real_opa_that_hangs_costs_its_share_of_the_deadline(start: StartOpa) -> None:
    first, second = start(), start()
    async with engine_of(first.url, second.url, deadline=4.0) as engine:
        assert codes([await one(engine)]) == ["allow"]
        first.pause()
        for _ in range(AFTER + 1):
            assert codes(await engine.decide([document()] * 60)) == ["allow"] * 60
        first.resume()

        async def well() -> bool:
            return (await engine.status()).missed == ()

        await eventually(well)


@pytest.mark.opa
@pytest.mark.parametrize(
    ("svid", "says"),
    [
        (CA.issue("spiffe://example.org/agent/planner"), "the server is spiffe://example.org/agent/planner"),
        (CA.issue(OPA_ID, uris=[OPA_ID, "spiffe://example.org/x"]), "2 URI names"),
        (CA.issue(OPA_ID, authority=True), "CertificateError"),
        (CA.issue(OPA_ID, life=-60, age=120), "certificate has expired"),
        (ThrowawayCa("example.org").issue(OPA_ID), "CertificateError"),
        (ThrowawayCa("partner.example").issue(OPA_ID), "CertificateError"),
    ],
    ids=["another id", "two ids", "an authority", "expired", "another authority", "a federated authority"],
)
async def test_a_real_opa_that_is_somebody_else_is_not_asked(start: StartOpa, svid: IssuedSvid, says: str) -> None:
    opa = start(svid)
    async with engine_of(opa.url) as engine:
        answer = await one(engine)
        assert isinstance(answer, PolicyUnavailable)
        assert says in answer.detail
        assert says in (await engine.status()).problem


@pytest.mark.opa
async def test_the_bundle_of_a_federated_trust_domain_is_not_looked_at(start: StartOpa) -> None:
    """The partner's authority is trusted for the partner's names, never for ours."""
    partner = ThrowawayCa("partner.example")
    opa = start(partner.issue(OPA_ID))
    identity = StaticIdentity(CA, WORKER, federated=(partner,))
    tls = OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))
    async with CentralEngine([opa.url], tls=tls) as engine:
        assert "CertificateError" in str(await one(engine))


@pytest.mark.opa
async def test_a_new_server_svid_is_in_use_within_seconds_and_breaks_nothing(start: StartOpa) -> None:
    opa = start(CA.issue("spiffe://example.org/agent/planner"))
    async with engine_of(opa.url) as engine:
        assert codes([await one(engine)]) == [UNAVAILABLE]
        opa.show(CA.issue(OPA_ID))

        async def well() -> bool:
            return codes([await one(engine)]) == ["allow"]

        await eventually(well)
        opa.show(CA.issue("spiffe://example.org/agent/planner"))
        assert codes([await one(engine)]) == ["allow"]


@pytest.mark.opa
async def test_an_authority_that_was_rotated_is_trusted_within_seconds(start: StartOpa) -> None:
    opa, new = start(), ThrowawayCa("example.org")
    identity = StaticIdentity(CA, WORKER)
    identity.show(new.issue(WORKER))
    async with CentralEngine([opa.url], tls=OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))) as engine:
        assert "UNKNOWN_CA" in str(await one(engine)) or "does not answer" in str(await one(engine))
        opa.trust(CA, new)

        async def well() -> bool:
            return codes([await one(engine)]) == ["allow"]

        await eventually(well)


@pytest.mark.opa
async def test_a_real_opa_without_tls_is_not_asked(bundle_file: Path) -> None:
    port = held_port()
    with OpaServer("--addr", f"127.0.0.1:{port}", "--bundle", str(bundle_file)):
        async with engine_of(f"https://127.0.0.1:{port}") as engine:
            assert "TLS failed" in str(await one(engine))
        with pytest.raises(ConfigurationError, match="is not https"):
            engine_of(f"http://127.0.0.1:{port}")


@pytest.mark.opa
@pytest.mark.parametrize(
    ("svid", "says"),
    [
        (CA.issue("spiffe://example.org/agent/stranger"), "status 401: it does not let this workload ask"),
        (ThrowawayCa("example.org").issue(WORKER), "does not answer"),
        (ThrowawayCa("partner.example").issue("spiffe://partner.example/agent/planner"), "does not answer"),
    ],
    ids=["unknown", "another authority", "another trust domain"],
)
async def test_a_workload_that_opa_does_not_know_gets_nothing(start: StartOpa, svid: IssuedSvid, says: str) -> None:
    opa = start()
    identity = StaticIdentity(CA, WORKER)
    assert identity.material is not None
    identity.show(svid)
    async with CentralEngine([opa.url], tls=OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))) as engine:
        answer = await one(engine)
        assert isinstance(answer, PolicyUnavailable)
        assert says in answer.detail
        assert says in (await engine.status()).problem
