"""Which agents there are, from the consumers that each has at the broker: nobody announces itself.

Each process of an agent holds one pull request at the consumer of cancels (`control.<agent>.cancel`), where little comes, so
that these requests count its processes. They are renewed every few seconds: a process that was killed is counted that long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
"""Where the starter policy declares actions, in its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What the broker holds for an agent in one stream; `active` is when it last delivered, 0 for never (microseconds)."""

    waiting: int = 0
    in_hand: int = 0
    redelivered: int = 0
    active: int = 0
    full: bool = False
    """Whether the agent gets no more before it has settled some."""

    def and_of(self, state: ConsumerState) -> Queue:
        """Return this queue and that of another consumer of the same agent as one."""
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
    """One agent, by its token. `actions` are those that the policy declares for it; whether it handles each is not known."""

    token: str
    processes: int
    tasks: Queue | None = None
    """None if it has never consumed tasks."""
    events: Queue | None = None
    listens: tuple[str, ...] = ()
    """Subjects of the events that it consumes."""
    actions: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`ready` if a process is there; `full` if it gets no more; `away` without one; `unknown` if none was ever there."""
        if self.processes:
            return "full" if any(one is not None and one.full for one in (self.tasks, self.events)) else "ready"
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


@dataclass(slots=True)
class _Found:
    pulls: int = 0
    tasks: Queue | None = None
    events: Queue | None = None
    listens: set[str] = field(default_factory=set)


async def find_agents(
    request: Request, actions: Mapping[str, Sequence[str]], *, names: Names, own: OwnSubjects
) -> list[AgentSeen]:
    """Return the agents by their consumers at the broker now, as `agents_seen` does. Raises as `consumer_states`."""
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
    """Return the agents that have a consumer of TASKS or EVENTS, or `actions` by token, in the order of their tokens."""
    found: dict[str, _Found] = {token: _Found() for token in actions}
    owners = {one.subject: names.token(one.owner) for one in own.values() if one.kind is Kind.TASK}
    for state in tasks:
        for token in {_token(subject, owners) for subject in state.subjects} - {""}:
            one = found.setdefault(token, _Found())
            if state.name == control_durable(token):
                one.pulls = state.pulls
                one.tasks = one.tasks or Queue()
            else:
                one.tasks = (one.tasks or Queue()).and_of(state)
    for state in events:
        one = found.setdefault(state.name, _Found())
        one.events = (one.events or Queue()).and_of(state)
        one.listens |= state.subjects
    return [
        AgentSeen(
            token=token,
            processes=one.pulls,
            tasks=one.tasks,
            events=one.events,
            listens=tuple(sorted(one.listens)),
            actions=tuple(actions.get(token, ())),
        )
        for token, one in sorted(found.items())
    ]


def _token(subject: str, owners: Mapping[str, str]) -> str:
    """Return whose tasks, or control messages, are on a consumer's `subject`; empty if nobody's."""
    tokens = subject.split(".")
    if len(tokens) == 3 and ((tokens[0] == _TASK and tokens[2] == ">") or tokens[0] == _CONTROL):
        return tokens[1]
    return owners.get(subject, "")


def actions_of(data: Mapping[str, object] | None) -> dict[str, tuple[str, ...]]:
    """Return the actions that the data of a starter policy declare, by agent, answers left out; empty for other policies."""
    value: object = data
    for name in _REGISTRY:
        value = value.get(name) if isinstance(value, Mapping) else None
    found: dict[str, list[str]] = {}
    for action in value if isinstance(value, Mapping) else ():
        token, dot, verb = str(action).partition(".")
        if dot and token and verb and not action.endswith(_REPLY):
            found.setdefault(token, []).append(action)
    return {token: tuple(sorted(one)) for token, one in found.items()}
