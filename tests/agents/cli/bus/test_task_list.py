"""How listed tasks are printed: one line each, whatever is in them."""

from __future__ import annotations

import json
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from support.shop import Shop, Update

from sealbus.agents.cli.bus.task_list import as_document, as_line, ls
from sealbus.agents.cli.options import workload_named
from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.bus.inspection.tasks import ListedTask, ReportedStatus
from sealbus.bus.sending.status import State
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.printable import printable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.testing import TestBus

NAMES = Names(TrustDomain("example.org"))


@pytest.fixture
async def task() -> ListedTask:
    async with TestBus(Shop().inventory) as bus:
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="42"))
        (stored,) = bus.stored("TASKS")
    header = parse_header(parse_envelope(stored.payload).header)
    return ListedTask(sequence=7, stored=1_795_538_577_975_307, header=header, action="inventory.update", user="alice")


def test_a_line_and_an_object(task: ListedTask) -> None:
    line = as_line(task)
    assert line.startswith("2026-11-24T16:42:57.975Z ")
    assert line.split()[1:] == [
        task.header.id.hex(), "submitted", "inventory.update", "from", "/agent/shop-web", "for", "alice"
    ]  # fmt: skip
    document = json.loads(json.dumps(as_document(task)))
    assert (document["message"], document["hash"]) == (task.header.id.hex(), task.header.digest.hex())
    assert (document["agent"], document["from"]) == (
        "spiffe://example.org/agent/inventory",
        "spiffe://example.org/agent/shop-web",
    )
    assert (document["state"], document["verified"], document["sequence"]) == ("submitted", True, 7)


def test_an_operator_is_given_the_handle_by_which_a_task_is_canceled(task: ListedTask) -> None:
    asked = parse_handle(str(as_document(task)["handle"]))
    assert (asked.pending, asked.action) == (PendingRequest.of(task.header), "inventory.update")
    for other in (replace(task, refused="bad_signature"), replace(task, action="")):
        assert as_document(other)["handle"] == ""


def test_a_canceled_task_says_who_canceled_it(task: ListedTask) -> None:
    by = "spiffe://example.org/agent/operator"
    told = ReportedStatus(state="canceled", code="canceled", note="no need", by=by)
    canceled = replace(task, status=told)
    assert as_line(canceled).endswith(f"canceled  by {by}  no need")
    assert as_document(canceled)["by"] == by


def test_what_does_not_verify_is_marked_at_the_end(task: ListedTask) -> None:
    doubtful = ListedTask(
        sequence=7,
        stored=task.stored,
        header=task.header,
        action="",
        user="",
        refused="unknown_key",
        status=ReportedStatus(
            state="failed", code="sold_out", note="none left", unverified=("bad_signature", "malformed")
        ),
    )
    line = as_line(doubtful)
    assert " failed " in line
    assert "task.inventory.update" in line
    assert line.endswith(
        "for -          sold_out  none left  UNVERIFIED STATUS: bad_signature, malformed  UNVERIFIED: unknown_key"
    )
    assert as_document(doubtful)["verified"] is False


def test_what_a_task_holds_does_nothing_to_a_terminal(task: ListedTask) -> None:
    """A user id is any text without control characters, which leaves those that turn the direction of writing."""
    hostile = ListedTask(
        sequence=7,
        stored=task.stored,
        header=task.header,
        action="inventory.update",
        user="\u202eecila",
        status=ReportedStatus(state="working", note="\x1b[2J\n" + "x" * 250),
    )
    line = printable(as_line(hostile))
    assert line.isprintable()
    assert "\\u202eecila" in line
    assert "\\x1b[2J\\n" in line


@pytest.mark.parametrize("text", ["", "id-1", "a b", "\x1b[2J", "spiffe://", "spiffe://example.org/../x", "x/y"])
def test_an_agent_that_cannot_be_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        workload_named(NAMES, text)


def test_an_agent_is_named_or_given_by_its_id() -> None:
    own = NAMES.id_of("inventory")
    assert workload_named(NAMES, "inventory") == workload_named(NAMES, own.value) == own
    assert workload_named(NAMES, None) is None


@pytest.mark.parametrize(
    "arguments", [["--state", "done"], ["--limit", "0"], ["--older", "soon"], ["--as", "x", "--as", "y", "--as", "x"]]
)
def test_other_values_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(ls, arguments).exit_code == 2


def test_help_says_what_is_not_verified() -> None:
    said = " ".join(CliRunner().invoke(ls, ["--help"]).output.split())
    assert "Not verified: that the list is complete" in said


def test_the_states_that_may_be_asked_for_are_all_there_are() -> None:
    [states] = [one.type for one in ls.params if one.name == "states"]
    assert isinstance(states, click.Choice)
    assert list(states.choices) == ["submitted", *State]
