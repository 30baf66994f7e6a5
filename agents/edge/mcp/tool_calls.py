"""`tools/call`: calls are calls, tasks are tasks, and what waits for an approval says so.

An answer of the client is never the approval. Who may approve does so at the edge with a login of their own; the client
learns of it, or takes its task back.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import Field

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.mcp.client_request import TASKS, Caller, Context
from sealbus.agents.edge.mcp.results import answered, open_task, refused, result_of, task_document, unfit
from sealbus.agents.edge.mcp.tools import TASK_RESULT, Tool, Tools
from sealbus.agents.edge.task_following import end_future, follow_task, waits_for_approval
from sealbus.agents.edge.v1.task_routes import SUBMITTED, newest_of
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.background import BoundedTasks
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import Status
from sealbus.envelopes.errors import Code, SealbusError

IDEMPOTENCY_KEY: Final = "sealbus/idempotencyKey"
"""Name in a call's `_meta` of a key that makes its copies one effect, as the field of that name does for `/v1`."""
_MISSING_CAPABILITY: Final = -32021
_LEFT: Final = "the client left"
_DECLINED: Final = "declined by the client"

Answer = types.CallToolResult | types.InputRequiredResult | dict[str, Any]


class ToolCalls:
    """The tools of one edge, called. `leaving` runs the cancels for clients that left; `page` is where people approve."""

    def __init__(self, actions: Actions, tools: Tools, leaving: BoundedTasks, page: str | None) -> None:
        self._actions = actions
        self._tools = tools
        self._leaving = leaving
        self._page = page
        self._front = actions.front

    async def list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """`tools/list`: those whose scope the token has."""
        del params
        return self._tools.list_for(Caller.of(context).token)

    async def call(self, context: Context, params: types.CallToolRequestParams) -> Answer:
        """`tools/call`. What the bus refuses is a result that says so; what is no tool of ours is an error."""
        caller = Caller.of(context)
        try:
            if params.name == TASK_RESULT.name:
                return await self._task_result(caller, params.arguments or {})
            return await self._call_tool(context, caller, params)
        except SealbusError as error:
            return refused(error)

    async def _call_tool(self, context: Context, caller: Caller, params: types.CallToolRequestParams) -> Answer:
        tool = self._tools.named(params.name)
        if tool is None:
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown tool")
        tool.described.check_scope(caller.token)
        if params.request_state is not None:
            # Sealed by us for this user, tool and arguments (`RequestStateBoundary`).
            return await self._resume_task(context, caller, tool, params)
        if params.input_responses:
            raise MCPError(code=types.INVALID_PARAMS, message="An answer to a question that was not asked")
        arguments = params.arguments or {}
        if fault := tool.fault(arguments):
            return unfit(fault)
        body, name = tool.described.body(arguments), tool.described.name
        if tool.described.action.kind == "call":
            return answered(tool, *await self._call_agent(caller, tool, body))
        key = (params.meta or {}).get(IDEMPOTENCY_KEY)
        handle = await self._actions.tasks.submit_task(
            caller.request, caller.token, name, body, key if isinstance(key, str) else None
        )
        if caller.tasks:
            return {**await task_document(tool, handle, self._question(caller)), "resultType": "task"}
        return await self._wait_for_task(context, caller, tool, handle)

    async def _call_agent(self, caller: Caller, tool: Tool, body: Content) -> list[Content]:
        name, calls = tool.described.name, self._actions.calls
        if not tool.described.action.parts:
            return [await calls.answer(caller.request, caller.token, name, body)]
        async with aclosing(calls.chunks(caller.request, caller.token, name, body)) as chunks:
            return [chunk async for chunk in chunks]

    async def _wait_for_task(
        self, context: Context, caller: Caller, tool: Tool, handle: TaskHandle, after: int = -1
    ) -> Answer:
        """Wait for a task as long as a call may take; a client that leaves takes it back."""
        try:
            return await self._follow_task(context, caller, tool, handle, after)
        except asyncio.CancelledError:
            if not self._front.stopping.is_set():
                self._leaving.start_at_once(self._cancel_for_departed(caller, handle))
            raise

    async def _follow_task(
        self, context: Context, caller: Caller, tool: Tool, handle: TaskHandle, after: int
    ) -> Answer:
        front, newest, told_of = self._front, None, 1
        # First of all: who loses the connection finds the task by it.
        await context.session.report_progress(1.0, message=f"task {handle.message_id}")
        async with aclosing(
            follow_task(handle, front, caller.token, after=after, within=front.limits.call_seconds)
        ) as statuses:
            async for status in statuses:
                newest = status
                if status.final:
                    return await result_of(tool, handle, status)
                if waits_for_approval(status):
                    return await self._needs_approval(context, caller, tool, handle, status)
                told_of += 1
                await context.session.report_progress(float(told_of), message=status.note or status.state.value)
        return open_task(handle.message_id, newest.state.value if newest is not None else SUBMITTED)

    async def _needs_approval(
        self, context: Context, caller: Caller, tool: Tool, handle: TaskHandle, status: Status
    ) -> Answer:
        if not (caller.form or caller.url):
            return open_task(handle.message_id, status.state.value, status.note)
        if caller.modern:
            return self._input_required(caller, handle)
        return await self._ask_person(context, caller, tool, handle, status)

    def _input_required(self, caller: Caller, handle: TaskHandle) -> types.InputRequiredResult:
        question = types.ElicitRequest.model_validate(self._question(caller))
        return types.InputRequiredResult(request_state=handle.message_id, input_requests={"approval": question})

    async def _ask_person(
        self, context: Context, caller: Caller, tool: Tool, handle: TaskHandle, status: Status
    ) -> Answer:
        """Ask an older client's person, and meanwhile see whether the task goes on; whatever comes first counts."""
        front = self._front
        question = types.ElicitRequest.model_validate(self._question(caller, handle.message_id))
        asking: asyncio.Future[types.ElicitResult] = asyncio.ensure_future(
            context.session.send_request(
                question,
                types.ElicitResult,
                metadata=ServerMessageMetadata(related_request_id=context.request_id),
            )
        )
        try:
            async with aclosing(
                follow_task(handle, front, caller.token, after=status.sequence, within=front.limits.event_seconds)
            ) as statuses:
                following = asyncio.ensure_future(anext(statuses, None))
                try:
                    while True:
                        waited: set[asyncio.Future[Any]] = {following, asking}
                        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                        if following.done():
                            newest = following.result()
                            if newest is None:
                                return open_task(handle.message_id, status.state.value, status.note)
                            if newest.final:
                                return await result_of(tool, handle, newest)
                            following = asyncio.ensure_future(anext(statuses, None))
                        elif asking.done():
                            if _declines(asking):
                                await self._actions.tasks.cancel_task(caller.request, caller.token, handle, _DECLINED)
                            # An answer of the client approves nothing: the task goes on waiting.
                            asking = asyncio.get_running_loop().create_future()
                finally:
                    await end_future(following)
        finally:
            await end_future(asking)

    async def _resume_task(
        self, context: Context, caller: Caller, tool: Tool, params: types.CallToolRequestParams
    ) -> Answer:
        handle = await self._actions.tasks.look_up(params.request_state or "", caller.token, caller.request)
        if handle.action != tool.described.name:
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task")
        answer = (params.input_responses or {}).get("approval")
        if isinstance(answer, types.ElicitResult) and answer.action != "accept":
            await self._actions.tasks.cancel_task(caller.request, caller.token, handle, _DECLINED)
        newest = await newest_of(handle)
        if newest is not None and newest.final:
            return await result_of(tool, handle, newest)
        return await self._wait_for_task(context, caller, tool, handle, newest.sequence if newest is not None else 0)

    async def _task_result(self, caller: Caller, arguments: dict[str, Any]) -> Answer:
        tool, handle = await self.task(caller, arguments.get("task"))
        newest = await newest_of(handle)
        if newest is not None and newest.final:
            return await result_of(tool, handle, newest)
        state, note = (newest.state.value, newest.note) if newest is not None else (SUBMITTED, "")
        return open_task(handle.message_id, state, note)

    async def task(self, caller: Caller, named: object) -> tuple[Tool, TaskHandle]:
        """Return a task of the token's user and the tool that started it; raise `MCPError` if there is none."""
        try:
            name = named if isinstance(named, str) else ""
            handle = await self._actions.tasks.look_up(name, caller.token, caller.request)
        except EdgeError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task") from error
        tool = self._tools.of_action(handle.action)
        if tool is None:
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task")
        return tool, handle

    async def get(self, context: Context, params: TaskParams) -> dict[str, Any]:
        """`tasks/get`: the state of a task, with its result once it has one."""
        caller = _with_tasks(context)
        tool, handle = await self.task(caller, params.taskId)
        return await task_document(tool, handle, self._question(caller))

    async def update(self, context: Context, params: UpdateParams) -> dict[str, Any]:
        """`tasks/update`: an answer to a question of the task's. One that declines takes the task back."""
        caller = _with_tasks(context)
        _, handle = await self.task(caller, params.taskId)
        if any(response.get("action") in ("decline", "cancel") for response in params.inputResponses.values()):
            await self._cancel_task(caller, handle, _DECLINED)
        return {"resultType": "complete"}

    async def cancel(self, context: Context, params: TaskParams) -> dict[str, Any]:
        """`tasks/cancel`: stop a task and what follows from it; one that has ended stays as it is."""
        caller = _with_tasks(context)
        _, handle = await self.task(caller, params.taskId)
        await self._cancel_task(caller, handle, "")
        return {"resultType": "complete"}

    async def _cancel_task(self, caller: Caller, handle: TaskHandle, reason: str) -> None:
        try:
            await self._actions.tasks.cancel_task(caller.request, caller.token, handle, reason)
        except SealbusError as error:
            if error.code != Code.TASK_ENDED:
                raise MCPError(code=types.INTERNAL_ERROR, message=f"Not canceled: {error.code}") from error

    async def _cancel_for_departed(self, caller: Caller, handle: TaskHandle) -> None:
        try:
            await self._actions.tasks.cancel_task(caller.request, caller.token, handle, _LEFT)
        except SealbusError:
            # It has ended, or goes on to its own end: nobody is left to tell.
            return

    def _question(self, caller: Caller, task: str = "") -> dict[str, Any]:
        """Return what the client's person is asked while a task waits for an approval."""
        where = self._page or f"{self._front.resource} with a login of their own, by `sealbus approvals`"
        message = f"This waits until somebody who may has approved it at {where}. Your answer here approves nothing."
        if caller.url and self._page is not None:
            params: dict[str, Any] = {"mode": "url", "message": message, "url": self._page}
            if not caller.modern:
                params["elicitationId"] = task
        else:
            params = {"mode": "form", "message": message, "requestedSchema": {"type": "object", "properties": {}}}
        return {"method": "elicitation/create", "params": params}


class TaskParams(types.RequestParams):
    """Names a task."""

    taskId: str  # noqa: N815  the name on the wire


class UpdateParams(TaskParams):
    """Answers questions of a task, by the keys under which it asked."""

    inputResponses: dict[str, dict[str, Any]] = Field(default_factory=dict)  # noqa: N815  the name on the wire


def _with_tasks(context: Context) -> Caller:
    caller = Caller.of(context)
    if not caller.tasks:
        raise MCPError(
            code=_MISSING_CAPABILITY,
            message="The client did not declare the extension",
            data={"requiredCapabilities": {"extensions": {TASKS: {}}}},
        )
    return caller


def _declines(asking: asyncio.Future[types.ElicitResult]) -> bool:
    """Return whether the person took the task back; a client that cannot ask has said nothing."""
    try:
        return asking.result().action != "accept"
    except (MCPError, ValueError):
        return False
