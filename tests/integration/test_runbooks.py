"""docs/runbooks.md, executed: one deployment after the other has what a runbook is for, and its commands mend that.

Other files run what needs other things, such as SPIRE or three servers; the page says which.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest
from support.callout import CONF, callout_site
from support.howto import commands_of
from support.lab import until
from support.policies import eventually
from support.ports import held_port
from support.settings import load

from sealbus.agents.cli.main import main
from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.settings_file import running_notary
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.api import audit_stream
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.errors import LogError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.policies.bundle.files import EXAMPLE

pytestmark = [
    pytest.mark.nats,
    pytest.mark.workload_api,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl: the page's keys are made with it"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
ORIGIN: Final = "log.example.org/audit"


def commands(mark: str) -> list[str]:
    """Return the commands of the block with a mark."""
    found = commands_of(PAGE, mark)
    assert found, mark
    return found


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def shell(command: str, **variables: str) -> Said:
    """Run a command as an operator at a terminal would; `sealbus` in this process, where everything is imported already."""
    words = shlex.split(command)
    if words[0] != "sealbus":
        done = subprocess.run(
            ["sh", "-c", command], env=os.environ | variables, capture_output=True, text=True, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)
    out, err = io.StringIO(), io.StringIO()
    words = [variables.get(word.removeprefix("$"), word) if word.startswith("$") else word for word in words]
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", words),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


async def run(command: str, **variables: str) -> Said:
    return await asyncio.to_thread(shell, command, **variables)


async def run_all(mark: str, *, codes: Mapping[int, int] | None = None, **variables: str) -> list[Said]:
    """Run the commands with a mark; each must end with 0, or as `codes` says by its number."""
    done = []
    for number, command in enumerate(commands(mark)):
        one = await run(command, **variables)
        assert one.code == (codes or {}).get(number, 0), (command, one)
        done.append(one)
    return done


async def asked(user: str) -> Said:
    body = '{"item_id": "42", "quantity": 5}'
    return await run(f"sealbus pub task.inventory.update '{body}' --user {user} --wait 30 --json")


async def ends_with(code: int, user: str) -> None:
    """Wait until a task for `user` ends with an exit code: what was pushed is in force a moment later."""

    async def ended() -> bool:
        return (await asked(user)).code == code

    await eventually(ended)


@dataclass(kw_only=True)
class Deployment:
    """A deployment whose policy was pushed with the key in an operator's folder, which is the current one."""

    dev: Environment
    folder: Path
    set: Callable[[str, str], None]
    """Sets a variable of the environment."""
    stack: AsyncExitStack

    async def works(self) -> None:
        """Run a worker of inventory in the background, by the settings as they are now."""
        agent = runpy.run_path(str(ROOT / "docs" / "tour" / "app.py"))["agent"]
        node = await self.stack.enter_async_context(open_node("inventory", load_settings()))
        worker = await self.stack.enter_async_context(Worker(agent, node))
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))

        async def ended() -> None:
            stop.set()
            await running

        self.stack.push_async_callback(ended)
        await worker.ready.wait()

    async def restarts(self, *keys: str) -> None:
        """Start the worker again, with other keys of the policy in the settings of all processes."""
        await self.stack.aclose()
        self.set("SEALBUS_POLICY__KEYS", ",".join(keys))
        await self.works()


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Deployment]:
    folder = tmp_path / "desk"
    shutil.copytree(EXAMPLE, folder / "my-policy")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    options = DevOptions(folder=tmp_path / "dev", agents=("inventory", "shop-web", "notary"), port=0, max_bytes=1 << 24)
    async with open_environment(options) as dev, AsyncExitStack() as stack:
        monkeypatch.setenv("SEALBUS_CONFIG", str(dev.settings_file))
        monkeypatch.setenv("SEALBUS_POLICY__BUNDLE", "nats://policies")
        monkeypatch.setenv("SEALBUS_POLICY__CACHE", "cache")
        monkeypatch.setenv("SEALBUS_POLICY__KEYS", "platform.pub")
        for command in commands("platform: make"):
            assert (await run(command.replace("platform-2", "platform"))).code == 0
        assert (await run("sealbus policy push my-policy --key platform.pem")).code == 0
        found = Deployment(dev=dev, folder=folder, set=monkeypatch.setenv, stack=stack)
        await found.works()
        yield found


