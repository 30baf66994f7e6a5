"""The sidecar engine: faults that a real OPA will not produce on demand, and a real one killed, paused and restarted."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.opa import OpaServer
from support.opa_faults import BROKEN, NONSENSE, Handler, answer_well, batch_of, codes, good, serving_on_socket
from support.policies import bundle, document, eventually, put

from sealbus.envelopes.errors import Code, ConfigurationError, PolicyUnavailable
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.policies.opa import http as opa_http
from sealbus.policies.opa.batches import BATCH


@pytest.fixture
def socket() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="opa-"))
    yield folder / "opa.sock"
    shutil.rmtree(folder)


@asynccontextmanager
async def serving(socket: Path, handler: Handler, *, deadline: float = 60.0) -> AsyncGenerator[SidecarEngine, None]:
    """Serve `handler` in OPA's place."""
    async with serving_on_socket(socket, handler), SidecarEngine(socket, deadline=deadline) as engine:
        yield engine


async def test_what_is_asked(socket: Path) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await answer_well(request)

    async with serving(socket, handler) as engine:
        assert codes(await engine.decide([document()] * 2)) == ["allow", "allow"]
    [request] = seen
    assert (request.method, request.path) == ("POST", "/v1/data/sealbus/authz/batch")
    assert dict(request.query) == {"provenance": "true", "strict-builtin-errors": "true"}
    assert request.content_type == "application/json"


async def test_questions_are_bounded_in_size_and_number(socket: Path) -> None:
    sizes: list[int] = []
    running = most = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sizes.append(len(await batch_of(request)))
        await asyncio.sleep(0.01)
        running -= 1
        return await answer_well(request)

    async with serving(socket, handler) as engine:
        answers = await asyncio.gather(engine.decide([document()] * 230), engine.decide([document()] * 120))
    assert [len(one) for one in answers] == [230, 120]
    assert sorted(sizes) == [20, 30, 50, 50, 50, 50, 50, 50]
    assert most == 2
    assert max(sizes) == BATCH


@pytest.mark.parametrize(("handler", "code"), NONSENSE)
async def test_nonsense_never_allows(socket: Path, handler: Handler, code: Code) -> None:
    async with serving(socket, handler) as engine:
        assert codes(await engine.decide([document()])) == [code]
        assert codes(await engine.decide([document()] * 3)) == [code] * 3


@pytest.mark.parametrize("handler", BROKEN)
async def test_broken_answers_are_unavailable(socket: Path, handler: Handler) -> None:
    async with serving(socket, handler) as engine:
        assert codes(await engine.decide([document()] * 2)) == [Code.POLICY_UNAVAILABLE] * 2
        assert (await engine.status()).problem


async def test_the_largest_answer(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opa_http, "REPLY_BYTES", len(json.dumps(good(1)).encode()))
    async with serving(socket, answer_well) as engine:
        assert codes(await engine.decide([document()])) == ["allow"]
        assert codes(await engine.decide([document()] * 2)) == [Code.POLICY_UNAVAILABLE] * 2


async def test_the_deadline_is_for_the_whole_call(socket: Path) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(socket, never, deadline=0.1) as engine:
        assert codes(await engine.decide([document()] * 230)) == [Code.POLICY_UNAVAILABLE] * 230
        assert (await engine.status()).problem == "OPA did not answer within 0.1 s"


async def test_one_that_fails_is_found_in_a_few_questions(socket: Path) -> None:
    questions = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal questions
        questions += 1
        batch = await batch_of(request)
        if any(one["action"]["name"] == "bad" for one in batch):
            errors = [{"code": "eval_builtin_error"}]
            return web.json_response({"code": "internal_error", "errors": errors}, status=500)
        return web.json_response(good(len(batch)))

    asked = [document("bad" if number == 17 else "yes") for number in range(50)]
    async with serving(socket, handler) as engine:
        found = codes(await engine.decide(asked))
    assert found == ["allow"] * 17 + [Code.POLICY_ERROR] + ["allow"] * 32
    assert questions <= 13


async def test_a_missing_answer_is_found_too(socket: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        batch = await batch_of(request)
        known = [one for one in batch if one["action"]["name"] != "bad"]
        return web.json_response(good(len(known)))

    async with serving(socket, handler) as engine:
        found = codes(await engine.decide([document("yes"), document("bad"), document("yes")]))
    assert found == ["allow", Code.POLICY_ERROR, "allow"]


async def test_cancellation_ends_a_call(socket: Path) -> None:
    asked = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(socket, never) as engine:
        deciding = asyncio.create_task(engine.decide([document()]))
        await asked.wait()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding


async def test_nobody_listens(socket: Path) -> None:
    async with SidecarEngine(socket) as engine:
        [answer] = await engine.decide([document()])
        assert codes([answer]) == [Code.POLICY_UNAVAILABLE]
        assert str(socket) in str(answer)


async def test_leaving_twice_and_before_entering(socket: Path) -> None:
    await SidecarEngine(socket).__aexit__(None, None, None)


def test_a_socket_path_that_is_too_long() -> None:
    with pytest.raises(ConfigurationError, match="shorter path"):
        SidecarEngine(Path("/" + "x" * 107))
    assert SidecarEngine(Path("/" + "x" * 106)).name == "sidecar"


@pytest.fixture
def opa(tmp_path: Path) -> Iterator[OpaServer]:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), file)
    with OpaServer("--bundle", str(file)) as server:
        yield server


@pytest.mark.opa
async def test_a_real_opa_killed_and_started_again(opa: OpaServer) -> None:
    async with SidecarEngine(opa.socket) as engine:
        assert codes(await engine.decide([document()] * 3)) == ["allow"] * 3
        await asyncio.to_thread(opa.kill)
        assert codes(await engine.decide([document()] * 120)) == [Code.POLICY_UNAVAILABLE] * 120
        await asyncio.to_thread(opa.start)
        assert codes(await engine.decide([document()] * 3)) == ["allow"] * 3


@pytest.mark.opa
async def test_a_real_opa_restarted_between_two_calls(opa: OpaServer) -> None:
    """The kept connection is dead by then, and nobody has noticed."""
    async with SidecarEngine(opa.socket) as engine:
        assert codes(await engine.decide([document()])) == ["allow"]
        opa.kill()
        opa.start()
        assert codes(await engine.decide([document()])) == ["allow"]


@pytest.mark.opa
async def test_a_real_opa_that_hangs(opa: OpaServer) -> None:
    async with SidecarEngine(opa.socket, deadline=0.3) as engine:

        async def answers() -> bool:
            return codes(await engine.decide([document()])) == ["allow"]

        await eventually(answers)
        opa.pause()
        assert codes(await engine.decide([document()] * 120)) == [Code.POLICY_UNAVAILABLE] * 120
        opa.resume()
        await eventually(answers)


@pytest.mark.opa
async def test_a_real_opa_without_a_bundle(tmp_path: Path) -> None:
    policy = tmp_path / "a.rego"
    put(b"package sealbus.authz\n\nbatch := input.batch\n", policy)
    with OpaServer(str(policy)) as opa:
        async with SidecarEngine(opa.socket) as engine:
            assert codes(await engine.decide([document()])) == [Code.POLICY_ERROR]
            assert "no bundle" in (await engine.status()).problem


@pytest.mark.opa
async def test_a_real_opa_that_hangs_lets_nobody_in(opa: OpaServer) -> None:
    async with SidecarEngine(opa.socket, deadline=0.2) as engine:
        opa.pause()
        answer = await engine.connect(b"{}")
        opa.resume()
    assert isinstance(answer, PolicyUnavailable)
    assert "0.2 s" in answer.detail
