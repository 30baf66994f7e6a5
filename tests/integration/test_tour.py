"""README's quick tour, executed: its commands in one shell, in the order in which they stand there, beside the app alone."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.howto import commands_of, lay

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CANCEL = (ROOT / "docs" / "cancel.md").read_text(encoding="utf-8")
APPROVALS = (ROOT / "docs" / "approvals.md").read_text(encoding="utf-8")
SCHEDULES = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
SEALBUS = str(Path(sys.executable).parent / "sealbus")
WITHIN = 300

pytestmark = [pytest.mark.nats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one command of the tour came to."""

    command: str
    code: int
    out: str
    err: str


def walk(commands: list[str], folder: Path, edge: str) -> list[Done]:
    """Run `commands` in one shell, so that what one sets the next ones have; the edge is at `edge`, and not at README's."""
    steps = [folder / f"step-{number}" for number in range(len(commands))]
    script = "".join(
        f"{{\n{command}}} >{step}.out 2>{step}.err\necho $? >{step}.code\n"
        for command, step in zip(commands, steps, strict=True)
    )
    subprocess.run(
        ["sh", "-c", script.replace("http://127.0.0.1:8080", edge)],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(SEALBUS).parent}{os.pathsep}{os.environ['PATH']}"},
        timeout=WITHIN * 2,
        check=True,
    )
    return [
        Done(
            command=command,
            code=int(step.with_suffix(".code").read_text()),
            out=step.with_suffix(".out").read_text(),
            err=step.with_suffix(".err").read_text(),
        )
        for command, step in zip(commands, steps, strict=True)
    ]


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [SEALBUS, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Return the first line of the process's output that holds `text`; the test's own timeout ends a wait for ever."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


def stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=WITHIN)
    return process.returncode


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SEALBUS, *arguments[1:]], cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Return a folder with the app and a running `sealbus dev` and worker, and where its edge is; both must stop cleanly."""
    tmp_path = tmp_path_factory.mktemp("tour") / "tour"
    shutil.copytree(ROOT / "docs" / "tour", tmp_path, ignore=shutil.ignore_patterns(".sealbus", "__pycache__"))
    dev = start("dev", "--port", "0", "--edge-port", "0", "--console-port", "0", folder=tmp_path)
    try:
        wait_for(dev, "ready:")
        edge = wait_for(dev, "edge at ").split()[-1]
        worker = start("worker", "run", "app.py:agent", folder=tmp_path)
        try:
            wait_for(worker, "inventory runs as")
            yield tmp_path, edge
        finally:
            worker_code = stop(worker)
    finally:
        dev_code = stop(dev)
    assert (worker_code, dev_code) == (0, 0)
    assert not (tmp_path / ".sealbus" / "dev.toml").exists()


@pytest.fixture(scope="module")
def folder(running: tuple[Path, str]) -> Path:
    return running[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_tour_is_what_it_says(running: tuple[Path, str]) -> None:
    commands = commands_of(README, "tour")
    assert len(commands) == 17
    done = walk(commands, *running)
    # Denied are the second and the result of the fifth, and nothing else fails: curl tells what it was answered.
    assert [one.code for one in done] == [0, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], done
    (
        alice,
        carol,
        read,
        much,
        result,
        status,
        token,
        task,
        events,
        state,
        called,
        unknown,
        tools,
        no_tool,
        skill,
        *audit,
    ) = done
    assert "stored as TASKS" in alice.err
    assert alice.out == "null\n"
    assert carol.out == ""
    assert "not_owner" in carol.err
    assert json.loads(read.out) == {"item_id": "42", "quantity": 3}
    assert "stored as TASKS" in much.err
    assert "over_limit" in result.err
    assert status.out == "rejected  denied  over_limit\n"
    assert (token.out, task.out, task.err) == ("", "", "")
    told = [json.loads(line.removeprefix("data: ")) for line in events.out.splitlines() if line.startswith("data: ")]
    assert told[-1]["state"] == "completed"
    assert json.loads(state.out) == told[-1]
    assert json.loads(called.out) == {"item_id": "42", "quantity": 7}
    assert json.loads(unknown.out)["code"] == "no_token"
    assert tools.out.splitlines() == [
        "tools: inventory_update inventory_read task_result",
        "{'item_id': '42', 'quantity': 7}",
    ], tools
    assert no_tool.out.endswith("The policy does not allow this. (denied)\n")
    assert ast.literal_eval(skill.out) == {"item_id": "42", "quantity": 7.0}, skill
    everything, carols = audit
    lines = [line.split() for line in everything.out.splitlines()]
    verdicts = [(line[2], line[5], line[7]) for line in lines if line[3] == "inventory.update"]
    assert verdicts == [
        ("ALLOW", "/agent/shop-web", "alice"),
        ("DENY", "/agent/shop-web", "carol"),
        ("DENY", "/agent/shop-web", "alice"),
        ("ALLOW", "/edge", "alice"),
    ]
    found = [json.loads(line) for line in carols.out.splitlines()]
    assert [(one["action"], one["allow"], one["reasons"]) for one in found] == [
        ("inventory.update", False, ["not_owner"]),
        ("inventory.read", False, ["not_owner"]),
        ("inventory.read.reply", True, []),
    ]
    assert "for carol by dev via mcp not_owner" in everything.out
    assert "for alice by dev via a2a" in everything.out


def test_the_change_of_policy_that_it_suggests_is_there() -> None:
    named = re.search(r"\]\((policies/rego/[^)]*actions/data\.json)\)", README)
    assert named is not None
    actions = json.loads((ROOT / named[1]).read_text(encoding="utf-8"))
    assert actions["inventory.update"]["limits"] == {"quantity": 100}


def test_a_denied_call_has_its_exit_code_and_its_reason(folder: Path) -> None:
    denied = run(["sealbus", "call", "inventory.read", '{"item_id": "42", "quantity": 0}', "--user", "carol"], folder)
    assert denied.returncode == 3, denied.stderr
    assert denied.stdout == ""
    assert "not_owner" in denied.stderr


def test_what_became_of_a_task_is_told_by_another_command(folder: Path) -> None:
    body = '{"item_id": "42", "quantity": 3}'
    done = run(["sealbus", "pub", "task.inventory.update", body, "--user", "alice", "--wait", "30"], folder)
    assert (done.returncode, done.stdout) == (0, "null\n"), done.stderr
    denied = run(["sealbus", "pub", "task.inventory.update", body, "--user", "carol", "--wait", "30", "--json"], folder)
    assert denied.returncode == 3, denied.stderr
    stored, status = [json.loads(line) for line in denied.stdout.splitlines()]
    assert (status["state"], status["code"], status["reasons"]) == ("rejected", "denied", ["not_owner"])
    asked = run(["sealbus", "task", "status", stored["handle"]], folder)
    assert (asked.returncode, asked.stdout) == (0, "rejected  denied  not_owner\n"), asked.stderr
    why = run(["sealbus", "policy", "explain", stored["message"]], folder)
    assert why.returncode == 0, why.stderr
    owner = next(line for line in why.stdout.splitlines() if "user.id == properties.owner" in line)
    assert owner.endswith('user.id = "carol", properties.owner = "alice"   <- failed')
    again = run(["sealbus", "task", "result", stored["handle"], "--json"], folder)
    assert (again.returncode, json.loads(again.stdout)) == (3, status), again.stderr
    assert "not_owner" in again.stderr
    shown = run(["sealbus", "pub", "task.inventory.update", body, "--user", "carol"], folder)
    assert (shown.returncode, len(shown.stdout.split())) == (0, 1), shown.stderr
    later = run(["sealbus", "task", "result", shown.stdout.strip()], folder)
    assert later.returncode == 3, later.stderr
    followed = run(["sealbus", "task", "status", stored["handle"], "--follow", "--json"], folder)
    assert [json.loads(line) for line in followed.stdout.splitlines()] == [status]
    anothers = run(["sealbus", "task", "status", stored["handle"], "--as", "planner"], folder)
    assert (anothers.returncode, anothers.stdout) == (0, "submitted\n"), anothers.stderr
    late = run(["sealbus", "pub", "task.pricing.nothing", "{}", "--wait", "0.2"], folder)
    assert late.returncode == 1
    assert "not done within 0.2 s" in late.stderr
    assert "is one running?" in late.stderr
    assert "Traceback" not in late.stderr


def test_tasks_are_listed_whoever_sent_them(folder: Path) -> None:
    body = '{"item_id": "42", "quantity": 3}'
    stored = []
    for user in ("alice", "carol"):
        done = run(["sealbus", "pub", "task.inventory.update", body, "--user", user, "--wait", "30", "--json"], folder)
        stored.append(json.loads(done.stdout.splitlines()[0])["message"])
    shown = run(["sealbus", "task", "ls", "--agent", "inventory", "--newer", "1h", "--limit", "2", "--json"], folder)
    assert shown.returncode == 0, shown.stderr
    denied, done_ = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [denied["message"], done_["message"]] == stored[::-1]
    assert (denied["state"], denied["code"], denied["reasons"], denied["user"]) == (
        "rejected",
        "denied",
        ["not_owner"],
        "carol",
    )
    assert (done_["state"], done_["verified"], done_["unverified_statuses"]) == ("completed", True, [])
    rejected = run(["sealbus", "task", "ls", "--state", "rejected", "--user", "carol", "--limit", "1"], folder)
    assert (rejected.returncode, rejected.stdout.split()[1:3]) == (0, [stored[1], "rejected"]), rejected.stderr
    follows = run(["sealbus", "audit", "replay", "--message", stored[1], "--json"], folder)
    decided = json.loads(follows.stdout)
    assert (decided["message"], decided["hash"], decided["allow"]) == (stored[1], denied["hash"], False)
    chain = run(["sealbus", "audit", "replay", "--chain", done_["hash"], "--json"], folder)
    said = [json.loads(line) for line in chain.stdout.splitlines()]
    # The decision, the requester's own about the result, and the outcome.
    assert {one["kind"] for one in said} == {"decision", "outcome"}
    assert {one["action"] for one in said} == {"inventory.update", "inventory.update.reply"}
    (txn,) = {one["txn"] for one in said if one["action"] == "inventory.update"}
    same = run(["sealbus", "audit", "replay", "--txn", txn, "--json"], folder)
    assert [json.loads(line)["record"] for line in same.stdout.splitlines()] == [
        one["record"] for one in said if one["action"] == "inventory.update"
    ]


BREAKING = """
from pathlib import Path

