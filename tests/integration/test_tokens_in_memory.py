"""No agent's process ever holds a user's token: their memory is searched while they work for the user, and afterwards.

A search that finds nothing says something only where it would have found it: in each agent it finds what the user sent, and
the token in the processes that do hold it, the client and the edge.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from support.dev_process import running
from support.memory import search_memory
from support.workload_api import short_folder

pytestmark = [
    *(pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow),
    pytest.mark.skipif(sys.platform != "linux", reason="memory of another process is read by /proc"),
]

WITHIN = 60.0

APP = """
import asyncio
from pathlib import Path
from pydantic import BaseModel
from sealbus import Agent, Context, Resource

inventory, pricing = Agent("inventory"), Agent("pricing")
HERE = Path(__file__).parent


class Update(BaseModel):
    item_id: str
    quantity: int


class Price(BaseModel):
    cents: int


async def item(body: Update) -> Resource:
    return Resource("item", body.item_id, owner="alice", customer="acme", region="always")


@inventory.task("update", resource=item, facts=["quantity"])
async def update(body: Update, ctx: Context) -> Price:
    return await ctx.call("pricing.quote", body, returns=Price)


@pricing.call("quote", timeout=30.0)
async def quote(body: Update, ctx: Context) -> Price:
    (HERE / "reached").touch()
    while not (HERE / "released").exists():
        await asyncio.sleep(0.02)
    return Price(cents=len(body.item_id))
"""

# It logs in, sends its request and follows the task to its end, so that the edge has a request with the token all the while.
CLIENT = """
import sys
from pathlib import Path
import httpx2
from sealbus.agents.dev.idp.access import fetch_token, read_access

access, edge, item = sys.argv[1:]
token = fetch_token(read_access(Path(access)), {"user": "alice", "client": "dev"})["access_token"]
print(token, flush=True)
with httpx2.Client(base_url=edge, trust_env=False, timeout=60, headers={"Authorization": f"Bearer {token}"}) as http:
    taken = http.post("/v1/tasks/inventory/update", json={"item_id": item, "quantity": 3})
    assert taken.status_code == 202, taken.text
    with http.stream("GET", taken.json()["status_url"] + "/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                print(line.removeprefix("data: "), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Whole:
    """A user's task at work: the processes by name, what is looked for in them, and what the client says."""

    folder: Path
    agents: Mapping[str, int]
    """What must not hold the token."""
    holders: Mapping[str, int]
    """What does."""
    token: bytes = field(repr=False)
    """Its signature: whatever holds the token holds it, and without it the token is worth nothing."""
    body: bytes
    """What every agent gets."""
    said: IO[str]

    def where(self, markers: Mapping[str, bytes], processes: Mapping[str, int]) -> set[tuple[str, str]]:
        """Return what is found in which process."""
        return {(one.marker, name) for name, pid in processes.items() for one in search_memory(pid, markers)}


@pytest.fixture
def whole() -> Iterator[Whole]:
    with short_folder() as folder, ExitStack() as stack:
        (folder / "app.py").write_text(APP)
        stack.enter_context(
            running(folder, "dev", "--port", "0", "--edge-port", "0", "--console-port", "0", ready="ready:")
        )
        settings, body = folder / ".sealbus" / "dev.toml", secrets.token_urlsafe(24)
        agents = {
            name: stack.enter_context(
                running(folder, "worker", "run", f"app.py:{name}", "--config", str(settings), ready="runs as")
            ).pid
            for name in ("inventory", "pricing")
        }
        # An edge of its own: that of `sealbus dev` shares a process with the identity provider.
        edge = stack.enter_context(
            running(
                folder, "edge", "serve", "--json", "--address", "127.0.0.1:0", "--config", str(settings),
                ready='"port"', SEALBUS_EDGE__TOKEN_SERVICE="127.0.0.1:0",
            )
        )  # fmt: skip
        url = f"http://127.0.0.1:{json.loads(edge.line)['port']}"
        with client(settings.with_name("idp.json"), url, body) as (pid, said):
            token = said.readline().strip()
            assert token.count(".") == 2
            wait_for(folder / "reached")
            try:
                yield Whole(
                    folder=folder, agents=agents, holders={"client": pid, "edge": edge.pid},
                    token=token.rpartition(".")[2].encode(), body=body.encode(), said=said,
                )  # fmt: skip
            finally:
                (folder / "released").touch()


@contextmanager
def client(access: Path, edge: str, item: str) -> Iterator[tuple[int, IO[str]]]:
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(access), edge, item],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, process.stdout


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} did not come"
        time.sleep(0.02)


def test_no_agent_holds_the_token_while_it_works_or_afterwards(whole: Whole) -> None:
    looked_for = {"token": whole.token, "body": whole.body}
    everywhere = {("body", name) for name in whole.agents}
    assert whole.where(looked_for, whole.agents) == everywhere
    assert whole.where({"token": whole.token}, whole.holders) == {("token", name) for name in whole.holders}

    (whole.folder / "released").touch()
    while not (state := json.loads(whole.said.readline()))["final"]:
        pass
    assert state["state"] == "completed"
    assert whole.where({"token": whole.token}, whole.agents) == set()