def let_carol(policy: Path) -> None:
    """Make carol one who manages the customer of alice's item."""
    file = policy / "sealbus" / "registry" / "users" / "data.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"carol": {"customers": {"acme": True}}}))


async def test_what_was_denied_last_night_is_allowed_in_the_morning(running: Deployment) -> None:
    denied = await asked("carol")
    assert denied.code == 3, denied
    message = json.loads(denied.out.splitlines()[0])["message"]
    # A version with the same library would change nothing.
    await run_all("upgrade: look")

    tasks, decisions = await run_all("denied: look", WHO="carol")
    assert message in tasks.out
    assert "rejected" in tasks.out
    assert "not_owner" in decisions.out
    [why] = await run_all("denied: why", ID=message)
    assert "not_owner" in why.out
    assert "<- failed" in why.out
    let_carol(running.folder / "my-policy")
    _, changes = await run_all("denied: try")
    assert changes.out.index("deny-to-allow") < changes.out.index("carol")
    await run_all("denied: do")
    await ends_with(0, "carol")
    status, morning = await run_all("denied: check", WHO="carol")
    assert ".platform-2" in status.err
    assert "ALLOW" in morning.out


async def test_the_policys_key_is_replaced_and_the_policy_set_back(running: Deployment) -> None:
    await run_all("platform: make")
    await running.restarts("platform.pub", "platform-2.pub")
    before = json.loads((await run("sealbus policy status --json")).out)["key"]
    await run_all("platform: push")
    await run_all("platform: bootstrap")
    await running.restarts("platform-2.pub")
    status, doctor = await run_all("platform: check")
    assert ".platform-2" in status.err
    assert before not in status.out
    assert ".platform-2 from bucket" in doctor.out
    assert (await asked("alice")).code == 0
    refused = await run("sealbus policy push my-policy --key platform.pem")
    assert refused.code == 1
    assert ".signatures.json" in refused.err

    assert (await run(commands("upgrade: check")[0])).code == 0
    let_carol(running.folder / "my-policy")
    for mark, code in (("upgrade: last", 0), ("upgrade: back", 3)):
        for command in commands(mark):
            done = await run(command.replace("platform.pem", "platform-2.pem"), SERIAL="1")
            assert done.code == 0, (command, done)
        await ends_with(code, "carol")


async def test_a_flood_is_counted_and_who_is_denied_is_let_in_again(running: Deployment) -> None:
    assert (await asked("alice")).code == 0
    async with (
        open_connection("operator", running.dev.settings) as (_, connection),
        open_node("shop-web", running.dev.settings) as flooder,
    ):
        [raw] = [one.payload async for batch in NatsTransport(connection).read("TASKS", ["task.>"]) for one in batch]
        changed = raw[:-1] + bytes([raw[-1] ^ 1])
        forged = [
            Outgoing(subject="task.inventory.update", payload=changed, message_id=f"{number:032x}")
            for number in range(30)
        ]
        await flooder.transport.publish(forged, deadline=60.0)

    async def counted() -> bool:
        refused, told = await run_all("flood: look")
        assert "bad_signature" in told.out
        rows = [row.replace("│", "").split() for row in refused.out.splitlines() if "task.inventory.update" in row]
        return [(row[0], row[4]) for row in rows] == [("30", "spiffe://example.org/agent/shop-web")]

    await eventually(counted)
    await run_all("flood: deny", WORKLOAD="shop-web")
    await ends_with(3, "alice")
    _, listed, _ = await run_all("flood: check", WORKLOAD="shop-web")
    assert "floods" in listed.out
    await ends_with(0, "alice")


async def test_who_sends_the_most_stands_first(tmp_path: Path) -> None:
    monitor = held_port()
    conf = tmp_path / "nats.conf"
    conf.write_text(f'{CONF.read_text()}\nhttp: "127.0.0.1:{monitor}"\n')
    async with (
        callout_site(tmp_path / "site", conf=conf) as site,
        site.connection("pricing"),
        site.connection("inventory") as flooder,
    ):
        for _ in range(20):
            await flooder.request("$JS.API.STREAM.NAMES", b"", deadline=60.0)
        [command] = commands("flood: who")
        first, *_ = json.loads((await run(command.replace(":8222", f":{monitor}"))).out)["connections"]
        assert (first["name"], first["ip"], first["in_msgs"]) == ("inventory", "127.0.0.1", 20)


