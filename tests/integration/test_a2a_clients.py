"""The A2A client of npm at the edge, over each transport: it verifies, calls, follows, leaves, and waits for an approval."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from support.a2a import BINDINGS, Lines, asking, card_key, card_url, site
from support.a2a_js import a2a_js_client
from support.payments import Payments

from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, SCOPE

pytestmark = pytest.mark.idp


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_card_is_verified_and_an_agent_called_followed_left_and_listed(tmp_path: Path, binding: str) -> None:
    lines, key = Lines(), card_key(tmp_path)
    async with site(tmp_path, lines.agent, settings={"card_key": key.file}) as found:
        url = card_url(found.origin(), "writer")
        async with a2a_js_client(url, binding, found.door.issuer.token(), key.public) as client:
            assert "writer.write" in await client.asked("card")
            assert await client.told("forged") == "refused"
            shout = MessageToDict(asking("writer.shout", "hey"))
            assert (await client.asked("send", shout))["message"]["parts"][0]["data"] == "HEY"

            await client.say("stream", MessageToDict(asking("writer.write", {"value": 3})))
            task = (await client.told("event"))["task"]
            assert task["status"]["state"] == "TASK_STATE_SUBMITTED"
            while "artifactUpdate" not in (event := await client.told("event")):
                pass
            assert event["artifactUpdate"]["artifact"]["parts"][0]["data"] == "line 0"
            await client.say("leave")
            assert "error" in await client.next()

            await client.say("subscribe", {"id": task["id"]})
            whole = (await client.told("event"))["task"]
            assert [one["data"] for one in whole["artifacts"][0]["parts"]] == ["line 0"]
            lines.go_on.set()
            *_, last = await client.events()
            assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"

            whole = await client.asked("get", {"id": task["id"]})
            assert [one["data"] for one in whole["artifacts"][0]["parts"]] == ["line 0", "line 1", "line 2"]
            assert [one["id"] for one in (await client.asked("list", {}))["tasks"]] == [task["id"]]
            assert "Error" in await client.asked("cancel", {"id": task["id"]})
            assert "Error" in await client.asked("get", {"id": "0" * 32})


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_waits_for_an_approval_and_another_is_canceled(tmp_path: Path, binding: str) -> None:
    payments, key = Payments(), card_key(tmp_path)
    async with site(tmp_path, payments.agent, engine=payments.engine, settings={"card_key": key.file}) as found:
        door, url = found.door, card_url(found.origin(), "payments")
        async with a2a_js_client(url, binding, door.issuer.token(), key.public) as client:
            await client.say("stream", MessageToDict(asking("payments.pay", {"invoice": "42"})))
            await client.told("event")
            waiting = (await client.told("event"))["statusUpdate"]["status"]
            assert waiting["state"] == "TASK_STATE_INPUT_REQUIRED"
            [parked] = await door.bus.waiting()
            there = f"{APPROVALS_PATH}/{parked.digest.hex()}"
            shown = (await door.get(there, sub="boss")).json()
            verdict = {"decision": shown["decision"], "verdict": "approve"}
            assert (await door.post(there, verdict, sub="boss", scope=SCOPE)).status_code == 200
            *_, last = await client.events()
            assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"

            task = (await client.asked("send", MessageToDict(asking("payments.pay", {"invoice": "43"}))))["task"]
            assert task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
            canceled = await client.asked("cancel", {"id": task["id"]})
            await door.bus.idle()
            assert canceled["id"] == task["id"]
            found_again = await client.asked("get", {"id": task["id"]})
            assert found_again["status"]["state"] == "TASK_STATE_CANCELED"
    assert payments.paid == [("42", ("boss",))]
