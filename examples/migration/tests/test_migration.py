"""Each step, with a plain NATS server for the old world and a real one for the new."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from sealbus import Denied
from sealbus.testing import LiveBus

import before
import bridge
import stock
from sender import send


@pytest.fixture
async def old_server() -> AsyncIterator[str]:
    """Run a plain NATS server: no identities, no encryption, no permissions."""
    binary = shutil.which("nats-server") or str(Path(sys.executable).parent / "nats-server")
    process = await asyncio.create_subprocess_exec(
        binary, "-a", "127.0.0.1", "-p", "-1", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    address = ""
    while b"Server is ready" not in (line := await process.stderr.readline()):
        assert line, "nats-server has ended"
        _, is_address, rest = line.decode().partition("Listening for client connections on ")
        address = rest.strip() if is_address else address
    yield f"nats://{address}"
    process.terminate()
    await process.wait()


async def asked(server: str, body: bytes) -> bytes:
    """Send as an old sender does."""
    async with await nats.connect(server) as connection:
        while True:
            try:
                return (await connection.request("stock.update", body, timeout=10)).data
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0)


async def test_before(old_server: str) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(before.main(old_server, stop))
        assert await asked(old_server, b'{"item_id": "42", "quantity": 5000}') == b"ok"
        stop.set()
    assert before.STOCK["42"] == 5_000


async def test_old_senders_go_on_through_the_bridge(old_server: str, live_bus: LiveBus) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(bridge.main(old_server, stop, await live_bus.client("bridge")))
        assert await asked(old_server, b'{"item_id": "42", "quantity": 7}') == b"ok"
        assert stock.STOCK["42"] == 7
        # What the old server would have let anybody do, the policy does not.
        assert await asked(old_server, b'{"item_id": "42", "quantity": 5000}') == b"refused: denied"
        assert await asked(old_server, b"not JSON") == b"refused: bad_body"
        stop.set()
    assert stock.STOCK["42"] == 7


async def test_new_senders_act_for_users(live_bus: LiveBus) -> None:
    web = await live_bus.client("web")
    assert await send(web, await live_bus.user("alice", "web"), "42", 500) == 500
    with pytest.raises(Denied) as denied:
        await send(web, await live_bus.user("bob", "web"), "42", 1)
    assert denied.value.reasons == ("not_owner",)
