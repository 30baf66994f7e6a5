"""The methods of A2A for one agent: a call is answered with a message, a task of the bus becomes a task of A2A.

A message never approves anything. People approve at the edge, with a login of their own; the client sees its task continue.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers import RequestHandler
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE, MAX_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from sealbus.agents.edge.a2a.cards import Cards
from sealbus.agents.edge.a2a.kept_tasks import KeptTasks
from sealbus.agents.edge.a2a.messages import Skills, answer
from sealbus.agents.edge.a2a.principal import Principal, principal_of
from sealbus.agents.edge.a2a.push import Pushing
from sealbus.agents.edge.a2a.task_states import TaskView, asks_for_login, reading, state_of
from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.task_following import follow_task, waits_for_approval
from sealbus.agents.edge.v1.task_routes import newest_of
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import GatheredParts, PartsReading
from sealbus.bus.sending.status import Status
from sealbus.envelopes.limits import SECOND

_KEY: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
"""A message id that can be an idempotency key, as the field `Idempotency-Key` of `/v1` accepts it."""
_CONTEXT: Final = re.compile(r"[!-~]{1,128}")
_LOOKS: Final = 200
"""Most tasks whose state is read for one page."""


class AgentHandler(RequestHandler):
    """The methods of A2A for one agent. `page` is the place where people approve; clients show it to them.

    Without `pushing` there are no push notifications.
    """

    def __init__(
        self, actions: Actions, cards: Cards, kept_tasks: KeptTasks, page: str, pushing: Pushing | None = None
    ) -> None:
        self._actions = actions
        self._front = actions.front
        self._cards = cards
        self._skills: Skills = cards.skills
        self._agent = cards.agent
        self._kept = kept_tasks
        self._page = page
        self._pushing = pushing

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task | Message:
        """Answer a call; or submit a task and wait until it ends or waits for an approval, as long as a call may take.

        A task continues if its client disconnects or asks to return immediately.
        """
        principal = self._principal(context)
        with principal.refusing():
            described, body, context_id = await self._read_message(principal, params.message)
            if described.action.kind == "call":
                async with principal.connected():
                    return await self._answer(principal, described, body, context_id)
            view, handle = await self._submit_task(principal, params, described, body, context_id)
            if params.configuration.return_immediately:
                return view.task(None)
            async with principal.connected():
                return await self._wait_for_task(principal, view, handle)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Answer a call; or submit a task, and yield it and its updates."""
        principal = self._principal(context)
        with principal.refusing():
            described, body, context_id = await self._read_message(principal, params.message)
            if described.action.kind == "call":
                # The block ends before the yield: a generator may be resumed by another task.
                async with principal.connected():
                    message = await self._answer(principal, described, body, context_id)
                yield message
                return
            view, handle = await self._submit_task(principal, params, described, body, context_id)
            yield view.task(None)
            async with aclosing(self._updates(principal, view, handle, after=-1)) as updates:
                async for update in updates:
                    yield update

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Yield a task as it is, and then its updates; raise `UnsupportedOperationError` if it has ended."""
        principal = self._principal(context)
        with principal.refusing():
            view, handle = await self._owned_task(principal, params.id)
            newest, contents = await reading(handle)
            if newest is not None and newest.final:
                raise UnsupportedOperationError("the task has ended")
            yield view.task(newest, contents)
            after = newest.sequence if newest is not None else -1
            async with aclosing(self._updates(principal, view, handle, after=after)) as updates:
                async for update in updates:
                    yield update

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """Return a task as it is now, with its result so far."""
        principal = self._principal(context)
        with principal.refusing():
            view, handle = await self._owned_task(principal, params.id)
            return view.task(*await reading(handle))

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the user's tasks, the newest first; each task that is read counts as one more request."""
        principal = self._principal(context)
        if params.HasField("status_timestamp_after"):
            raise UnsupportedOperationError("when a task changed last is not kept")
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        if not 1 <= size <= MAX_LIST_TASKS_PAGE_SIZE:
            raise InvalidParamsError(f"pageSize must be from 1 to {MAX_LIST_TASKS_PAGE_SIZE}")
        with principal.refusing():
            contexts = await self._kept.newest(agent=self._agent, token=principal.token)
            matching = {
                task: context_id for task, context_id in contexts.items() if params.context_id in ("", context_id)
            }
            remaining = [task for task in matching if not params.page_token or task < params.page_token]
            tasks: list[Task] = []
            last = ""
            for last in remaining[:_LOOKS]:
                if (listed := await self._listed_task(principal, last, matching[last], params)) is not None:
                    tasks.append(listed)
                if len(tasks) == size or not self._affords(principal):
                    break
        return ListTasksResponse(
            tasks=tasks,
            next_page_token=last if remaining[-1:] != [last] else "",
            page_size=size,
            total_size=len(matching),
        )

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Cancel a task and the messages that follow from it; return it as it is then."""
        principal = self._principal(context)
        with principal.refusing():
            view, handle = await self._owned_task(principal, params.id)
            newest = await newest_of(handle)
            if newest is not None and newest.final:
                raise TaskNotCancelableError
            await self._actions.tasks.cancel_task(principal.request, principal.token, handle, "")
            return view.task(*await reading(handle))

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Return the agent's card with the skills whose scope the token has."""
        del params
        return self._cards.of(self._principal(context).token)

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Register a webhook, which gets each further state of a task."""
        principal, pushing = self._principal(context), self._pushes()
        with principal.refusing():
            view, handle = await self._owned_task(principal, params.task_id)
            config = await pushing.checked(params, principal.token)
            return await pushing.add(config, handle, view.context_id, principal.token, await newest_of(handle))

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Return a webhook of the user's task, with its credentials."""
        principal, pushing = self._principal(context), self._pushes()
        with principal.refusing():
            await self._owned_task(principal, params.task_id)
            return await pushing.config_of(params.task_id, params.id)

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """Return all webhooks of a task."""
        principal, pushing = self._principal(context), self._pushes()
        with principal.refusing():
            await self._owned_task(principal, params.task_id)
            return ListTaskPushNotificationConfigsResponse(configs=await pushing.configs_of(params.task_id))

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Remove a webhook."""
        principal, pushing = self._principal(context), self._pushes()
        with principal.refusing():
            await self._owned_task(principal, params.task_id)
            await pushing.remove(params.task_id, params.id)

    def _pushes(self) -> Pushing:
        if self._pushing is None:
            raise PushNotificationNotSupportedError
        return self._pushing

    def _principal(self, context: ServerCallContext) -> Principal:
        """Return the principal of a request; raise `InvalidParamsError` if its tenant is not this agent.

        Over HTTP the path names the agent, and a tenant must agree with it. Over gRPC the tenant names the agent.
        """
        if context.tenant not in ("", self._agent):
            raise InvalidParamsError("no such tenant")
        return principal_of(context)

    async def _read_message(self, principal: Principal, message: Message) -> tuple[DescribedAction, Content, str]:
        """Return the action and body that a message asks for, and its context's id, empty if the message starts a context."""
        if not message.message_id:
            raise InvalidParamsError("a message has a messageId")
        context_id = message.context_id
        if context_id and not _CONTEXT.fullmatch(context_id):
            raise InvalidParamsError("contextId must be 1 to 128 visible characters")
        if message.task_id:
            view, handle = await self._owned_task(principal, message.task_id)
            if not asks_for_login(await newest_of(handle)):
                raise UnsupportedOperationError("this task takes no further message: approvals are given at the edge")
            if context_id not in ("", view.context_id):
                raise InvalidParamsError("contextId is not that of the task")
            context_id = view.context_id
        described, body = self._skills.asked_for(message)
        described.check_scope(principal.token)
        return described, body, context_id

    async def _answer(
        self, principal: Principal, described: DescribedAction, body: Content, context_id: str
    ) -> Message:
        name, calls = described.name, self._actions.calls
        if described.action.parts:
            async with aclosing(calls.chunks(principal.request, principal.token, name, body)) as chunks:
                contents = [chunk async for chunk in chunks]
        else:
            contents = [await calls.answer(principal.request, principal.token, name, body)]
        number = principal.request_id
        return answer(contents, message_id=number, context_id=context_id or number)

    async def _submit_task(
        self,
        principal: Principal,
        params: SendMessageRequest,
        described: DescribedAction,
        body: Content,
        context_id: str,
    ) -> tuple[TaskView, TaskHandle]:
        """Submit a task; copies of the message are one task if its agent declares the action `once`."""
        message, config = params.message, None
        if params.configuration.HasField("task_push_notification_config"):
            # Before the task is submitted: a client with a webhook may wait for nothing else.
            config = await self._pushes().checked(params.configuration.task_push_notification_config, principal.token)
        key = message.message_id if _KEY.fullmatch(message.message_id) else None
        handle = await self._actions.tasks.submit_task(principal.request, principal.token, described.name, body, key)
        view = TaskView(handle.message_id, context_id or handle.message_id, self._page)
        await self._kept.keep(view.id, view.context_id, agent=self._agent, token=principal.token)
        if config is not None:
            await self._pushes().add(config, handle, view.context_id, principal.token, None)
        return view, handle

    async def _wait_for_task(self, principal: Principal, view: TaskView, handle: TaskHandle) -> Task:
        parts, newest = GatheredParts(), None
        within = self._front.limits.call_seconds
        async with aclosing(self._follow_task(principal, handle, after=-1, within=within)) as statuses:
            async for status in statuses:
                newest = status
                parts.take(status)
                if waits_for_approval(status):
                    break
        return view.task(newest, parts.contents)

    async def _updates(
        self, principal: Principal, view: TaskView, handle: TaskHandle, *, after: int
    ) -> AsyncGenerator[Event, None]:
        parts = PartsReading(resumed=after >= 0)
        within = self._front.limits.event_seconds
        async with aclosing(self._follow_task(principal, handle, after=after, within=within)) as statuses:
            async for status in statuses:
                if status.part is not None:
                    parts.take(status)
                for update in view.updates(status):
                    yield update

    def _follow_task(
        self, principal: Principal, handle: TaskHandle, *, after: int, within: float
    ) -> AsyncGenerator[Status, None]:
        remaining = (principal.token.expires - self._front.node.clock()) / SECOND
        return follow_task(handle, self._front, principal.token, after=after, within=min(within, remaining), parts=True)

    async def _owned_task(self, principal: Principal, task: str) -> tuple[TaskView, TaskHandle]:
        """Return the user's task of this agent; raise `TaskNotFoundError` or as `Tasks.look_up`."""
        handle = await self._actions.tasks.look_up(task, principal.token, principal.request)
        if handle.action not in self._skills.actions:
            raise TaskNotFoundError
        context_id = await self._kept.context_id(task, agent=self._agent, token=principal.token)
        return TaskView(task, context_id, self._page), handle

    def _affords(self, principal: Principal) -> bool:
        """Count one more task that is read; return whether reads are within the rates of the user."""
        return self._front.affords(principal.token, 1.0) and self._front.affords_read(principal.token)

    async def _listed_task(
        self, principal: Principal, task: str, context_id: str, params: ListTasksRequest
    ) -> Task | None:
        handle = await self._actions.tasks.owners.find_task(task, principal.token, principal.request)
        if params.include_artifacts:
            newest, contents = await reading(handle)
        else:
            newest, contents = await newest_of(handle), []
        if params.status not in (0, state_of(newest)):
            return None
        listed = TaskView(task, context_id, self._page).task(newest, contents)
        if not params.include_artifacts:
            del listed.artifacts[:]
        return listed
