"""Push notifications, from a client's config to what its URL is told, also by the next process of the edge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from a2a.client.errors import A2AClientError
from a2a.types import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    SendMessageConfiguration,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError, PushNotificationNotSupportedError, TaskNotFoundError
from support.a2a import BINDINGS, Lines, Site, asking, site, submitted, told
from support.egress import LOOPBACK, ScriptedApi, answered
from support.issuer import TRUSTS_NOBODY
from support.lab import until

from sealbus.agents.edge.a2a import push
from sealbus.agents.edge.a2a.push import pushing
from sealbus.agents.edge.a2a.webhook import Webhooks
from sealbus.agents.edge.oauth.private_file import read_key, write_key
from sealbus.envelopes.backoff import Backoff
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations

SECRET = "a-secret-of-the-hook"
QUICK = Backoff(initial_interval=0.01, maximum_interval=0.01)


def config(receiver: ScriptedApi, **said: Any) -> TaskPushNotificationConfig:
    url = receiver.url.replace("localhost", "127.0.0.1")
    shown = AuthenticationInfo(scheme="Bearer", credentials=SECRET)
    return TaskPushNotificationConfig(**{"url": url, "authentication": shown, **said})


def states(receiver: ScriptedApi) -> list[str]:
    return [
        json.loads(one.body)["statusUpdate"]["status"]["state"].removeprefix("TASK_STATE_") for one in receiver.asked
    ]


@asynccontextmanager
async def pushed(folder: Path, lines: Lines, **changes: Any) -> AsyncIterator[Site]:
    key = folder / "push.key"
    write_key(key)
    settings = {"push_key": key, "push_networks": ("127.0.0.0/8",)}
    async with site(folder, lines.agent, settings=settings, **changes) as running:
        yield running
        lines.go_on.set()


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_url_is_told_of_states_and_of_no_result(tmp_path: Path, binding: str) -> None:
    lines = Lines()
    async with (
        ScriptedApi() as receiver,
        pushed(tmp_path, lines) as running,
        running.client("writer", binding) as client,
    ):
        wanted = SendMessageConfiguration(task_push_notification_config=config(receiver, token="t-1"))
        task = await submitted(client, "writer.write", {"value": 2}, configuration=wanted)
        lines.go_on.set()
        await until(lambda: "COMPLETED" in states(receiver))
        assert states(receiver) == ["WORKING", "COMPLETED"]
        for one in receiver.asked:
            update = json.loads(one.body)["statusUpdate"]
            assert update["taskId"] == task.id
            assert (one.headers["authorization"], one.headers["x-a2a-notification-token"]) == (
                f"Bearer {SECRET}",
                "t-1",
            )
            assert b"line" not in one.body
    kept = [one.payload for one in running.door.bus.stored("STATE") if ".a2a.push." in one.subject]
    assert kept
    assert not any(SECRET.encode() in one for one in kept)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_configs_are_the_users_own_and_are_listed_and_removed(tmp_path: Path, binding: str) -> None:
    lines = Lines()
    async with (
        ScriptedApi() as receiver,
        pushed(tmp_path, lines) as running,
        running.client("writer", binding) as client,
    ):
        task = await submitted(client, "writer.write", {"value": 1})
        made = await client.create_task_push_notification_config(config(receiver, task_id=task.id, id="c-1"))
        assert (made.id, made.task_id) == ("c-1", task.id)
        named = GetTaskPushNotificationConfigRequest(task_id=task.id, id="c-1")
        assert (await client.get_task_push_notification_config(named)).url == made.url
        another = await client.create_task_push_notification_config(config(receiver, task_id=task.id))
        listed = ListTaskPushNotificationConfigsRequest(task_id=task.id)
        found = (await client.list_task_push_notification_configs(listed)).configs
        assert {one.id for one in found} == {"c-1", another.id}
        for number in range(2):
            await client.create_task_push_notification_config(config(receiver, task_id=task.id, id=f"more-{number}"))
        with pytest.raises(InvalidParamsError, match="at most"):
            await client.create_task_push_notification_config(config(receiver, task_id=task.id, id="too-many"))
        async with running.client("writer", binding, sub="bob") as other:
            for asked in (
                other.get_task_push_notification_config(named),
                other.list_task_push_notification_configs(listed),
                other.create_task_push_notification_config(config(receiver, task_id=task.id)),
                other.delete_task_push_notification_config(
                    DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="c-1")
                ),
            ):
                with pytest.raises(TaskNotFoundError):
                    await asked
        before = len(receiver.asked)
        for one in (await client.list_task_push_notification_configs(listed)).configs:
            await client.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id=task.id, id=one.id)
            )
        with pytest.raises(TaskNotFoundError):
            await client.get_task_push_notification_config(named)
        lines.go_on.set()
        await running.door.bus.idle()
    assert len(receiver.asked) == before


async def test_one_users_webhooks_are_bounded_and_keep_nobody_else_from_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_OF_USER", 1)
    lines = Lines()
    async with (
        ScriptedApi() as receiver,
        pushed(tmp_path, lines) as running,
        running.client("writer") as client,
        running.client("writer", sub="bob") as other,
    ):
        bus = running.door.bus
        for number in range(100):
            # What others store there is no webhook.
            bus.broker.inject(f"state.edge.a2a.push.{number:032x}", b"junk")
        first, second = [await submitted(client, "writer.write", {"value": 1}) for _ in range(2)]
        await client.create_task_push_notification_config(config(receiver, task_id=first.id))
        with pytest.raises(A2AClientError, match="429"):
            await client.create_task_push_notification_config(config(receiver, task_id=second.id))
        task = await submitted(other, "writer.write", {"value": 1})
        await other.create_task_push_notification_config(config(receiver, task_id=task.id))


async def test_a_url_inside_or_no_config_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    lines = Lines()
    async with pushed(tmp_path, lines) as running, running.client("writer") as client:
        for url, name in (
            ("https://10.0.0.1/", ""),
            ("https://169.254.169.254/latest", ""),
            ("http://hook.example/", ""),
            ("https://[::1]/", ""),
            ("http://127.0.0.1:1/", "no id"),
        ):
            refused = TaskPushNotificationConfig(url=url, id=name)
            wanted = SendMessageConfiguration(task_push_notification_config=refused)
            with pytest.raises(InvalidParamsError):
                await told(client.send_message(asking("writer.write", {"value": 1}, configuration=wanted)))
        assert running.door.published()["TASKS"] == 0


async def test_without_a_key_nothing_is_pushed(tmp_path: Path) -> None:
    lines = Lines()
    async with site(tmp_path, lines.agent) as running, running.client("writer") as client:
        wanted = SendMessageConfiguration(
            task_push_notification_config=TaskPushNotificationConfig(url="https://x.example")
        )
        with pytest.raises(PushNotificationNotSupportedError):
            await told(client.send_message(asking("writer.write", {"value": 1}, configuration=wanted)))
        card = (await running.door.http.get("/a2a/writer/.well-known/agent-card.json")).json()
        assert not card["capabilities"].get("pushNotifications")
        assert running.door.published()["TASKS"] == 0


async def test_the_next_process_goes_on_telling_and_what_fails_is_tried_again(tmp_path: Path) -> None:
    lines = Lines()
    async with ScriptedApi(lambda _: answered(503)) as receiver, pushed(tmp_path, lines) as running:
        async with running.client("writer") as client:
            wanted = SendMessageConfiguration(task_push_notification_config=config(receiver))
            await submitted(client, "writer.write", {"value": 1}, configuration=wanted)
        await until(lambda: len(receiver.asked) > 0)
        # The first process goes on, too, but waits longer before it tells again.
        seen = len(receiver.asked)
        front, key = running.door.edge.front, read_key(tmp_path / "push.key")
        async with pushing(front, key, Webhooks(networks=LOOPBACK, tls=TRUSTS_NOBODY), "the edge", QUICK):
            await until(lambda: len(receiver.asked) >= seen + 3)
            receiver.answer = lambda _: answered()
            lines.go_on.set()
            await until(lambda: "COMPLETED" in states(receiver))
        # Under another key it is as if nothing were kept.
        seen = len(receiver.asked)
        async with pushing(front, bytes(32), Webhooks(networks=LOOPBACK, tls=TRUSTS_NOBODY), "the edge", QUICK):
            pass
        assert len(receiver.asked) == seen


async def test_a_revoked_user_has_nobody_told(tmp_path: Path) -> None:
    lines, revoked = Lines(), [NONE_REVOKED]
    limits = {"event_pause_seconds": 0.02}
    async with ScriptedApi() as receiver:
        async with pushed(tmp_path, lines, revocations=lambda: revoked[0], limits=limits) as running:
            async with running.client("writer", jti="s-1") as client:
                wanted = SendMessageConfiguration(task_push_notification_config=config(receiver))
                await submitted(client, "writer.write", {"value": 1}, configuration=wanted)
            await until(lambda: states(receiver) == ["WORKING"])
            revoked[0] = Revocations(sessions=frozenset({(running.door.issuer.issuer, "s-1")}))
            lines.go_on.set()
            await running.door.bus.idle()
        assert states(receiver) == ["WORKING"]
