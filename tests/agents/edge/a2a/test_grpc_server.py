"""The gRPC server: what it refuses, with which status, over which certificate, and who has to read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
import pytest
from a2a.types import GetTaskRequest, SendMessageRequest, TaskState
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from support.a2a import Lines, Site, asking, site
from support.engines import ScriptedEngine, allow, deny
from support.lab import until
from support.x509 import ThrowawayCa

from sealbus.agents.edge.a2a.grpc_server import Certificate
from sealbus.envelopes.errors import ConfigurationError

UNKNOWN = GetTaskRequest(tenant="writer", id="0" * 32)
SHOWN: dict[str, object] = {"type": "show_reasons"}
LOGIN: dict[str, object] = {"type": "remedy", "kind": "login", "acr": "urn:x:2", "max_age": 300}


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def running(tmp_path: Path, lines: Lines, engine: ScriptedEngine) -> AsyncIterator[Site]:
    async with site(tmp_path, lines.agent, engine=engine) as found:
        yield found
        lines.go_on.set()


@asynccontextmanager
async def stub(running: Site) -> AsyncIterator[A2AServiceStub]:
    async with grpc.aio.insecure_channel(running.grpc) as channel:
        yield A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # it has no types


def shown(running: Site, **claims: Any) -> tuple[tuple[str, str], ...]:
    return (("authorization", running.door.authorized(**claims)["Authorization"]),)


def sent(skill: str, arguments: object) -> SendMessageRequest:
    request = asking(skill, arguments)
    request.tenant = "writer"
    return request


async def refused(call: Any) -> tuple[str, dict[str, Any]]:
    """Return the status with which a request is refused, and its problem, if there is one."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    problem = dict(failed.value.trailing_metadata()).get("sealbus-problem-bin", b"{}")
    return failed.value.code().name, json.loads(problem)


async def test_nothing_is_answered_without_a_token(running: Site) -> None:
    async with stub(running) as client:
        for fields in ((), (("authorization", "Bearer no.token.here"),), (("authorization", "x" * 40_000),)):
            status, _ = await refused(client.SendMessage(sent("writer.shout", "hey"), metadata=fields))
            assert status in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
            stream = client.SendStreamingMessage(sent("writer.write", {"value": 1}), metadata=fields)
            assert (await refused(stream.read()))[0] in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")
    assert running.door.published()["TASKS"] == 0


async def test_the_tenant_names_the_agent_and_nothing_else(running: Site) -> None:
    async with stub(running) as client:
        for tenant in ("", "inventory", "writer/..", "<script>"):
            request = sent("writer.shout", "hey")
            request.tenant = tenant
            assert (await refused(client.SendMessage(request, metadata=shown(running))))[0] == "INVALID_ARGUMENT"
        answer = await client.SendMessage(sent("writer.shout", "hey"), metadata=shown(running))
        assert answer.message.parts[0].data.string_value == "HEY"


async def test_denials_are_told_as_grpc_tells_them(running: Site, engine: ScriptedEngine) -> None:
    denial = deny("late", obligations=(SHOWN, LOGIN))
    engine.verdict = lambda one: allow() if one["action"]["name"].endswith(".reply") else denial
    async with stub(running) as client:
        status, problem = await refused(client.SendMessage(sent("writer.shout", "hey"), metadata=shown(running)))
    assert (status, problem["code"], problem["reasons"]) == ("PERMISSION_DENIED", "denied", ["late"])
    assert problem["remedy"][0]["acr"] == "urn:x:2"


async def test_tasks_of_others_are_not_found(running: Site, lines: Lines) -> None:
    lines.go_on.set()
    async with stub(running) as client:
        answer = await client.SendMessage(sent("writer.write", {"value": 1}), metadata=shown(running))
        assert answer.task.status.state == TaskState.TASK_STATE_COMPLETED
        request = GetTaskRequest(tenant="writer", id=answer.task.id)
        assert (await client.GetTask(request, metadata=shown(running))).id == answer.task.id
        assert (await refused(client.GetTask(request, metadata=shown(running, sub="bob"))))[0] == "NOT_FOUND"


async def test_who_asks_is_looked_at_before_their_message_and_the_message_has_to_come(
    tmp_path: Path, lines: Lines
) -> None:
    async with (
        site(tmp_path, lines.agent, limits={"body_seconds": 0.2}) as running,
        grpc.aio.insecure_channel(running.grpc) as channel,
    ):
        silent = channel.stream_stream("/lf.a2a.v1.A2AService/SendMessage")
        assert (await refused(silent().read()))[0] == "UNAUTHENTICATED"
        assert (await refused(silent(metadata=shown(running)).read()))[0] == "DEADLINE_EXCEEDED"
        empty = silent(metadata=shown(running))
        await empty.done_writing()
        assert (await refused(empty.read()))[0] == "INVALID_ARGUMENT"
        garbage = channel.unary_unary("/lf.a2a.v1.A2AService/SendMessage")
        assert (await refused(garbage(b"\xff" * 8, metadata=shown(running))))[0] == "INTERNAL"


