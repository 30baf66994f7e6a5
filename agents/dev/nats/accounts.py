"""The two accounts of a deployment at NATS: one has the streams, the other has the agents, edges and consoles (pure).

nats-server does not check whether a client may publish to the reply subject of its request. Within one account, a client
could thus have the server's answer stored by any stream. Between two accounts an answer goes back to the account of the
request, which has no streams: it is never stored. A request crosses as a *service import*::

    APP_AGENTS  --task.>, state.>, $JS.API..., $JS.ACK.>-->  APP   the streams; operator, control, backup
                <--------------- answers ------------------        to the reply subject, in APP_AGENTS

Only imported subjects cross. Messages between agents on core NATS (calls, replies) stay in their account.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.bus.cells import DEFAULT, cell_prefix
from sealbus.bus.stream_names import CONTROL, SUBJECTS
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import REPLY_TOKEN, OwnSubject

STREAMS: Final = "APP"
"""The account that has the streams. It keeps the name of the former only account, so that no stream moves."""
AGENTS: Final = "APP_AGENTS"
"""The account of all other workloads."""
SYSTEM: Final = "SYS"

POLICIES: Final = "policies"
"""The bucket that policies are pushed to."""

PULLS: Final = "$JS.API.CONSUMER.MSG.NEXT.>"
"""Requests with many answers: each message of a pull is an answer."""
API: Final = (
    # The server grants every account that does not import this the whole API, which then answers "no JetStream".
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.>",
    "$JS.API.STREAM.MSG.DELETE.DEAD",
    "$JS.API.CONSUMER.CREATE.>",
    "$JS.API.CONSUMER.INFO.>",
    "$JS.API.CONSUMER.LIST.>",
    "$JS.API.CONSUMER.DELETE.>",
    "$JS.API.DIRECT.GET.>",
    PULLS,
    "$JS.ACK.>",
)
"""The part of JetStream that crosses. It cannot make, change, empty, copy or delete a stream."""

_ANSWER: Final = "30s"
"""How long the server can route an answer; a reader waits 30 s at most (`READER_SECONDS`)."""
_PULL_ANSWER: Final = "6s"
"""How long after an answer the server can route the next one. A reader has a heartbeat each 2.5 s, and a request ends after
5.5 s at most. The server holds 1.7 kB for each request until then (measured with 88,000)."""


_CORE: Final = ("call.>", f"_INBOX.*.{REPLY_TOKEN}.>")
"""What goes to the agents of another cell themselves."""


def stored_subjects(own: Iterable[OwnSubject] = ()) -> tuple[str, ...]:
    """Return every subject that a stream listens to, those of the deployment's own tasks and events included."""
    declared = sorted(subject.subject for subject in own if subject.kind in (Kind.TASK, Kind.EVENT))
    return (*SUBJECTS.values(), CONTROL, f"$O.{POLICIES}.>", *declared)


def exports(*agents: str) -> list[object]:
    """Return the exports of the account with the streams to the accounts `agents`, whose imports select what crosses."""
    accounts = list(agents or (AGENTS,))
    return [
        {"service": PULLS, "response_type": "stream", "response_threshold": _PULL_ANSWER, "accounts": accounts},
        {"service": ">", "response_threshold": _ANSWER, "accounts": accounts},
    ]


def imports(own: Iterable[OwnSubject] = (), *, streams: str = STREAMS) -> list[object]:
    """Return the imports of the agents' account from the account `streams`.

    No two of these subjects overlap, because a message under both would arrive twice.
    """
    return [{"service": {"account": streams, "subject": subject}} for subject in (*API, *stored_subjects(own))]


@dataclass(frozen=True, slots=True)
class CellAccounts:
    """The accounts of a cell (`sealbus.bus.cells`): the one with its streams, and that of its agents."""

    name: str
    streams: str = STREAMS
    agents: str = AGENTS

    def imports(self, own: Iterable[OwnSubject] = (), *, core: bool) -> list[object]:
        """Return what another cell imports from this one; its agents with `core` also calls and the answers to calls."""
        stored = [(self.streams, subject) for subject in (*API, *stored_subjects(own))]
        spoken = [(self.agents, subject) for subject in _CORE if core]
        return [
            {"service": {"account": account, "subject": subject}, "to": cell_prefix(self.name) + subject}
            for account, subject in (*stored, *spoken)
        ]


def accounts_of_cells(cells: Sequence[CellAccounts], own: Sequence[OwnSubject] = ()) -> dict[str, dict[str, object]]:
    """Return the accounts of `cells`, without users. The agents of each reach the streams and agents of all others.

    Of the accounts with streams only those beside `DEFAULT` reach another one, that of `DEFAULT`, which has the policies:
    nats-server refuses accounts that import from each other.
    """
    made: dict[str, dict[str, object]] = {}
    for cell in cells:
        others = [other for other in cells if other != cell]
        is_default = cell.name == DEFAULT
        reaching = [cell.agents, *[other.agents for other in others]]
        reaching += [other.streams for other in others if is_default]
        homes = [other for other in others if other.name == DEFAULT]
        made[cell.streams] = {
            "jetstream": "enabled",
            "exports": exports(*reaching),
            "imports": [row for home in homes for row in home.imports(own, core=False)],
        }
        made[cell.agents] = {
            "exports": [
                {"service": subject, "response_threshold": _ANSWER, "accounts": [other.agents for other in others]}
                for subject in _CORE
            ],
            "imports": [
                *imports(own, streams=cell.streams),
                *[row for other in others for row in other.imports(own, core=True)],
            ],
        }
    return made


def accounts(
    *, with_streams: Sequence[object] = (), others: Sequence[object] = (), own: Iterable[OwnSubject] = ()
) -> dict[str, object]:
    """Return the accounts of a configuration with these users only."""
    return {
        STREAMS: {"jetstream": "enabled", "users": list(with_streams), "exports": exports()},
        AGENTS: {"users": list(others), "imports": imports(own)},
        SYSTEM: {},
    }
