"""Requesters of tasks: the client `shop` on the bus, the user `alice` at the edge, and a reader who asks later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from promises.history import DATED_WRONG, What

from sealbus.agents.runtime.client import Client
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.status import FINAL
from sealbus.envelopes.errors import SealbusError
from simulation.edge import Answer, request
from simulation.network import Link
from simulation.plan import LIFE, PlannedTask
from simulation.processes import PAUSE, Work
from simulation.revoking import context_of
from simulation.site import START, Site

__all__ = ["alice", "read_ends", "shop"]

POLL: Final = 5.0
"""Seconds between two looks at a task over HTTP."""
READS: Final = 5
"""Tries of the reader who comes later."""


class State(NamedTuple):
    """What a requester is told of a task."""

    text: str
    final: bool


class Requester(Protocol):
    """A way to send tasks and to follow them; a task is named by a text. All raise `SealbusError` or `TimeoutError`."""

    sealing: str
    """The host that dates its messages."""

    async def submit(self, task: PlannedTask, work: Work, key: str | None) -> str:
        """Send a task; return its name once it is stored."""

    def message_of(self, name: str) -> str:
        """Return the id of a task's message."""

    async def cancel(self, name: str) -> None:
        """Cancel a task; return once that is in force."""

    async def state(self, name: str) -> State | None:
        """Return the state of a task, None while it has none."""

    async def wait(self, name: str) -> None:
        """Wait for a while, or until a task has ended."""


class BusRequester:
    """A client on the bus; names are handles."""

    sealing = "shop"

    def __init__(self, client: Client) -> None:
        self._client = client

    async def submit(self, task: PlannedTask, work: Work, key: str | None) -> str:
        handle = await self._client.submit(
            f"bank.{task.verb}",
            work,
            user=context_of(self._client, task.user),
            idempotency_key=key,
            life=LIFE,
            grants=task.grants,
        )
        return str(handle)

    def message_of(self, name: str) -> str:
        return self._handle(name).task.pending.id.hex()

    async def cancel(self, name: str) -> None:
        await self._handle(name).cancel()

    async def state(self, name: str) -> State | None:
        status = await self._handle(name).status()
        if status is None:
            return None
        return State(f"{status.state.value} {status.code}".strip(), status.state in FINAL)

    async def wait(self, name: str) -> None:
        await self._handle(name).result(object, timeout=60.0)

    def _handle(self, name: str) -> TaskHandle[Any]:
        return self._client.handle(name)


class HttpRequester:
    """A user at the edge; names are paths."""

    sealing = "edge"

    def __init__(self, site: Site, link: Link, user: str) -> None:
        self._site = site
        self._link = link
        self._user = user

    async def submit(self, task: PlannedTask, work: Work, key: str | None) -> str:
        fields = {"idempotency-key": key} if key is not None else {}
        answer = await self._request("POST", f"/v1/tasks/bank/{task.verb}", body=work.model_dump(), fields=fields)
        return str(_expected(answer, 202).document["status_url"])

    def message_of(self, name: str) -> str:
        return name.rpartition("/")[2]

    async def cancel(self, name: str) -> None:
        _expected(await self._request("DELETE", name), 202)

    async def state(self, name: str) -> State | None:
        told = _expected(await self._request("GET", name), 200).document
        return State(f"{told['state']} {told.get('code', '')}".strip(), told["final"])

    async def wait(self, name: str) -> None:
        del name
        await asyncio.sleep(POLL)

    async def _request(self, method: str, target: str, **content: Any) -> Answer:
        return await request(self._site, self._link, method, target, user=self._user, **content)


def _expected(answer: Answer, status: int) -> Answer:
    """Return an answer with this status; raise `TimeoutError` for one of another, after which a requester tries again."""
    if answer.status != status:
        raise TimeoutError(answer.status)
    return answer