from sealbus import Agent, Context

agent = Agent("pricing")


@agent.task("quote", retry=0)
async def quote(body: dict[str, str], ctx: Context) -> str:
    if not Path("mended").exists():
        raise ValueError
    return "mended"
"""


def test_a_dead_letter_is_seen_sent_again_and_dropped(folder: Path) -> None:
    (folder / "breaking.py").write_text(BREAKING)
    worker = start("worker", "run", "breaking.py:agent", folder=folder)
    try:
        wait_for(worker, "pricing runs as")
        failed = run(["sealbus", "pub", "task.pricing.quote", '{"item": "42"}', "--wait", "30", "--json"], folder)
        assert failed.returncode == 1, failed.stderr
        message = json.loads(failed.stdout.splitlines()[0])["message"]
        listed_ = run(["sealbus", "dead", "ls", "--agent", "pricing", "--json"], folder)
        (letter,) = [json.loads(line) for line in listed_.stdout.splitlines()]
        assert (letter["message"], letter["code"], letter["verified"]) == (message, "handler_failed", True)
        number = f"#{letter['letter']}"
        shown = run(["sealbus", "dead", "show", message], folder)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.splitlines()[-1] == '  {"item": "42"}'
        # The operator is granted nothing by the starter policy; the sender is, and the agent has been mended.
        (folder / "mended").touch()
        denied = run(["sealbus", "dead", "retry", number, "--wait", "30"], folder)
        assert (denied.returncode, denied.stdout) == (3, ""), denied.stderr
        assert "for no user" in denied.stderr
        done = run(["sealbus", "dead", "retry", number, "--send-as", "shop-web", "--wait", "30", "--json"], folder)
        assert done.returncode == 0, done.stderr
        sent, status = [json.loads(line) for line in done.stdout.splitlines()]
        assert (sent["re"], status["state"], status["result"]) == (letter["hash"], "completed", "mended")
        followed = run(["sealbus", "audit", "replay", "--chain", letter["hash"], "--json"], folder)
        decided = [json.loads(line) for line in followed.stdout.splitlines()]
        assert [one["allow"] for one in decided if one.get("action") == "pricing.quote" and one["kind"] == "decision"] == [
            True, False, True
        ]  # fmt: skip
        dropped = run(["sealbus", "dead", "drop", number], folder)
        assert (dropped.returncode, "event.operator.dropped" in dropped.stdout) == (0, True), dropped.stderr
        gone = run(["sealbus", "dead", "show", number], folder)
        assert gone.returncode == 1
        assert f"there is no dead letter {number}" in gone.stderr
    finally:
        assert stop(worker) == 0


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Return a folder with `sealbus dev` and the example agents running, by a policy with what docs/cancel.md adds to it."""
    lay(CANCEL, tmp_path)
    with ExitStack() as stack:
        dev = start(
            "dev",
            "--port",
            "0",
            "--edge-port",
            "0",
            "--console-port",
            "0",
            "--policy",
            "policy",
            folder=tmp_path,
        )
        stack.callback(stop, dev)
        wait_for(dev, "ready:")
        edge = wait_for(dev, "edge at ").split()[-1]
        for name in ("pricing", "inventory", "planner", "payments"):
            worker = start("worker", "run", f"sealbus.agents.examples.{name}:agent", folder=tmp_path)
            stack.callback(stop, worker)
            wait_for(worker, f"{name} runs as")
        yield tmp_path, edge


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_work_is_canceled_as_its_page_says(shop: tuple[Path, str]) -> None:
    done = walk(commands_of(CANCEL, "run"), *shop)
    assert [one.code for one in done] == [0, 0, 1, 0, 0, 0, 0, 0], done
    _, _, result, replay, _, _, deleted, events = done
    assert result.out == ""
    assert "canceled by spiffe://example.org/agent/shop-web" in result.err
    assert "counted enough" in result.err
    assert "ALLOW planner._cancel " in replay.out
    assert "-> canceled planner.stocktake" in replay.out
    assert json.loads(deleted.out)["action"] == "planner.stocktake"
    told = [json.loads(line.removeprefix("data: ")) for line in events.out.splitlines() if line.startswith("data: ")]
    assert (told[-1]["state"], told[-1]["note"], told[-1]["by"]) == (
        "canceled",
        "counted enough",
        "spiffe://example.org/edge",
    )


