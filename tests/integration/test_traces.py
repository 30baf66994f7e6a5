"""What a running demo exports by OTLP: one trace from a request over the edge and two agents, and its lines in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from support.dev_process import DevFolder, running
from support.otlp import Received, Spans, received_spans
from support.ports import held_port

pytestmark = [pytest.mark.nats, pytest.mark.slow]

EXAMPLES = "sealbus.agents.examples"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "not-to-be-traced"


@dataclass(frozen=True, slots=True)
class Demo:
    dev: DevFolder
    edge: str
    log: Path
    spans: Spans

    def post(self, path: str, body: object, *, user: str, parent: str) -> httpx2.Response:
        token = self.dev.run("token", "--user", user).stdout.strip()
        headers = {"authorization": f"Bearer {token}", "traceparent": parent}
        return httpx2.post(f"{self.edge}{path}", json=body, headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    path = tmp_path_factory.mktemp("traces")
    port = held_port()
    log = path / "worker.log"
    with received_spans() as spans, ExitStack() as stack:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        start = ("dev", "--port", "0", "--edge-port", str(port), "--console-port", "0")
        stack.enter_context(running(path, *start, ready="ready:", **environment))
        agents = [f"{EXAMPLES}.{name}:agent" for name in ("planner", "inventory", "pricing")]
        # Its stderr to a file, so that the lines of the log can be read by themselves.
        with log.open("wb") as errors:
            worker = subprocess.Popen(
                [Path(sys.executable).parent / "sealbus", "worker", "run", *agents, "--json"],
                cwd=path,
                # The first spans of its traces are the edge's, which samples all of them in `sealbus dev`.
                env={**os.environ, **environment, "OTEL_SERVICE_NAME": "agents"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert worker.stdout is not None
        for _ in agents:
            assert '"ready":true' in worker.stdout.readline(), log.read_text()
        yield Demo(DevFolder(path), f"http://127.0.0.1:{port}", log, spans)
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0, log.read_text()


def parents(spans: list[Received]) -> list[tuple[str, str]]:
    """Return the name of each span after that of its parent; what began elsewhere is after nothing."""
    names = {one.raw.span_id: one.name for one in spans}
    return [(names.get(one.raw.parent_span_id, ""), one.name) for one in spans]


def test_a_call_is_one_trace_over_the_edge_and_two_agents(demo: Demo) -> None:
    plan = {"item_ids": ["42"], "quantity": 3}
    answer = demo.post("/v1/calls/planner/plan", plan, user="alice", parent=PARENT)
    assert answer.status_code == 200, answer.text
    spans = demo.spans.wait_for(7, trace=bytes.fromhex(PARENT[3:35]))
    route = "POST /v1/calls/{agent}/{verb}"
    assert parents(spans)[:5] == [
        ("", route),
        (route, "send call.planner.plan"),
        ("send call.planner.plan", "process planner.plan"),
        ("process planner.plan", "send call.inventory.read"),
        ("send call.inventory.read", "process inventory.read"),
    ]
    assert spans[0].raw.parent_span_id == bytes.fromhex(PARENT[36:52])
    assert [(one.service, one.kind) for one in spans[:3]] == [
        ("edge", "server"),
        ("edge", "producer"),
        ("agents", "consumer"),
    ]
    request, sent, processed = (one.attributes for one in spans[:3])
    assert request["http.response.status_code"] == 200
    assert request["sealbus.request_id"] == answer.headers["x-request-id"]
    assert processed["messaging.message.conversation_id"] == request["sealbus.request_id"]
    assert processed["messaging.message.id"] == sent["messaging.message.id"]
    assert (processed["sealbus.verdict"], processed["sealbus.settled"]) == ("allow", "acknowledged")
    assert processed["sealbus.decided"] <= processed["sealbus.recorded"] <= processed["sealbus.handled"]
    # The record is where the span says.
    records = demo.dev.json("audit", "replay", "--message", processed["messaging.message.id"])
    [decision] = [one for one in records if one["kind"] == "decision"]
    assert processed["sealbus.record.stream"] == "AUDIT"
    assert processed["sealbus.record.sequence"] == decision["sequence"]


def test_a_task_links_to_who_sent_it_and_a_denial_stands_in_trace_and_log(demo: Demo) -> None:
    trace = "1" * 32
    update = {"item_id": "42", "quantity": 3, "note": SECRET}
    answer = demo.post("/v1/tasks/inventory/update", update, user="carol", parent=f"00-{trace}-{'2' * 16}-01")
    assert answer.status_code == 202, answer.text
    request, sent, denied = demo.spans.wait_for(3, trace=bytes.fromhex(trace))
    assert (sent.name, denied.name) == ("send task.inventory.update", "process inventory.update")
    [link] = denied.raw.links
    assert (link.span_id, denied.raw.parent_span_id) == (sent.raw.span_id, sent.raw.span_id)
    assert sent.attributes["sealbus.stream"] == "TASKS"
    assert denied.attributes["sealbus.verdict"] == "denied"
    assert denied.attributes["sealbus.settled"] == "denied"
    lines = [json.loads(line) for line in demo.log.read_text().splitlines()]
    [line] = [one for one in lines if one.get("event") == "denied" and one["trace_id"] == trace]
    assert line["message_id"] == sent.attributes["messaging.message.id"]
    assert line["request_id"] == request.attributes["sealbus.request_id"]
    assert line["user"] == "carol"
    assert line["reasons"] == ["not_owner"]
    assert line["code"] == "denied"
    assert line["agent"].endswith("/inventory")


def test_no_span_holds_a_body_a_user_or_a_token(demo: Demo) -> None:
    token = demo.dev.run("token", "--user", "alice").stdout.strip()
    for secret in (SECRET, "alice", "carol", "Bearer", token.split(".")[0]):
        assert secret.encode() not in demo.spans.raw
