"""`sealbus approvals`: what a person is shown before they say something, and that nothing is said unless they do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result
from support.settings import SMALLEST

from sealbus.agents.cli.person import approvals
from sealbus.agents.dev import users
from sealbus.agents.login.approvals import Refused
from sealbus.envelopes.errors import ConfigurationError

FIRST, SECOND, THIRD = "ab" + "1" * 62, "ab" + "2" * 62, "cd" + "3" * 62


def one(task: str = FIRST, **changed: Any) -> dict[str, Any]:
    """Return what an edge shows of a task."""
    return {
        "id": task,
        "task": "0" * 32,
        "decision": "d" * 64,
        "queue": "managers",
        "text": "payments.pay: amount 420000, for alice",
        "action": "payments.pay",
        "agent": "spiffe://example.org/agent/payments",
        "requester": "spiffe://example.org/agent/shop-web",
        "chain": ["spiffe://example.org/edge", "spiffe://example.org/agent/shop-web"],
        "user": {"id": "alice", "idp": "https://idp.example"},
        "resource": {"type": "invoice", "id": "2041"},
        "facts": {"amount": 420_000},
        "reasons": ["over_limit"],
        "since": "2026-11-27T10:51:41Z",
        "until": "2026-11-27T12:51:41Z",
        "needs": {"acr": ["urn:example:silver", "urn:example:gold"], "max_age": 300},
        "follows": ["ledger.post"],
        "verdicts": [
            {"verdict": "deny", "user": "carol", "idp": "https://idp.example", "time": "2026-11-27T11:00:00Z"}
        ],
        "body": {"type": "application/json", "json": {"amount": 420_000}},
        **changed,
    }


class Asked:
    """Stands for what waits at an edge, and keeps what was said."""

    def __init__(self) -> None:
        self.waits = [one(), one(SECOND), one(THIRD, text="another")]
        self.queues: list[str] = []
        self.said: list[tuple[str, str, dict[str, str]]] = []
        self.opened: list[tuple[str | None, str | None, str]] = []
        self.refuses: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def waiting(self, queue: str) -> list[dict[str, Any]]:
        self.queues.append(queue)
        return [found for found in self.waits if found["queue"] == queue]

    async def approval(self, task: str) -> dict[str, Any]:
        return next(found for found in self.waits if found["id"] == task)

    async def submit_verdict(self, task: str, verdict: str, **named: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.said.append((task, verdict, named))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stands = Asked()

    async def opened(person: approvals.ApprovingPerson) -> Asked:
        stands.opened.append((person.edge, person.user, person.acr))
        return stands

    monkeypatch.setattr(approvals.ApprovingPerson, "approvals", opened)
    return stands


def invoke(*arguments: str, typed: str = "") -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(approvals.command, arguments, input=typed)


SHOWN = """\
payments.pay: amount 420000, for alice
  action     payments.pay of spiffe://example.org/agent/payments
  resource   {"type": "invoice", "id": "2041"}
  facts      {"amount": 420000}
  body       {"type": "application/json", "json": {"amount": 420000}}
  asked by   alice, spiffe://example.org/agent/shop-web
  through    spiffe://example.org/edge > spiffe://example.org/agent/shop-web
  waits      2026-11-27T10:51:41Z to 2026-11-27T12:51:41Z
  login      by urn:example:silver or urn:example:gold, at most 300 s ago
  follows    ledger.post
  said       deny by carol at 2026-11-27T11:00:00Z