def test_an_operator_cancels_what_the_policy_grants(shop: tuple[Path, str]) -> None:
    folder = shop[0]
    body = '{"items": [{"item_id": "43", "seconds": 25}]}'
    sent = run(["sealbus", "pub", "task.planner.stocktake", body, "--user", "alice"], folder)
    while "working" not in run(["sealbus", "task", "status", sent.stdout.strip()], folder).stdout:
        pass
    found, canceled = walk(commands_of(CANCEL, "operator"), *shop)
    assert (found.code, canceled.code, canceled.out) == (0, 0, ""), canceled.err
    assert "in force" in canceled.err
    ended = run(["sealbus", "task", "result", sent.stdout.strip()], folder)
    assert (ended.returncode, "canceled by spiffe://example.org/agent/operator" in ended.stderr) == (1, True)
    other = run(["sealbus", "task", "cancel", sent.stdout.strip(), "--as", "pricing"], folder)
    assert (other.returncode, other.stdout) == (3, ""), other.stderr


def test_schedules_do_what_their_page_says(tmp_path: Path) -> None:
    lay(SCHEDULES, tmp_path)
    options = ("--policy", "policy", "--agent", "clerk")
    with ExitStack() as stack:
        dev = start("dev", "--port", "0", "--edge-port", "0", "--console-port", "0", *options, folder=tmp_path)
        stack.callback(stop, dev)
        wait_for(dev, "ready:")
        worker = start("worker", "run", "clerk.py:agent", folder=tmp_path)
        stack.callback(stop, worker)
        wait_for(worker, "clerk runs as")
        done = walk(commands_of(SCHEDULES, "run"), tmp_path, "")
        assert [one.code for one in done] == [0] * 8, done
        *_, paused, listed, tasks, removed = done
        assert ("often: paused" in paused.err, "often: removed" in removed.err) == (True, True)
        assert all(one in listed.out for one in ("nightly", "often", "paused"))
        assert "soon" not in listed.out
        # One that was sent once, and at least one of those every ten seconds.
        assert tasks.out.count("completed") >= 2
        shown = run(["sealbus", "schedule", "ls", "--as", "clerk", "--json"], tmp_path)
        [nightly] = map(json.loads, shown.stdout.splitlines())
        assert (nightly["name"], nightly["state"], nightly["asked_by"]) == (
            "nightly",
            "on",
            "spiffe://example.org/agent/clerk",
        )
        added = ["sealbus", "schedule", "add", "n", "clerk.count", "{}", "--every", "1m"]
        denied = run([*added, "--owner", "clerk", "--as", "shop-web"], tmp_path)
        assert (denied.returncode, denied.stdout) == (3, ""), denied.stderr
        nobody = run(["sealbus", "schedule", "rm", "none", "--as", "clerk"], tmp_path)
        assert (nobody.returncode, "there is no such schedule" in nobody.stderr) == (1, True), nobody.stderr


