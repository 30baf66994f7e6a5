"""The drill: a deployment that works is backed up, loses its server's store, and goes on from the backup.

Printed at its end is the drill's clock (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from independent import verify_export as independent
from support.lab import until
from support.restored_site import APPROVERS, POLICY, Site, Update, captured, sealbus, send_again

from sealbus import Client
from sealbus.agents.backup.files import log_end
from sealbus.agents.dev.environment import Environment
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.clocks import wall_clock
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.bus.sending.status import State
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, parse_parked
from sealbus.envelopes.errors import Code

pytestmark = [pytest.mark.nats, pytest.mark.slow]

WAITING = 100


@pytest.fixture
def site(tmp_path: Path) -> Site:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "authz.rego").write_text(POLICY)
    (policy / "approval.rego").write_text(APPROVERS)
    return Site(tmp_path, policy)


async def test_a_deployment_goes_on_from_its_backup(site: Site, tmp_path: Path) -> None:
    backup, root, common = tmp_path / "backup", tmp_path / "root.json", ("--config", site.settings)
    began = time.monotonic()
    async with site.open() as (environment, client):
        for number in range(20):
            await (await client.submit("inventory.update", Update(item_id=str(number), quantity=number))).result()
        old = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await old.result() == 7
        message = (await captured(environment.settings))[-1]
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
        site.timed("work", began)
        began = time.monotonic()
        said = json.loads(await sealbus("backup", backup, *common, "--json"))
        site.timed("backup", began)
        assert said["streams"][-1]["name"] == "AUDIT"
        assert said["log_last"] <= said["streams"][-1]["last"]
        handle = str(old)
    effects = list(site.effects)

    began = time.monotonic()
    site.empty()
    # As the page says: not each write is synced until the server is started again.
    async with site.bare(sync=False):
        restored = json.loads(await sealbus("restore", backup, *common, "--json"))
        assert (restored["lost"], restored["log"], restored["signed"]) == (0, "kept", True)
        again = await sealbus("restore", backup, *common, code=1)
        assert "streams are here already" in again
        # Until the server is started again a captured message would count twice.
        assert "start nats-server again" in await sealbus("restore", "--check", *common, code=1)
    site.timed("restore", began)
    began = time.monotonic()
    async with site.bare():
        noted = json.loads(await sealbus("notary", "restored", backup, *common, "--json"))
        assert noted["last"] == restored["records"]
    async with site.bare(notary=True):
        assert "a copy of its last message is refused" in await sealbus("restore", "--check", *common)
    site.timed("restart, tell the notary, check", began)

    began = time.monotonic()
    async with site.open() as (environment, client):
        assert all(await send_again(environment.settings, [message]))
        twice = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await twice.result() == 7
        assert await client.handle(handle).result() == 7
        assert site.effects == effects
        new = await client.submit("inventory.update", Update(item_id="new", quantity=1))
        assert await new.result() == 1
        assert site.effects == [*effects, "new"]
        await site.logged(environment)
        site.timed("open, old and new work, logged", began)
        began = time.monotonic()
        report = [
            json.loads(line)
            for line in (await sealbus("audit", "verify", "--live", "--root", root, *common, "--json")).splitlines()
        ]
        assert report[-1]["passed"], report
        assert (report[0]["kind"], report[0]["lost"], report[0]["by"]) == (
            "restored", 0, "spiffe://example.org/agent/operator",
        )  # fmt: skip
        export = tmp_path / "export"
        await sealbus("audit", "export", export, "--root", root, *common)
        site.timed("verify, export", began)
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert theirs.findings == []
    for what, seconds in site.clock:
        print(f"{what}: {seconds:.1f} s")  # noqa: T201


async def test_what_a_backup_does_not_have_is_named_for_ever(site: Site, tmp_path: Path) -> None:
    """Work goes on after the backup, so that the log reaches further: nothing is lost unless an operator says how much."""
    backup, root, common = tmp_path / "backup", tmp_path / "root.json", ("--config", site.settings)
    async with site.open() as (environment, client):
        await (await client.submit("inventory.update", Update(item_id="1", quantity=1))).result()
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
        last = json.loads(await sealbus("backup", backup, *common, "--json"))["streams"][-1]["last"]
        for number in range(3):
            await (await client.submit("inventory.update", Update(item_id=f"lost {number}", quantity=1))).result()
        # The authority makes its next key, and what the log knows of that is lost, too.
        environment.authority.prepare_jwt()
        # Recorded by the notary, which nothing else waits for.
        async with asyncio.timeout(60):
            while len(list((site.log / "trust").iterdir())) < 2:
                await asyncio.sleep(0.05)
        await site.logged(environment)
    logged = log_end(site.log)
    lost = logged - last
    assert lost >= 6
    site.empty()
    async with site.bare():
        said = await sealbus("restore", backup, *common, code=1)
        assert f"has {lost} records after the backup's last: give `--lose {lost}`" in said
        assert "no records" not in said
        await sealbus("restore", backup, "--lose", str(lost - 1), *common, code=1)
        done = json.loads(await sealbus("restore", backup, "--lose", str(lost), *common, "--json"))
        assert (done["records"], done["lost"], done["log"]) == (last, lost, "kept")
    async with site.bare():
        said = await sealbus("notary", "restored", backup, *common, code=1)
        assert f"{lost} records after the backup's last are lost" in said
        noted = json.loads(await sealbus("notary", "restored", backup, "--waiting", "refuse", *common, "--json"))
        assert (noted["last"], noted["streams"]) == (last, [])
        await sealbus("notary", "restored", "--last", str(last + 1), *common, code=1)
    async with site.bare(notary=True):
        said = await sealbus("restore", "--check", *common, code=1)
        assert "what waits in TASKS stays refused" in said
    size = site.size
    async with site.open() as (environment, client):
        assert await (await client.submit("inventory.update", Update(item_id="new", quantity=1))).result() == 1
        # Under the new key, for which the lost record would have vouched: it was recorded again.
        environment.authority.activate_jwt()
        assert await (await client.submit("inventory.update", Update(item_id="newer", quantity=2))).result() == 2
        await site.logged(environment, beyond=size)
        lines = (await sealbus("audit", "verify", "--live", "--root", root, *common, "--json", code=4)).splitlines()
        report = [json.loads(line) for line in lines if line.startswith("{")]
        export = tmp_path / "export"
        await sealbus("audit", "export", export, "--root", root, *common)
    assert [(one["code"], one.get("sequence")) for one in report if one["kind"] == "finding"] == [
        ("lost_records", last + 1)
    ]
    shown = next(one for one in report if one["kind"] == "restored")
    assert (shown["lost"], shown["logged"], shown["ranges"]) == (lost, logged, [[last + 1, logged]])
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert [code for _, code, _ in theirs.findings] == ["lost_records"]


async def decided(digest: bytes, settings: Path) -> list[bool]:
    """Return what AUDIT has on a message: for each of its decisions whether it was allowed."""
    lines = (await sealbus("audit", "replay", "--message", digest.hex(), "--config", settings, "--json")).splitlines()
    return [record["allow"] for record in map(json.loads, lines) if record["kind"] == "decision"]


@pytest.mark.parametrize("waiting", ["handle", "refuse"])
async def test_what_was_done_after_the_backup_is_done_again_only_if_an_operator_says_so(
    site: Site, tmp_path: Path, waiting: str
) -> None:
    """Three tasks and one under `once` wait at the time of the backup. They are done and logged, and that is lost."""
    backup, root, common = tmp_path / "backup", tmp_path / "root.json", ("--config", site.settings)
    async with site.open() as (environment, client):
        await (await client.submit("inventory.update", Update(item_id="before"))).result()
        tasks = {name: await client.submit("stock.count", Update(item_id=name)) for name in ("a", "b", "c")}
        tasks["once"] = await client.submit("stock.book", Update(item_id="once"))
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
        last = json.loads(await sealbus("backup", backup, *common, "--json"))["streams"][-1]["last"]
        async with site.stock(environment):
            assert [await task.result() for task in tasks.values()] == [1, 1, 1, 1]
        await (await client.submit("inventory.update", Update(item_id="after"))).result()
        await site.logged(environment)
        assert [await decided(task.digest, site.settings) for task in tasks.values()] == [[True]] * 4
        texts = {name: str(task) for name, task in tasks.items()}
    once = Counter(["before", "after", *tasks])
    assert Counter(site.effects) == once
    lost, size = log_end(site.log) - last, site.size

    site.empty()
    async with site.bare(sync=False):
        await sealbus("restore", backup, "--lose", str(lost), *common)
    async with site.bare():
        said = await sealbus("notary", "restored", backup, *common, code=1)
        assert f"{lost} records after the backup's last are lost" in said
        noted = json.loads(await sealbus("notary", "restored", backup, "--waiting", waiting, *common, "--json"))
        assert ("TASKS" in [one["name"] for one in noted["streams"]]) is (waiting == "handle")
    async with site.bare(notary=True):
        if waiting == "handle":
            assert "what was restored, up to sequence" in await sealbus("restore", "--check", *common)
        else:
            assert "stays refused" in await sealbus("restore", "--check", *common, code=1)

    async with site.open() as (environment, client), site.stock(environment):
        handles = {name: client.handle(text) for name, text in texts.items()}
        if waiting == "handle":
            assert [await task.result() for task in handles.values()] == [1, 1, 1, 1]
        # Delivered after all that waited.
        assert await (await client.submit("stock.count", Update(item_id="new"))).result() == 1
        await (await client.submit("inventory.update", Update(item_id="newer"))).result()
        await site.logged(environment, beyond=size)
        again = Counter(list(tasks)) if waiting == "handle" else Counter()
        assert Counter(site.effects) == once + again + Counter(["new", "newer"])
        # What was recorded the first time is gone with the records that are lost.
        expected = [True] if waiting == "handle" else []
        assert [await decided(task.digest, site.settings) for task in handles.values()] == [expected] * 4
        if waiting == "refuse":
            assert [await task.status() for task in handles.values()] == [None] * 4
        lines = (await sealbus("audit", "verify", "--live", "--root", root, *common, "--json", code=4)).splitlines()
        report = [json.loads(line) for line in lines if line.startswith("{")]
        export = tmp_path / "export"
        await sealbus("audit", "export", export, "--root", root, *common)
    findings = [(one["code"], one.get("sequence")) for one in report if one["kind"] == "finding"]
    assert findings == [("lost_records", last + 1)]
    shown = next(one for one in report if one["kind"] == "restored")
    assert (shown["lost"], "TASKS" in [one["name"] for one in shown["streams"]]) == (lost, waiting == "handle")
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert [code for _, code, _ in theirs.findings] == ["lost_records"]


async def test_a_cold_copy_goes_on_by_itself(site: Site, tmp_path: Path) -> None:
    root, common, copy = tmp_path / "root.json", ("--config", site.settings), tmp_path / "copy"
    store = site.folder / "dev" / "nats" / "store"
    async with site.open() as (environment, client):
        old = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await old.result() == 7
        message = (await captured(environment.settings))[-1]
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
    shutil.copytree(store, copy / "store")
    shutil.copytree(site.log, copy / "log")
    site.empty()
    shutil.rmtree(site.log)
    shutil.copytree(copy / "store", store)
    shutil.copytree(copy / "log", site.log)
    async with site.open() as (environment, client):
        assert all(await send_again(environment.settings, [message]))
        assert await client.handle(str(old)).result() == 7
        assert await (await client.submit("inventory.update", Update(item_id="new", quantity=1))).result() == 1
        assert site.effects == ["old", "new"]
        await site.logged(environment)
        assert await sealbus("audit", "verify", "--live", "--root", root, *common) == "verified\n"


async def approve(handle: TaskHandle, environment: Environment) -> None:
    """Approve a parked task, as the edge does for a person."""
    async with open_node("edge", environment.settings) as edge:
        found = await edge.held.newest(f"held.stock.task.*.{handle.digest.hex()}", PARKED_TYPE)
        [parked] = [parse_parked(one) for one in found.values()]
        user = mint_user(
            edge.identity.sealer(),
            DevUser("boss", login_age=0.0),
            trust_domain=edge.own.trust_domain,
            now=wall_clock(),
        )
        await edge.sending.approve(
            handle.digest,
            ApprovalRequest(decision=parked.leaf, verdict=Verdict.APPROVE),
            agent=edge.deployment.names.id_of("stock"),
            follows=(),
            user=user,
        )


async def is_in(handle: TaskHandle, state: State) -> bool:
    status = await handle.status()
    return status is not None and status.state is state


async def leave_waiting(site: Site, environment: Environment, client: Client) -> dict[str, TaskHandle]:
    """Leave work of every sort waiting for `stock`, and return the tasks by what they are to do."""
    waiting: dict[str, TaskHandle] = {}
    async with site.stock(environment):
        await (await client.submit("stock.count", Update(item_id="before"))).result()
        waiting["put off"] = await client.submit("stock.later", Update(item_id="put off"))
        waiting["parked"] = await client.submit("stock.pay", Update(item_id="parked"))
        async with asyncio.timeout(30):
            while not (site.tries and await is_in(waiting["parked"], State.INPUT_REQUIRED)):
                await asyncio.sleep(0.05)
    for number in range(WAITING):
        waiting[f"waiting {number}"] = await client.submit("stock.count", Update(item_id=f"waiting {number}"))
        await client.emit("noted", Update(item_id=f"event {number}"))
    waiting["canceled"] = await client.submit("stock.later", Update(item_id="canceled"))
    with suppress(TimeoutError):
        await waiting["canceled"].cancel(reason="not wanted", timeout=0.5)
    async with Client("inventory", settings=environment.settings) as owner:
        sent = await owner.schedules.submit("stock.count", Update(item_id="tick sent"), after=0.2)
        await owner.schedules.submit("stock.count", Update(item_id="tick due meanwhile"), after=8)
        async with asyncio.timeout(30):
            while await owner.schedules.last(sent) is None:
                await asyncio.sleep(0.05)
    return waiting


async def test_what_waited_is_done_after_a_restore(site: Site, tmp_path: Path) -> None:
    """Each once: waiting, put-off and parked tasks, events, cancels, ticks; and what was captured is refused as before."""
    backup, common = tmp_path / "backup", ("--config", site.settings)
    async with site.open() as (environment, client):
        done = await client.submit("inventory.update", Update(item_id="done", quantity=7))
        assert await done.result() == 7
        waiting = await leave_waiting(site, environment, client)
        await site.logged(environment)
        assert json.loads(await sealbus("backup", backup, *common, "--json"))["signed"]
        messages = await captured(environment.settings)
        texts = {what: str(handle) for what, handle in waiting.items()}
    before = list(site.effects)

    site.empty()
    async with site.bare(sync=False):
        await sealbus("restore", backup, *common)
        # The server has forgotten the ids of what it holds: it takes copies of what was captured.
        assert not any(await send_again(load_settings(site.settings), messages))
    async with site.bare():
        assert "stays refused" in await sealbus("restore", "--check", "--within", "0", *common, code=1)
        await sealbus("notary", "restored", backup, *common)
    async with site.bare(notary=True):
        assert "counts" in await sealbus("restore", "--check", *common)

    async with site.open() as (environment, client), site.stock(environment):
        expected = Counter([*before, *texts, *(f"event {number}" for number in range(WAITING))])
        expected.update(["tick sent", "tick due meanwhile"])
        del expected["canceled"]
        await approve(client.handle(texts["parked"]), environment)
        with pytest.raises(RemoteError) as caught:
            await client.handle(texts.pop("canceled")).result()
        assert caught.value.code is Code.CANCELED
        site.calm.set()
        for what, text in texts.items():
            assert await client.handle(text).result() == 1, what
        await until(lambda: len(site.effects) >= expected.total(), seconds=30)
        assert Counter(site.effects) == expected
