"""An outgoing message becomes a draft: its times within those of what it comes from."""

from __future__ import annotations

from support.envelopes import MINUTE, NOW, agent, message_id

from sealbus.bus.sending.message import OutgoingMessage
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft

TASK = OutgoingMessage(
    Draft(
        kind=Kind.TASK,
        to="task.inventory.update",
        aud=agent("inventory"),
        body=b"{}",
        typ="application/json",
    ),
    life=5 * MINUTE,
    end_after=10 * MINUTE,
)


def test_times_are_counted_from_now() -> None:
    draft = TASK.at(NOW, new_id=message_id(1))
    assert (draft.iat, draft.exp, draft.end) == (NOW, NOW + 5 * MINUTE, NOW + 10 * MINUTE)
    assert (draft.id, draft.to, draft.aud, draft.body) == (message_id(1), TASK.draft.to, TASK.draft.aud, b"{}")


def test_a_child_is_not_older_than_its_parent() -> None:
    draft = TASK._replace(not_before=NOW + 7).at(NOW, new_id=message_id(1))
    assert (draft.iat, draft.exp) == (NOW + 7, NOW + 7 + 5 * MINUTE)


def test_a_child_ends_with_its_parent_and_expires_no_later() -> None:
    draft = TASK._replace(end_at=NOW + MINUTE).at(NOW, new_id=message_id(1))
    assert (draft.exp, draft.end) == (NOW + MINUTE, NOW + MINUTE)


def test_a_later_end_of_the_parent_changes_nothing() -> None:
    assert TASK._replace(end_at=NOW + 60 * MINUTE).at(NOW, new_id=message_id(1)).end == NOW + 10 * MINUTE


def test_what_has_no_end_gets_none() -> None:
    assert TASK._replace(end_after=None, end_at=NOW + MINUTE).at(NOW, new_id=message_id(1)).end is None


def test_its_own_id_stays() -> None:
    assert TASK.with_entries(id=b"guard" * 3).at(NOW, new_id=message_id(1)).id == b"guard" * 3


def test_a_body_is_not_shown() -> None:
    assert "secret" not in repr(TASK.with_entries(body=b"secret"))