async def test_a_message_of_100_mb_is_refused(running: Site) -> None:
    address = running.grpc
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        client = A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # it has no types
        call = client.SendMessage(sent("writer.shout", "x" * 104_857_600), metadata=shown(running))
        assert (await refused(call))[0] == "RESOURCE_EXHAUSTED"


async def test_users_and_addresses_ask_no_more_often_than_over_http(tmp_path: Path, lines: Lines) -> None:
    limits = {"user_burst": 2.5, "user_rate": 0.001}
    async with site(tmp_path, lines.agent, limits=limits) as running, stub(running) as client:
        found = [(await refused(client.GetTask(UNKNOWN, metadata=shown(running))))[0] for _ in range(3)]
        assert (found[0], found[-1]) == ("NOT_FOUND", "RESOURCE_EXHAUSTED")
    async with site(tmp_path, lines.agent, limits={"address_burst": 2, "address_rate": 0.001}) as running:
        async with stub(running) as client:
            assert (await refused(client.GetTask(UNKNOWN)))[0] == "UNAUTHENTICATED"
            assert (await refused(client.GetTask(UNKNOWN)))[0] == "UNAUTHENTICATED"
            assert (await refused(client.GetTask(UNKNOWN)))[0] == "RESOURCE_EXHAUSTED"
        counters, route = running.door.edge.node.counters, "/lf.a2a.v1.A2AService/GetTask"
        statuses = ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED")

        def counted() -> list[float]:
            return [counters.value("sealbus_edge_requests_total", route=route, status=status) for status in statuses]

        # A request is counted once its answer was sent.
        await until(lambda: sum(counted()) == 3)
        assert counted() == [2, 1]


@pytest.mark.slow
async def test_who_does_not_read_a_stream_is_cut_off(tmp_path: Path) -> None:
    lines = Lines(line="x" * 60_000)
    lines.go_on.set()
    async with site(tmp_path, lines.agent, limits={"event_streams_of_user": 1}) as running, stub(running) as client:
        stream = client.SendStreamingMessage(sent("writer.write", {"value": 200}), metadata=shown(running))
        await stream.read()

        async def opens() -> bool:
            again = client.SendStreamingMessage(sent("writer.write", {"value": 0}), metadata=shown(running))
            try:
                await again.read()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
                return False
            again.cancel()
            return True

        assert not await opens()
        async with asyncio.timeout(60):
            while not await opens():
                pass
        stream.cancel()


async def test_an_unforeseen_error_is_not_told(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("sealbus.agents.edge.a2a.handler.reading", broken)
    async with stub(running) as client:
        answer = await client.SendMessage(sent("writer.write", {"value": 0}), metadata=shown(running))
        request = GetTaskRequest(tenant="writer", id=answer.task.id)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.GetTask(request, metadata=shown(running))
    assert (failed.value.code().name, failed.value.details()) == ("INTERNAL", "The edge failed.")


async def test_tls_shows_the_edges_certificate_and_its_replacement(tmp_path: Path, lines: Lines) -> None:
    ca = ThrowawayCa("example.org")
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"

    def write(authority: ThrowawayCa) -> None:
        issued = authority.issue("spiffe://example.org/any", addresses=["127.0.0.1"])
        key.touch(mode=0o600)
        key.write_bytes(issued.key_pem)
        certificate.write_bytes(issued.cert_pem)

    async def asked(trusted: ThrowawayCa) -> str:
        credentials = grpc.ssl_channel_credentials(trusted.cert_pem)
        async with grpc.aio.secure_channel(there.grpc, credentials) as channel:
            client = A2AServiceStub(channel)  # type: ignore[no-untyped-call]  # it has no types
            return (await refused(client.GetTask(UNKNOWN, metadata=shown(there))))[0]

    write(ca)
    async with site(tmp_path, lines.agent, certificate=certificate, key=key) as there:
        assert await asked(ca) == "NOT_FOUND"
        other = ThrowawayCa("example.org")
        write(other)
        assert await asked(other) == "NOT_FOUND"
        certificate.unlink()
        assert await asked(other) == "NOT_FOUND"


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"edge\.certificate and edge\.key cannot be read"):
        Certificate(tmp_path / "absent.pem", tmp_path / "absent.key")


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    async def opened() -> None:
        lines = Lines()
        async with site(tmp_path, lines.agent) as running:
            taken = running.grpc
            async with site(tmp_path, lines.agent, settings={"grpc": taken}):
                pass

    with pytest.raises(ConfigurationError, match=r"edge\.a2a\.grpc .* cannot be used"):
        asyncio.run(opened())