def test_the_other_commands_answer(folder: Path) -> None:
    shown = run(["sealbus", "identity", "show", "--json"], folder)
    assert json.loads(shown.stdout)["spiffe_id"] == "spiffe://example.org/agent/shop-web"
    planned = run(["sealbus", "streams", "plan", "--json"], folder)
    assert (planned.returncode, planned.stdout) == (0, ""), planned.stderr
    examined = run(["sealbus", "doctor", "--json"], folder)
    assert examined.returncode == 0, examined.stderr
    checks = json.loads(examined.stdout)["checks"]
    assert {one["part"]: one["ok"] for one in checks} == dict.fromkeys(
        ("identity", "trust", "nats", "answers", "clock", "context", "policy"), True
    )
    [answers] = [one["text"] for one in checks if one["part"] == "answers"]
    assert answers == "the server stores none of its answers to this workload"
    tail = run(["sealbus", "audit", "tail", "--last", "1", "--json"], folder)
    assert tail.returncode == 0, tail.stderr
    assert len(tail.stdout.splitlines()) == 1
    agents = run(["sealbus", "agent", "ls", "--json"], folder)
    assert agents.returncode == 0, agents.stderr
    (inventory,) = [one for one in map(json.loads, agents.stdout.splitlines()) if one["agent"] == "inventory"]
    assert (inventory["state"], inventory["processes"]) == ("ready", 1)
    assert inventory["actions"] == [
        "inventory.low_stock", "inventory.read", "inventory.stocktake", "inventory.update", "inventory.updated"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pub", "nonsense", "{}"], 2, "SUBJECT is"),
        (["pub", "event.shop-web.opened", "{}", "--wait"], 2, "--wait is for tasks"),
        (["task", "result", "nonsense"], 2, "HANDLE"),
        (["task", "ls", "--agent", "no such"], 2, "neither a name"),
        (["schedule", "add", "n", "inventory.update", "{}"], 2, "one of --cron"),
        (["schedule", "add", "n", "inventory.update", "{}", "--every", "soon"], 2, "s, m, h or d"),
        (["schedule", "add", "n", "inventory.update", "{}", "--at", "soon"], 2, "RFC 3339"),
        (["schedule", "add", "n", "inventory.update", "{}", "--cron", "0 0 30 2 *"], 1, "day-of-month"),
        (["schedule", "rm", "n", "--wait", "0.2"], 1, "is a worker of it running"),
        (["audit", "replay", "--chain", "12"], 2, "64 hex digits"),
        (["worker", "run", "nothing.py:agent"], 1, "no such file"),
        (["identity", "show", "--as", "nobody"], 1, "nobody.sock"),
        (["doctor", "--config", "missing.toml"], 1, "missing.toml"),
    ],
)
def test_what_is_wrong_is_said_in_one_form(folder: Path, arguments: list[str], code: int, said: str) -> None:
    finished = run(["sealbus", *arguments], folder)
    assert finished.returncode == code
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert code == 2 or finished.stderr.startswith("sealbus: ")