"""


def test_what_waits_is_listed_for_people_and_as_json(asked: Asked) -> None:
    listed = invoke("ls", "--user", "bob", "--acr", "gold", "--edge", "https://edge.example")
    assert listed.exit_code == 0, listed.output
    for part in (
        FIRST[:16],
        SECOND[:16],
        "payments.pay: amount 420000, for alice",
        "alice, spiffe://",
        "2026-11-27T12:51:41Z",
    ):
        assert part in listed.stdout
    assert [json.loads(line) for line in invoke("ls", "--json").stdout.splitlines()] == asked.waits
    assert asked.opened == [("https://edge.example", "bob", "gold"), (None, None, "")]
    empty = invoke("ls", "--queue", "directors")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "nothing waits in directors" in empty.stderr
    assert asked.queues == ["managers", "managers", "directors"]


def test_one_is_shown_by_its_id_or_its_beginning(asked: Asked) -> None:
    for text in (THIRD, "cd", "cd3"):
        shown = invoke("show", text)
        assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, "another")
    assert invoke("show", FIRST).stdout == SHOWN + f"  id         {FIRST}\n"
    assert json.loads(invoke("show", FIRST, "--json").stdout) == one()
    # An id that is whole asks for no list.
    assert len(asked.queues) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ab", "2 tasks in managers begin with ab: give the whole id"),
        ("", "3 tasks in managers begin with : give the whole id"),
        ("ff", "no task that waits in managers and that you may approve begins with ff"),
    ],
)
def test_what_names_not_exactly_one_is_nothing(asked: Asked, text: str, why: str) -> None:
    for command in ("show", "approve"):
        done = invoke(command, text)
        assert done.exit_code == 1
        assert why in done.stderr
    assert asked.said == []


def test_what_is_not_there_is_said(asked: Asked) -> None:
    less = one(user=None, needs={"acr": [], "max_age": None}, follows=[], verdicts=[])
    del less["body"]
    asked.waits = [less]
    lines = invoke("show", FIRST).stdout.splitlines()
    for line in (
        "  body       (not shown)",
        "  asked by   spiffe://example.org/agent/shop-web",
        "  login      any",
        "  follows    nothing",
        "  said       nothing",
    ):
        assert line in lines


def test_a_login_of_any_strength_may_have_to_be_fresh(asked: Asked) -> None:
    asked.waits = [one(needs={"acr": [], "max_age": 0})]
    assert "  login      at most 0 s ago" in invoke("show", FIRST).stdout.splitlines()


def test_nothing_that_is_shown_moves_the_terminal(asked: Asked) -> None:
    evil = "Pay\x1b[2J\u202e\nfor bob"
    asked.waits = [one(text=evil, requester=evil, facts={evil: evil}, body={"json": evil}, follows=[evil])]
    for command in (("show", FIRST), ("ls",)):
        told = invoke(*command).stdout
        assert not {"\x1b", "\u202e"} & set(told)
        assert "for bob" not in told.splitlines()


@pytest.mark.parametrize("verdict", ["approve", "deny", "withdraw"])
def test_a_person_says_it_about_what_they_have_been_shown(asked: Asked, verdict: str) -> None:
    done = invoke(verdict, FIRST, "--note", "as agreed", typed="y\n")
    assert (done.exit_code, done.stdout) == (0, "")
    assert asked.said == [(FIRST, verdict, {"decision": "d" * 64, "note": "as agreed"})]
    assert SHOWN in done.stderr
    assert done.stderr.index("  id  ") < done.stderr.index(f"{verdict}?") < done.stderr.index("counted, and recorded")


@pytest.mark.parametrize("typed", ["n\n", "\n", ""])
def test_who_does_not_say_yes_says_nothing(asked: Asked, typed: str) -> None:
    assert invoke("approve", FIRST, typed=typed).exit_code == 1
    assert asked.said == []


def test_who_has_said_yes_before_is_not_asked(asked: Asked) -> None:
    done = invoke("deny", "cd", "--yes", "--json")
    assert json.loads(done.stdout) == {"id": THIRD, "verdict": "deny"}
    assert asked.said == [(THIRD, "deny", {"decision": "d" * 64, "note": ""})]
    assert "another" not in done.stderr


def test_what_is_refused_is_no_success(asked: Asked) -> None:
    asked.refuses = Refused("approval_closed", "Nothing waits.")
    done = invoke("approve", FIRST, "--yes")
    assert done.exception is asked.refuses
    assert "counted" not in done.stderr


def test_a_strength_goes_with_a_user_of_development() -> None:
    done = invoke("ls", "--acr", "gold")
    assert done.exit_code == 2
    assert "sealbus login --acr" in done.stderr


class Edge:
    """Stands for the client, and keeps where it goes with which token."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def __call__(self, url: str, token: str) -> Asked:
        self.made.append((url, token))
        return Asked()


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edge:
    stands = Edge()
    monkeypatch.setattr("sealbus.agents.login.approvals.Approvals", stands)
    monkeypatch.setattr(users, "approver_token", lambda _, user, acr: f"{user} by {acr}")

    async def kept(table: object) -> SimpleNamespace:
        return SimpleNamespace(tokens=SimpleNamespace(access_token="mine"))

    monkeypatch.setattr(approvals, "kept", kept)
    monkeypatch.chdir(tmp_path)
    return stands


def settings(text: str) -> None:
    Path("sealbus.toml").write_text(SMALLEST + text)


def test_a_user_of_development_is_at_its_edge(edge: Edge) -> None:
    settings('\n[edge]\nresource = "http://127.0.0.1:8443"\n')
    assert invoke("ls", "--user", "bob", "--acr", "gold").exit_code == 0
    assert invoke("ls", "--user", "bob", "--edge", "http://127.0.0.1:1").exit_code == 0
    assert edge.made == [("http://127.0.0.1:8443", "bob by gold"), ("http://127.0.0.1:1", "bob by ")]


def test_who_logged_in_is_at_what_their_login_is_for(edge: Edge) -> None:
    client = '\n[client]\nissuer = "https://idp.example"\nclient_id = "cli"\n'
    settings(client + 'resource = "https://edge.example/api"\n')
    assert invoke("ls").exit_code == 0
    assert invoke("ls", "--edge", "https://other.example").exit_code == 0
    assert edge.made == [("https://edge.example/api", "mine"), ("https://other.example", "mine")]
    settings(client)
    error = invoke("ls").exception
    assert isinstance(error, ConfigurationError)
    assert "--edge" in error.detail
