"""Which subjects cross from the account of the agents to that of the streams, here and in the configuration of operators."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sealbus.agents.dev.nats.accounts import accounts, exports, imports, stored_subjects
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.spiffe_id import SpiffeId

A = SpiffeId("spiffe://example.org/agent/a")
OWN = (
    OwnSubject(subject="shop.made", kind=Kind.EVENT, owner=A, action="a.made"),
    OwnSubject(subject="shop.do", kind=Kind.TASK, owner=A, action="a.do"),
    OwnSubject(subject="shop.price", kind=Kind.CALL, owner=A, action="a.price"),
)
EXPORTS = [
    {
        "service": "$JS.API.CONSUMER.MSG.NEXT.>",
        "response_type": "stream",
        "response_threshold": "6s",
        "accounts": ["APP_AGENTS"],
    },
    {"service": ">", "response_threshold": "30s", "accounts": ["APP_AGENTS"]},
]
CROSSING = (
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
    "$JS.API.CONSUMER.MSG.NEXT.>",
    "$JS.ACK.>",
    "task.>",
    "event.>",
    "status.>",
    "dead.>",
    "audit.>",
    "refused.>",
    "state.>",
    "held.>",
    "people.>",
    "control.>",
    "$O.policies.>",
)


def test_own_tasks_and_events_cross_and_own_calls_do_not() -> None:
    assert exports() == EXPORTS
    subjects = (*CROSSING, "shop.do", "shop.made")
    assert imports(OWN) == [{"service": {"account": "APP", "subject": one}} for one in subjects]
    assert accounts(with_streams=[1], others=[2], own=OWN) == {
        "APP": {"jetstream": "enabled", "users": [1], "exports": EXPORTS},
        "APP_AGENTS": {"users": [2], "imports": imports(OWN)},
        "SYS": {},
    }


def test_what_any_stream_listens_to_crosses() -> None:
    """Else nobody could publish there: a new stream is added here as well."""
    declared = {
        one for stream in declared_streams({"TASKS": 1, "AUDIT": 1, "PEOPLE": 1}, own=OWN) for one in stream.subjects
    }
    assert declared | {"$O.policies.>"} == set(stored_subjects(OWN))


def test_nothing_crosses_twice() -> None:
    """What matched two imports would be stored twice: no filter is within another."""
    for one in CROSSING:
        for other in CROSSING:
            assert one == other or not other.endswith(">") or not one.startswith(other[:-1])


@pytest.mark.parametrize("tenant", ["APP", "ACME"])
def test_the_configuration_that_operators_run_has_the_same_accounts(tenant: str) -> None:
    text = (Path(__file__).parents[4] / "deploy" / "local" / "nats" / "nats.conf").read_text()
    streams = text[text.index(f"\n  {tenant} {{") : text.index(f"\n  {tenant}_AGENTS {{")]
    agents = text[text.index(f"\n  {tenant}_AGENTS {{") :]
    agents = agents[: agents.index("\n  }\n")]
    assert re.findall(r'\{ service: "(.*?)".*accounts: \[(.*?)\] \}', streams) == [
        ("$JS.API.CONSUMER.MSG.NEXT.>", f"{tenant}_AGENTS"),
        (">", f"{tenant}_AGENTS"),
    ]
    assert re.findall(r'response_type: (\w+), response_threshold: "(.*?)"', streams) == [("stream", "6s")]
    assert re.findall(r'service: ">", response_threshold: "(.*?)"', streams) == ["30s"]
    assert tuple(re.findall(rf'\{{ service: \{{ account: {tenant}, subject: "(.*?)" \}} \}}', agents)) == CROSSING
    assert agents.count("service:") == len(CROSSING)
    assert "jetstream" not in agents