def test_without_any_settings_the_line_says_what_to_do(tmp_path: Path) -> None:
    finished = run(["sealbus", "pub", "task.inventory.update", "{}"], tmp_path)
    assert finished.returncode == 1
    said, advice = finished.stderr.splitlines()
    assert "sealbus dev" in said
    assert advice.endswith("(sealbus explain configuration)")


def test_a_payment_is_approved_as_its_page_says(shop: tuple[Path, str]) -> None:
    done = walk(commands_of(APPROVALS, "run"), *shop)
    assert [one.code for one in done] == [0] * 8, done
    _, status, listed, _, shown, approved, result, replay = done
    assert status.out.startswith("input-required  approval_required  over_limit  waits for an approval until ")
    assert "payments.pay:" in listed.out
    page = re.search(r"Bob is shown\n\n```\n(.*?)```", APPROVALS, re.DOTALL)
    assert page is not None
    told, expected = shown.out.splitlines(), page[1].splitlines()
    assert [one for one in expected if one not in told] == [one for one in expected if "waits " in one]
    assert approved.err == "approve: counted, and recorded\n"
    assert json.loads(result.out) == {"invoice_id": "2041", "amount": 420000, "approved_by": ["bob"]}
    lines = [
        (line.split()[2], line.split()[3], line.split()[-1]) for line in replay.out.splitlines() if " by " not in line
    ]
    assert [line[:2] for line in lines][:2] == [("DENY", "payments.pay"), ("ALLOW", "payments._approve")]
    assert lines.count(("ALLOW", "payments.pay", "alice")) == 1


