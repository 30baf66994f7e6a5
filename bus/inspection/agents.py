"""Which agents there are, by the consumers that each has at the broker. Agents do not register themselves.

Each process of an agent holds one pull request at the consumer of cancels (`control.<agent>.cancel`). Few messages come
there, so the number of requests is the number of processes. A killed process is counted until its request expires, some
seconds later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.bus.inspection.documents import AgentDocument, QueueDocument, shown_time
from sealbus.bus.nats.api import ConsumerState, consumer_states
from sealbus.bus.ports import Request
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.streams.declared import control_durable
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.names import Names

_TASK: Final = "task"
_CONTROL: Final = "control"
_REPLY: Final = ".reply"
_REGISTRY: Final = ("sealbus", "registry", "actions")
"""The path in the data of the starter policy under which actions are declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Counts of what the broker holds for an agent in one stream. `active` is the last delivery (microseconds), or 0."""

    waiting: int = 0
    in_hand: int = 0
    redelivered: int = 0
    active: int = 0
    full: bool = False
    """Whether the broker delivers nothing more until the agent settles some messages."""

    def and_of(self, state: ConsumerState) -> Queue:
        """Return the sum of this queue and the queue of another consumer of the same agent."""
        return Queue(
            waiting=self.waiting + state.pending,
            in_hand=self.in_hand + state.unacknowledged,
            redelivered=self.redelivered + state.redelivered,
            active=max(self.active, state.active),
            full=self.full or 0 < state.max_unacknowledged <= state.unacknowledged,
        )

    def document(self) -> QueueDocument:
        """Return the queue as JSON."""
        return {
            "waiting": self.waiting,
            "in_hand": self.in_hand,
            "redelivered": self.redelivered,
            "active": shown_time(self.active) if self.active else None,
            "full": self.full,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSeen:
    """One agent, by its token. The policy declares `actions` for it; whether the agent handles each is not known."""

    token: str
    processes: int
    tasks: Queue | None = None
    """None if the agent has never consumed tasks."""
    events: Queue | None = None
    listens: tuple[str, ...] = ()
    """Subjects of the events that the agent consumes."""
    actions: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`ready` with a process, `full` if it gets no more, `away` without a process, `unknown` if there never was one."""
        if self.processes:
            return "full" if any(queue is not None and queue.full for queue in (self.tasks, self.events)) else "ready"
        return "away" if self.tasks is not None or self.events is not None else "unknown"

    def document(self) -> AgentDocument:
        """Return the agent as JSON."""
        return {
            "name": self.token,
            "state": self.state,
            "processes": self.processes,
            "tasks": self.tasks.document() if self.tasks is not None else None,
            "events": self.events.document() if self.events is not None else None,
            "listens": list(self.listens),
            "actions": list(self.actions),
        }


async def find_agents(
    request: Request, actions: Mapping[str, Sequence[str]], *, names: Names, own: OwnSubjects
) -> list[AgentSeen]:
    """Read the consumers at the broker, and return what `agents_seen` makes of them. Raises as `consumer_states` does."""
    tasks = await consumer_states(request, TASKS)
    events = await consumer_states(request, EVENTS)
    return agents_seen(tasks, events, actions, names=names, own=own)


def agents_seen(
    tasks: Sequence[ConsumerState],
    events: Sequence[ConsumerState],
    actions: Mapping[str, Sequence[str]],
    *,
    names: Names,
    own: OwnSubjects,
) -> list[AgentSeen]:
    """Return the agents that have a consumer of TASKS or EVENTS, or actions in `actions` (by token), sorted by token."""
    owners = {declared.subject: names.token(declared.owner) for declared in own.values() if declared.kind is Kind.TASK}
    processes: dict[str, int] = {}
    tasks_of: dict[str, Queue] = {}
    events_of: dict[str, Queue] = {}
    listens: dict[str, frozenset[str]] = {}
    for state in tasks:
        for token in {_token(subject, owners) for subject in state.subjects} - {""}:
            queue = tasks_of.setdefault(token, Queue())
            if state.name == control_durable(token):
                processes[token] = state.pulls
            else:
                tasks_of[token] = queue.and_of(state)
    for state in events:
        events_of[state.name] = events_of.get(state.name, Queue()).and_of(state)
        listens[state.name] = listens.get(state.name, frozenset()) | state.subjects
    return [
        AgentSeen(
            token=token,
            processes=processes.get(token, 0),
            tasks=tasks_of.get(token),
            events=events_of.get(token),
            listens=tuple(sorted(listens.get(token, ()))),
            actions=tuple(actions.get(token, ())),
        )
        for token in sorted(actions.keys() | tasks_of.keys() | events_of.keys())
    ]


def _token(subject: str, owners: Mapping[str, str]) -> str:
    """Return the token of the agent whose tasks or control messages `subject` holds; empty for other subjects."""
    tokens = subject.split(".")
    if len(tokens) == 3 and ((tokens[0] == _TASK and tokens[2] == ">") or tokens[0] == _CONTROL):
        return tokens[1]
    return owners.get(subject, "")


def actions_of(data: Mapping[str, object] | None) -> dict[str, tuple[str, ...]]:
    """Return the actions, without replies, that the data of a starter policy declares, by agent; empty for other policies."""
    value: object = data
    for name in _REGISTRY:
        value = value.get(name) if isinstance(value, Mapping) else None
    actions: dict[str, list[str]] = {}
    for action in value if isinstance(value, Mapping) else ():
        token, dot, verb = str(action).partition(".")
        if dot and token and verb and not action.endswith(_REPLY):
            actions.setdefault(token, []).append(action)
    return {token: tuple(sorted(names)) for token, names in actions.items()}
