"""`sealbus schedule`: what its options come to, and what it prints."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sealbus.agents.cli.bus import schedules
from sealbus.agents.cli.options import Invocation
from sealbus.agents.sdk.schedules import KnownSchedule
from sealbus.envelopes.trust.spiffe_id import SpiffeId


class Asked:
    """Stands for the schedules of a client, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.late = False

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> None:
            self.calls.append((name, arguments, named))
            if self.late:
                raise TimeoutError

        return call

    async def list(self) -> list[KnownSchedule]:
        times = {"until": datetime(2027, 1, 1, tzinfo=UTC), "next": datetime(2026, 12, 1, 2, tzinfo=UTC)}
        nightly: dict[str, Any] = {
            "name": "nightly",
            "action": "clerk.count",
            "when": "0 3 * * * Europe/Berlin",
            "overlap": "skip",
            "catchup": 60,
            "asked_by": SpiffeId("spiffe://example.org/agent/boss"),
            "grant": bytes(32),
            **times,
        }
        return [KnownSchedule(state="on", **nightly), KnownSchedule(state="paused", **{**nightly, "next": None})]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stands = Asked()

    @asynccontextmanager
    async def opened(invocation: Invocation) -> AsyncGenerator[Asked, None]:
        yield stands

    monkeypatch.setattr(schedules, "open_schedules", opened)
    return stands


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(schedules.command, arguments)


def test_options_are_what_is_asked_for(asked: Asked) -> None:
    done = invoke(
        "add", "nightly", "clerk.count", "{}", "--cron", "0 3 * * *", "--zone", "Europe/Berlin", "--overlap", "queue",
        "--catchup", "2h", "--until", "30d", "--life", "60", "--grant", "a.b", "--grant", "c.d", "--owner", "clerk",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "nightly: on" in done.stderr
    [(name, arguments, named)] = asked.calls
    assert (name, arguments[:2]) == ("add", ("nightly", "clerk.count"))
    assert arguments[2].body == b"{}"
    assert named == {
        "cron": "0 3 * * *",
        "zone": "Europe/Berlin",
        "every": None,
        "owner": "clerk",
        "timeout": 10.0,
        "overlap": "queue",
        "catchup": 7_200,
        "until": timedelta(days=30),
        "life": 60,
        "partition": None,
        "grants": ("a.b", "c.d"),
    }


@pytest.mark.parametrize(
    ("said", "name", "expected"),
    [
        (["--every", "10m"], "add", {"every": 600}),
        (["--after", "90s"], "submit", {"after": 90.0, "at": None}),
        (["--at", "2026-12-24T18:00:00+01:00"], "submit", {"at": datetime(2026, 12, 24, 17, tzinfo=UTC)}),
        (["--at", "2026-12-24T18:00:00"], "submit", {"at": datetime(2026, 12, 24, 18, tzinfo=UTC)}),
    ],
)
def test_times_and_durations(asked: Asked, said: list[str], name: str, expected: dict[str, object]) -> None:
    assert invoke("add", "n", "clerk.count", "{}", *said).exit_code == 0
    [(called, _, named)] = asked.calls
    assert called == name
    assert expected.items() <= named.items()


def test_changes_are_said(asked: Asked) -> None:
    for command, called, state in (
        ("pause", "pause", "paused"),
        ("resume", "resume", "on"),
        ("rm", "remove", "removed"),
    ):
        done = invoke(command, "nightly", "--json", "--owner", "clerk", "--wait", "3")
        assert json.loads(done.stdout) == {"name": "nightly", "state": state, "owner": "clerk"}
        assert asked.calls[-1] == (called, ("nightly",), {"owner": "clerk", "timeout": 3.0})


def test_an_owner_that_does_not_answer(asked: Asked) -> None:
    asked.late = True
    done = invoke("pause", "nightly", "--as", "clerk", "--wait", "0.5")
    assert done.exit_code == 1
    assert "clerk did not confirm within 0.5 s" in done.stderr


def test_schedules_are_listed(asked: Asked) -> None:
    first, second = map(json.loads, invoke("ls", "--json").stdout.splitlines())
    assert first == {
        "name": "nightly",
        "state": "on",
        "action": "clerk.count",
        "when": "0 3 * * * Europe/Berlin",
        "overlap": "skip",
        "catchup": 60,
        "next": "2026-12-01T02:00:00Z",
        "until": "2027-01-01T00:00:00Z",
        "asked_by": "spiffe://example.org/agent/boss",
        "grant": "00" * 32,
    }
    assert (second["state"], second["next"]) == ("paused", None)
    assert "nightly" in invoke("ls").stdout


@pytest.mark.parametrize(
    "said",
    [
        [], ["--every", "1m", "--cron", "* * * * *"], ["--every", "soon"], ["--every", "10"], ["--at", "soon"],
        ["--every", "1m", "--overlap", "cancel"], ["--every", "1m", "--life", "0"],
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_a_usage_error(asked: Asked, said: list[str]) -> None:
    assert invoke("add", "n", "clerk.count", "{}", *said).exit_code == 2
    assert invoke("add", "n", "clerk.count", "{", "--every", "1m").exit_code == 2
    assert asked.calls == []