def walk_page(name: str, agent: str, folder: Path) -> list[Done]:
    """Run the commands of a how-to page beside its files, with `sealbus dev` and its agent running as it says."""
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    lay(page, folder)
    assert f"`sealbus dev --agent {agent} --policy policy`" in page
    assert f"`sealbus worker run {agent}.py:agent`" in page
    with ExitStack() as stack:
        options = ("--agent", agent, "--policy", "policy")
        dev = start("dev", "--port", "0", "--edge-port", "0", "--console-port", "0", *options, folder=folder)
        stack.callback(stop, dev)
        wait_for(dev, "ready:")
        worker = start("worker", "run", f"{agent}.py:agent", folder=folder)
        stack.callback(stop, worker)
        wait_for(worker, f"{agent} runs as")
        return walk(commands_of(page), folder, "")


def test_answers_in_parts_come_as_their_page_says(tmp_path: Path) -> None:
    called, submitted, result = walk_page("streaming.md", "stories", tmp_path)
    assert (called.code, submitted.code, result.code) == (0, 0, 0), (called, submitted, result)
    assert [json.loads(line)["text"] for line in called.out.splitlines()] == [
        "Once there was a fox.", "It slept.", "That was the fox."
    ]  # fmt: skip
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == [
        "Once there was a bear.", "It slept.", "That was the bear."
    ]  # fmt: skip


def test_a_stronger_login_is_asked_for_as_its_page_says(tmp_path: Path) -> None:
    weak, strong = walk_page("step-up.md", "disk", tmp_path)
    assert (weak.code, weak.out) == (3, ""), weak
    assert "sealbus login --acr urn:example:silver --max-age 300" in weak.err
    assert (strong.code, strong.out) == (0, '"sda is empty"\n'), strong


def test_a_refund_waits_for_an_approval_as_its_page_says(tmp_path: Path) -> None:
    *_, approved, result = done = walk_page("approving.md", "refunds", tmp_path)
    assert [one.code for one in done] == [0] * 5, done
    assert done[1].out.startswith("input-required  approval_required  over_limit")
    assert approved.err == "approve: counted, and recorded\n"
    assert json.loads(result.out) == {"cents": 20_000, "approved_by": ["bob"]}