async def shop(
    site: Site,
    link: Link,
    tasks: Sequence[PlannedTask],
    handles: dict[str, int],
    beside: Callable[[Client, asyncio.TaskGroup], None] = lambda *_: None,
) -> None:
    """Submit the tasks that no user sends, cancel some, and wait for their ends; write each stored task into `handles`.

    What `beside` starts is done beside the tasks.
    """
    async with site.node("shop", link) as node, asyncio.TaskGroup() as group:
        client = Client.on(node)
        beside(client, group)
        await _request_all(site, BusRequester(client), [task for task in tasks if not task.by_user], handles)


async def alice(site: Site, link: Link, tasks: Sequence[PlannedTask], handles: dict[str, int]) -> None:
    """Do the same with the tasks of the user, at the edge."""
    await _request_all(site, HttpRequester(site, link, "alice"), [task for task in tasks if task.by_user], handles)


async def _request_all(site: Site, requester: Requester, tasks: Sequence[PlannedTask], handles: dict[str, int]) -> None:
    """Send tasks and follow them to their ends.

    A requester that is started again after a kill goes on with the tasks of the one before; of those without a key it does
    not know whether they were sent.
    """
    known: dict[int, list[str]] = {}
    for name, number in handles.items():
        known.setdefault(number, []).append(name)
    async with asyncio.TaskGroup() as group:
        for task in _sent(tasks):
            stored = known.get(task.number)
            submitted = stored.pop(0) if stored else None
            if submitted is None and not task.keyed and task.at < site.loop.now:
                continue
            group.create_task(_request_task(site, requester, task, handles, submitted), name=f"task {task.number}")


def _sent(tasks: Sequence[PlannedTask]) -> Iterator[PlannedTask]:
    """Yield each task, and after it the same once more if it is sent twice."""
    for task in tasks:
        yield task
        if task.again_after is not None:
            yield replace(task, at=task.at + task.again_after, cancel_after=None)


async def _request_task(
    site: Site, requester: Requester, task: PlannedTask, handles: dict[str, int], name: str | None
) -> None:
    await site.sleep_until(task.at)
    work = Work(number=task.number, takes=task.takes, due=START + task.due if task.due else 0.0, fails=task.fails)
    began = site.loop.now
    key = f"key-{task.number}" if task.keyed else None
    while name is None:
        try:
            name = await requester.submit(task, work, key)
        except (SealbusError, TimeoutError):
            if key is None:
                # Nobody knows whether it is stored, and it would be another task if it were sent again.
                return
            await asyncio.sleep(PAUSE)
    message = requester.message_of(name)
    if name not in handles:
        handles[name] = task.number
        is_right = site.clock_is_right(began, requester.sealing)
        site.note(What.SUBMITTED, task.number, message, "" if is_right else DATED_WRONG)
    if task.cancel_after is not None:
        await asyncio.sleep(task.cancel_after)
        site.note(What.UNWANTED, task.number, message)
        try:
            await requester.cancel(name)
            site.note(What.CANCELED, task.number, message)
        except (SealbusError, TimeoutError):
            # It has ended, or nobody answered: a cancel that was not confirmed is no promise.
            pass
    while not await _ended(site, requester, name, task.number):
        await asyncio.sleep(PAUSE)
        try:
            await requester.wait(name)
        except (SealbusError, TimeoutError):
            # What it is shows in the state.
            continue


async def _ended(site: Site, requester: Requester, name: str, number: int) -> bool:
    """Read a task's state, and return whether it has ended."""
    try:
        state = await requester.state(name)
    except (SealbusError, TimeoutError):
        return False
    message = requester.message_of(name)
    if state is None or not state.final:
        site.note(What.ASKED, number, message)
        return False
    site.note(What.TOLD, number, message, state.text)
    return True


async def read_ends(site: Site, link: Link, handles: dict[str, int], name: str = "shop") -> None:
    """Read how every task of `name` ended, as somebody does who comes later and knows only the handles."""
    async with site.node(name, link) as node:
        bus, http = BusRequester(Client.on(node)), HttpRequester(site, link, "alice")
        for task, number in handles.items():
            requester: Requester = http if task.startswith("/") else bus
            for _ in range(READS):
                if await _ended(site, requester, task, number):
                    break
                await asyncio.sleep(PAUSE)
