"""What a permitted subject can be asked for in its payload, and where its answer can be sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.callout import callout_site

pytestmark = [pytest.mark.nats]


@pytest.mark.parametrize(
    "payload",
    [
        {"last_by_subj": "state.pricing.x"},
        {"next_by_subj": "state.pricing.>", "seq": 1},
        {"seq": 1},
        {"multi_last": ["state.pricing.>"]},
        {"multi_last": ["state.>"], "batch": 10},
        {"batch": 10, "seq": 1},
        {"start_time": "2020-01-01T00:00:00Z", "batch": 10},
    ],
)
async def test_a_direct_get_of_an_own_value_gives_nobody_elses(tmp_path: Path, payload: dict[str, object]) -> None:
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("pricing") as victim, site.raw("inventory") as agent:
            await victim.request("state.pricing.x", b"a secret of pricing")
            await agent.request("state.inventory.x", b"its own")
            agent.subscribe("_INBOX.inventory.>")
            block = json.dumps(payload).encode()
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", block, reply="_INBOX.inventory.a")
            # Answered in order: whatever came of the first is here before the second.
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", reply="_INBOX.inventory.b")
            async with asyncio.timeout(60):
                while not any(subject == "_INBOX.inventory.b" for subject, _ in agent.messages):
                    assert await agent.settle() == []
            assert not any(b"a secret of pricing" in found for _, found in agent.messages)
            assert any(b"its own" in found for _, found in agent.messages)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "inventory", "filter_subject": "task.>"},
        {"name": "inventory", "filter_subject": "task.pricing.>"},
        {"name": "inventory", "filter_subjects": ["task.inventory.>", "task.pricing.>"]},
        {"name": "inventory", "filter_subjects": ["task.>"]},
        {"name": "inventory"},
        {"name": "other", "filter_subject": "task.inventory.>"},
    ],
)
async def test_a_consumer_is_as_its_permitted_subject_says(tmp_path: Path, config: dict[str, object]) -> None:
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("inventory") as agent:
            subject = "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.inventory.>"
            fits = {"ack_policy": "none", "durable_name": "inventory", "name": "inventory"}
            right = {**fits, "filter_subject": "task.inventory.>"}
            wrong = {**fits, "durable_name": config["name"], **config}
            assert "error" in await agent.ask(subject, {"stream_name": "TASKS", "config": wrong})
            assert "error" not in await agent.ask(subject, {"stream_name": "TASKS", "config": right})
            # Nor can it become so later.
            assert "error" in await agent.ask(subject, {"stream_name": "TASKS", "config": wrong, "action": "update"})


async def test_the_server_asks_nobody_about_reply_subjects(tmp_path: Path) -> None:
    """The one thing that no permission can keep: why the streams have an account of their own, and why messages are signed.

    A request that an agent may make is answered by the server to whatever reply subject it names, past all permissions. It
    reaches who listens there in the agents' account, and is stored nowhere (`tests/attack/test_broker_detours.py`).
    Should this fail one day, the server has learnt to check, and this can be said in SECURITY.md.
    """
    async with callout_site(tmp_path) as site:
        await site.apply_streams()
        async with site.raw("inventory") as agent, site.raw("pricing") as victim:
            await agent.request("state.inventory.x", b"planted")
            for subject in ("state.pricing.x", "_INBOX.pricing.x"):
                assert not await agent.may_publish(subject)
                agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", reply=subject)
            victim.subscribe("_INBOX.pricing.x")
            await victim.settle()
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.x", reply="_INBOX.pricing.x")
            assert await agent.settle() == []
            # JetStream reads in its own time, after it has answered the connection.
            async with asyncio.timeout(60):
                while not any(payload.endswith(b"planted") for _, payload in victim.messages):
                    await victim.settle()
            found = await victim.request("$JS.API.DIRECT.GET.STATE.state.pricing.x")
            assert found.startswith(b"NATS/1.0 404")
            assert site.responders[0].codes == []