async def test_a_full_stream_and_another_key_of_its_log(running: Deployment) -> None:
    make_key_file(running.folder / "notary.key", ORIGIN)
    config, log = running.folder / "sealbus.toml", running.folder / "log"

    def verifier(name: str) -> NoteVerifier:
        (found,) = load_signers([running.folder / name], ORIGIN)
        return found.verifier

    async def logged(*keys: str) -> None:
        """Run a notary with these keys until it has signed what is stored now with the last of them."""
        table = f'[control.notary]\norigin = "{ORIGIN}"\nkeys = {json.dumps(keys)}\nfolder = "log"\n'
        config.write_text(running.dev.settings_file.read_text() + table)
        settings = load_settings(config, environment={})
        async with running_notary(settings), open_connection("operator", settings) as (_, connection):
            assert (await asked("alice")).code == 0
            last = (await audit_stream(connection.jetstream)).last

            def whole() -> bool:
                with suppress(FileNotFoundError, LogError):
                    note = (log / "checkpoint").read_bytes()
                    found = open_checkpoint(note, origin=ORIGIN, verifiers=[verifier(keys[-1])])
                    # The first entry is the stream's creation.
                    return found.checkpoint.size > last
                return False

            await until(whole)

    await logged("notary.key")
    running.set("SEALBUS_CONFIG", str(config))
    root = await run(f"sealbus audit root --key {verifier('notary.key').text}")
    assert root.code == 0, root
    (running.folder / "root.json").write_text(root.out)
    [made] = await run_all("notary: make", ORIGIN=ORIGIN)
    await logged("notary.key", "notary-2.key")
    await logged("notary-2.key")
    # Who has not been told of it cannot tell whose log this is.
    [unknown] = await run_all("notary: check", codes={0: 4})
    assert "untrusted_note" in unknown.err + unknown.out
    document = json.loads(root.out)
    document["keys"].append(made.out.strip())
    (running.folder / "root.json").write_text(json.dumps(document))
    await run_all("notary: check")

    # The stream: more room, then another period.
    await run_all("full: look", codes={0: 1})
    running.set("SEALBUS_STREAMS__MAX_BYTES__AUDIT", "17MiB")
    plan, _ = await run_all("full: raise", codes={0: 1})
    assert "AUDIT" in plan.out
    await run_all("full: check")
    roll, show, *_ = await run_all("full: roll", LOG=str(log), KEY=made.out.strip())
    assert "AUDIT is closed and kept" in roll.out
    assert ORIGIN in show.out
    assert (await asked("alice")).code == 0
    plan, tail = await run_all("full: check")
    assert plan.out == ""
    assert "inventory.update" in tail.out


def test_the_callouts_settings_are_settings(tmp_path: Path) -> None:
    [shown] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    table = load(
        tmp_path, 'trust_domain = "example.org"\nnats = ["tls://nats:4222"]\n[policy]\nengine = "embedded"\n' + shown
    ).control.callout
    assert (table.issuer, table.nkey) == (tmp_path / "callout-2/issuer.seed", tmp_path / "callout/user.seed")
    assert table.previous == tmp_path / "callout"


async def test_the_keys_of_the_callout_and_of_the_edge_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await run_all("callout: make")
    await run_all("edge: make")
    assert (tmp_path / "callout-2" / "public.env").is_file()
    assert (tmp_path / "nonces-2.key").stat().st_mode & 0o777 == 0o600


def test_each_runbook_begins_with_its_sign_and_says_who_runs_it() -> None:
    for runbook in PAGE.split("\n## ")[1:]:
        title, _, text = runbook.partition("\n")
        if title != "Keys":
            assert text.lstrip().startswith("**Sign**:"), title
        assert "Run by `" in text, title
        for name in {word for line in text.split("Run by ")[1:] for word in line.split("`") if word.endswith(".py")}:
            assert list((ROOT / "tests").rglob(name.rpartition("/")[2])), name
