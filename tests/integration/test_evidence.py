"""Evidence from a real deployment: agents on NATS, a notary, and the commands that read its log, each as a process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from independent import verify_export as independent
from support.notary import ORIGIN, SIGNER
from support.sealed_log import sealed
from support.shop import Shop, Update

from sealbus import Client, Denied
from sealbus.agents.control.notary import open_notary
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.denial import Remedy, RemedyKind

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SEALBUS = str(Path(sys.executable).parent / "sealbus")
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": allow, "reasons": [reason], "obligations": obligations, "policy": "test"} if {
	allow := object.get(request.action.properties, "quantity", 0) < 100
	reason := {true: "few enough", false: "too many"}[allow]
	obligations := {true: [], false: [{"type": "show_reasons"}, ask, bribe]}[allow]
}

ask := {"type": "remedy", "kind": "ask", "whom": "the manager"}

bribe := {"type": "remedy", "kind": "bribe", "whom": "the manager"}
"""


@dataclass
class Deployment:
    """A running deployment with a log, and the settings file that the commands get."""

    environment: Environment
    settings: Path
    log: Path
    client: Client

    async def sealed(self) -> None:
        """Wait until everything that AUDIT holds now is under a checkpoint, but the checkpoints after the rest."""
        await sealed(self.environment.settings, self.log, SIGNER.verifier)


