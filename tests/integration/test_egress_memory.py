"""No agent's process ever holds what an API is shown: their memory is searched, and that of the exit, where it is found."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from support.desk import DESK, OPERATIONS, desk_policy, key_file, provided, written
from support.issuer import TRUSTS_NOBODY
from support.legacy import ApiKeys, LegacyApi, OAuth
from support.memory import search_memory
from support.oidc_provider import ES256_API, EXIT, LEGACY_API

from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.runtime.settings.schema import IssuerTable

pytestmark = [
    *(pytest.mark.nats, pytest.mark.workload_api, pytest.mark.idp, pytest.mark.slow),
    pytest.mark.skipif(sys.platform != "linux", reason="memory of another process is read by /proc"),
]

KEY = "api-key-5d1e8a7c90b34f26"
CUSTOMER = "42"
TESTS = Path(__file__).parents[1]
APP = """
from support.desk import DESK as desk
"""


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[Process]:
    """Run a command of sealbus until it says that it is ready, then until the end; it must stop cleanly."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sealbus", *arguments, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert process.stdout is not None
    try:
        assert json.loads(await process.stdout.readline())["ready"]
        yield process
    finally:
        process.terminate()
        assert await process.wait() == 0


async def found(pid: int, markers: dict[str, bytes]) -> set[str]:
    return {one.marker for one in await asyncio.to_thread(search_memory, pid, markers)}


async def test_only_the_exit_holds_what_services_are_shown() -> None:
    async with (
        provided() as (provider, folder),
        LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as modern,
        LegacyApi(ApiKeys({"old": KEY})) as old,
    ):
        exit_key = key_file(folder / "exit.pem", provider.exit_key.as_pem(private=True).decode())
        apis = {
            "crm": {
                "url": modern.url, "operations": OPERATIONS, "grant": "jwt_bearer", "issuer": provider.issuer,
                "client": EXIT, "client_key": str(exit_key),
                "resource": LEGACY_API, "users": [provider.issuer],
            },
            "old": {
                "url": old.url, "operations": OPERATIONS, "grant": "key", "key": str(key_file(folder / "old.key", KEY)),
            },
        }  # fmt: skip
        row = IssuerTable(issuer=provider.issuer, audiences=(ES256_API,), algorithms=("ES256",))
        options = DevOptions(
            folder=folder / "dev",
            agents=("shop-web", DESK.name, "exit"),
            policy=desk_policy(folder / "policy", *apis),
            issuers=(row,),
            port=0,
            max_bytes=1 << 24,
        )
        async with open_environment(options) as dev:
            settings = folder / "exit.toml"
            settings.write_text(dev.settings_file.read_text() + written(folder / "apis.toml", apis).read_text())
            (folder / "app.py").write_text(APP)
            config = ("--config", str(settings))
            async with (
                serving("edge", "exit", *config) as way_out,
                serving("worker", "run", f"{folder / 'app.py'}:desk", *config) as desk,
            ):
                alice = await provider.user_token("alice", ES256_API)
                async with httpx2.AsyncClient(
                    base_url=dev.edge.front.resource, trust_env=False, verify=TRUSTS_NOBODY, timeout=60
                ) as http:
                    for api in apis:
                        body = {"customer": CUSTOMER, "api": api}
                        answer = await http.post(
                            "/v1/calls/desk/look", json=body, headers={"Authorization": f"Bearer {alice}"}
                        )
                        assert answer.json()["status"] == 200, answer.text
                [shown] = modern.received[0].header("authorization")
                markers = {
                    "issued token": shown.rpartition(".")[2].encode(),
                    "API key": KEY.encode(),
                    "user's token": alice.rpartition(".")[2].encode(),
                    # What the agent does hold: what the service said, as whom.
                    "answer": json.dumps(
                        {"id": CUSTOMER, "notes": [], "seen_by": "alice"}, separators=(",", ":")
                    ).encode(),
                }
                assert await found(desk.pid, markers) == {"answer"}
                there = await found(way_out.pid, markers)
                assert there >= {"issued token", "API key"}
                assert "user's token" not in there
