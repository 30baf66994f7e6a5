"""A task of the bus as an A2A task: its state, what is said of it, its result so far, and the events of its stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from a2a.types import (
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from sealbus.agents.edge.a2a.messages import artifact
from sealbus.agents.edge.http.problem import problem_of
from sealbus.agents.edge.task_following import waits_for_approval
from sealbus.agents.sdk.task_handle import TaskHandle, failure_of
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE, GatheredParts
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import BusUnavailable

PROBLEM: Final = "sealbus/problem"
"""Name in a status message's metadata of the problem as `/v1` would answer it: `code`, `reasons`, `remedy`, `via`."""
_WITHIN: Final = 10.0

_STATES: Final = {
    State.WORKING: TaskState.TASK_STATE_WORKING,
    State.INPUT_REQUIRED: TaskState.TASK_STATE_INPUT_REQUIRED,
    State.COMPLETED: TaskState.TASK_STATE_COMPLETED,
    State.FAILED: TaskState.TASK_STATE_FAILED,
    State.REJECTED: TaskState.TASK_STATE_REJECTED,
    State.CANCELED: TaskState.TASK_STATE_CANCELED,
    State.EXPIRED: TaskState.TASK_STATE_FAILED,
}

Update = TaskStatusUpdateEvent | TaskArtifactUpdateEvent


def asks_for_login(status: Status | None) -> bool:
    """Return whether a task was denied, and would not be for another token of its user: after a login, or with a scope."""
    kinds = [remedy.kind for remedy in status.remedies] if status is not None else []
    return RemedyKind.LOGIN in kinds or RemedyKind.SCOPE in kinds


def state_of(status: Status | None) -> TaskState:
    """Return the state of A2A for a status of the bus, None while there is none."""
    if status is None:
        return TaskState.TASK_STATE_SUBMITTED
    if status.state is State.REJECTED and asks_for_login(status):
        return TaskState.TASK_STATE_AUTH_REQUIRED
    return _STATES[status.state]


@dataclass(frozen=True)
class TaskView:
    """A task as one client sees it. `page` is where people approve, as a client tells its person."""

    id: str
    context_id: str
    page: str

    def task(self, status: Status | None, contents: Sequence[Content] = ()) -> Task:
        """Return the whole task in the state `status`, with the parts of its result so far."""
        parts = [*contents]
        if status is not None and status.result is not None and status.result.typ != PARTS_TYPE:
            parts = [status.result]
        return Task(
            id=self.id,
            context_id=self.context_id,
            status=self._status(status),
            artifacts=[artifact(parts)] if parts else [],
        )

    def updates(self, status: Status) -> Iterator[Update]:
        """Yield what a stream tells of a status: a part, or a result, as an artifact, and else the state."""
        if status.part is not None:
            yield self._artifact(status.part, append=status.number > 0, last=False)
            return
        if status.result is not None and status.result.typ != PARTS_TYPE:
            yield self._artifact(status.result, append=False, last=True)
        yield self.state(status)

    def state(self, status: Status) -> TaskStatusUpdateEvent:
        """Return what is told of a status, and nothing of a result."""
        return TaskStatusUpdateEvent(task_id=self.id, context_id=self.context_id, status=self._status(status))

    def _artifact(self, content: Content, *, append: bool, last: bool) -> TaskArtifactUpdateEvent:
        return TaskArtifactUpdateEvent(
            task_id=self.id, context_id=self.context_id, artifact=artifact([content]), append=append, last_chunk=last
        )

    def _status(self, status: Status | None) -> TaskStatus:
        shown = TaskStatus(state=state_of(status))
        text, problem = self._message_text(status)
        if text:
            shown.message.CopyFrom(
                Message(
                    message_id=f"{self.id}-{status.sequence if status is not None else 0}",
                    task_id=self.id,
                    context_id=self.context_id,
                    role=Role.ROLE_AGENT,
                    parts=[Part(text=text)],
                )
            )
            if problem:
                shown.message.metadata.update({PROBLEM: problem})
        return shown

    def _message_text(self, status: Status | None) -> tuple[str, dict[str, Any]]:
        if status is None:
            return "", {}
        if waits_for_approval(status):
            text = f"This waits until somebody who may has approved it at {self.page}. A message approves nothing."
            return text, {"code": status.code, **status.explanation.members()}
        if not status.final or status.result is not None:
            return status.note, {}
        problem: dict[str, Any] = json.loads(bytes(problem_of(failure_of(status)).body))
        words = [f"{problem['detail']} ({problem['code']})"]
        if status.note:
            words.append(status.note)
        if asks_for_login(status):
            words.append("Send the message again with a token as the remedy says.")
        return " ".join(words), problem


async def reading(handle: TaskHandle) -> tuple[Status | None, list[Content]]:
    """Return the newest status of a task and the parts of its result so far.

    Raises `BusUnavailable`, and `HandlingError` (`bad_result`) if a part is missing.
    """
    newest: Status | None = None
    parts = GatheredParts()
    try:
        async with asyncio.timeout(_WITHIN), aclosing(handle.reader.statuses(handle.task, follow=False)) as statuses:
            async for status in statuses:
                newest = status
                parts.take(status)
    except TimeoutError as error:
        raise BusUnavailable("the statuses could not be read") from error
    return newest, parts.contents