async def sealbus(*arguments: str | Path, code: int = 0) -> str:
    """Run a command and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        SEALBUS, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == code, (arguments, out.decode(), err.decode())
    return out.decode()


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "authz.rego").write_text(POLICY)
    agents = ("notary", "inventory", "pricing", "web")
    options = DevOptions(folder=tmp_path / "dev", agents=agents, port=-1, policy=policy, max_bytes=1 << 28)
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(open_environment(options))
        await environment.nats.permit(environment.names.id_of("notary"), BrokerRole.NOTARY)
        key, settings, log = tmp_path / "log.key", tmp_path / "sealbus.toml", tmp_path / "log"
        key.write_text(SIGNER.secret_text() + "\n")
        key.chmod(0o600)
        lines = [f'origin = "{ORIGIN}"', f'keys = ["{key}"]', f'folder = "{log}"', "lease = 3"]
        settings.write_text("\n".join([environment.settings_file.read_text(), "[control.notary]", *lines]) + "\n")
        group = await stack.enter_async_context(asyncio.TaskGroup())
        notary = await stack.enter_async_context(open_notary(load_settings(settings)))
        stack.callback(group.create_task(notary.run()).cancel)
        stop, shop = asyncio.Event(), Shop()
        for agent in (shop.inventory, shop.pricing):
            node = await stack.enter_async_context(open_node(agent.name, environment.settings))
            running = await stack.enter_async_context(Worker(agent, node))
            task = group.create_task(running.run(stop))
            stack.push_async_callback(finish, stop, task)
            await running.ready.wait()
        client = await stack.enter_async_context(Client("web", settings=environment.settings))
        yield Deployment(environment, settings, log, client)


async def finish(stop: asyncio.Event, task: asyncio.Task[bool]) -> None:
    stop.set()
    await asyncio.wait([task])


async def test_from_tasks_to_evidence(deployment: Deployment, tmp_path: Path) -> None:
    client, root, export = deployment.client, tmp_path / "root.json", tmp_path / "export"
    common = ("--config", deployment.settings)
    handles = [
        await client.submit("inventory.update", Update(item_id=str(number), quantity=quantity))
        for number, quantity in enumerate((1, 2, 500))
    ]
    order = await client.submit("inventory.order", Update(item_id="9", quantity=3))
    for handle in (*handles[:2], order):
        await handle.result()
    with pytest.raises(Denied) as denied:
        await handles[2].result()
    assert denied.value.remedies == (Remedy(kind=RemedyKind.ASK, whom="the manager"),)
    async with open_connection("inventory", deployment.environment.settings) as (_, connection):
        garbage = Outgoing(subject="audit.inventory", payload=b"garbage that an agent may store")
        await NatsTransport(connection).publish([garbage], deadline=60.0)
    await deployment.sealed()

    root.write_text(await sealbus("audit", "root", "--key", SIGNER.verifier.text, *common))
    trust = ("--root", root)
    await sealbus("audit", "export", export, *trust, *common)
    assert await sealbus("audit", "verify", export, *trust) == "verified\n"
    report = json.loads(await sealbus("audit", "verify", export, *trust, "--json"))
    assert report["entries"]["unverified"] == 1
    assert report["records"]["decision"] >= 5
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert (theirs.findings, theirs.garbage) == ([], 1)
    assert theirs.records == sum(report["records"].values())
    for given in (trust, ()):
        assert await sealbus("audit", "verify", "--live", *given, *common) == "verified\n"

    [policy] = (export / "policies").iterdir()
    assert policy.read_bytes() == (deployment.log / "policies" / policy.name).read_bytes()
    assert report["records"]["policy"] == 1
    made = json.loads(await sealbus("audit", "verify", export, *trust, "--decisions", "--json"))["decisions"]
    assert made["compared"] == made["same"] == made["read"] == report["records"]["decision"]
    # In the running deployment the garbage stands in the stream, and is said to verify as nothing.
    for source, findings in ((("--export", export, *trust), 0), (common, 1)):
        asked = ("policy", "backtest", *source, "--fail-on", "not-replayable=0", "--json")
        again = json.loads(await sealbus(*asked, code=4 if findings else 0))
        assert (again["asked"], again["compared"], again["same"]) == ("own", made["read"], made["read"])
        assert (again["findings"], again["failed"]) == (findings, [])

    ident = order.message_id
    shown = json.loads((await sealbus("audit", "show", ident, *trust, *common, "--json")).splitlines()[0])
    assert (shown["action"], shown["allow"]) == ("inventory.order", True)
    assert [one["code"] for one in shown["outcomes"]] == [""]
    # What the policy said, whether or not it could be told: made again above, and the same for both verifiers.
    refused = await sealbus("audit", "show", handles[2].message_id, *trust, *common, "--json")
    assert json.loads(json.loads(refused.splitlines()[0])["obligations"]) == [
        {"type": "show_reasons"},
        {"kind": "ask", "type": "remedy", "whom": "the manager"},
        {"kind": "bribe", "type": "remedy", "whom": "the manager"},
    ]
    receipt = tmp_path / "receipt.txt"
    await sealbus("audit", "receipt", ident, *trust, "--export", export, "--output", receipt)
    assert (await sealbus("audit", "receipt", "verify", receipt, *trust)).endswith("verified\n")
    rows = [json.loads(line) for line in (await sealbus("audit", "stats", *trust, *common, "--json")).splitlines()]
    counts = {(row["action"], row["verdict"]): row["count"] for row in rows}
    assert counts["inventory.update", "allow"] == 2
    assert counts["inventory.update", "deny"] == 1
    assert counts["pricing.quote", "allow"] == 1

    policy.unlink()
    assert "missing_file" in await sealbus("audit", "verify", export, *trust, code=4)
    message = export / "messages" / "000"
    message.write_bytes(message.read_bytes().replace(b"few enough", b"few enougH", 1))
    said = await sealbus("audit", "verify", export, *trust, code=4)
    assert "bad_digest" in said
    assert independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes())).findings


async def test_a_log_that_is_changed_is_found_in_the_running_deployment(deployment: Deployment, tmp_path: Path) -> None:
    root, common = tmp_path / "root.json", ("--config", deployment.settings)
    handle = await deployment.client.submit("inventory.update", Update(item_id="1", quantity=1))
    await handle.result()
    await deployment.sealed()
    root.write_text(await sealbus("audit", "root", "--key", SIGNER.verifier.text, *common))
    assert await sealbus("audit", "verify", "--live", "--root", root, *common) == "verified\n"
    held = tmp_path / "held"
    held.write_bytes((deployment.log / CHECKPOINT).read_bytes())
    root.write_text(await sealbus("audit", "root", "--key", SIGNER.verifier.text, "--checkpoint", held, *common))
    # Of several partial tiles only the widest counts under the last checkpoint.
    tile = max((deployment.log / "tile" / "entries").rglob("*.p/*"), key=lambda path: int(path.name))
    tile.write_bytes(bytes(len(tile.read_bytes())))
    said = await sealbus("audit", "verify", "--live", "--root", root, *common, code=4)
    assert "bad_tile" in said
