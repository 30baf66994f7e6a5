"""How many sessions of the older protocol are open: a rule over any course of opening, using, ending and waiting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.mcp.sessions import IDLE_SECONDS, OpenSessions, SessionOwner

USERS = {name: SessionOwner("https://idp.example", name, "app") for name in ("alice", "bob", "carol")}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "use", "end", "wait"]),
        st.sampled_from(["alice", "bob", "carol"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_bounds_hold_and_nobody_takes_anothers(steps: list[tuple[str, str, int]]) -> None:
    now = 0.0
    sessions = OpenSessions(lambda: now, whole=4, of_user=2)
    expected: dict[str, tuple[str, float]] = {}
    made = 0
    for kind, user, number in steps:
        expected = {one: (owner, used) for one, (owner, used) in expected.items() if used + IDLE_SECONDS > now}
        own = Counter(owner for owner, _ in expected.values())
        if kind == "wait":
            now += number * IDLE_SECONDS / 4
        elif kind == "open":
            leaving = sessions.admit(USERS[user])
            if own[user] < 2 and len(expected) < 4:
                assert leaving is None
            else:
                assert leaving is not None
                session, owner = leaving
                loser = expected[session][0]
                assert owner == USERS[loser]
                # Somebody else's only where they have more, and none of anybody's who has fewer than another.
                assert loser == user or (own[user] < 2 and own[loser] > own[user] and own[loser] == max(own.values()))
                del expected[session]
            with sessions.answering(f"s{made}", USERS[user]):
                pass
            expected[f"s{made}"] = (user, now)
            made += 1
        else:
            session = f"s{number}"
            if session not in expected:
                continue
            if kind == "use":
                with sessions.answering(session, USERS[user]):
                    pass
                if expected[session][0] == user:
                    expected[session] = (user, now)
            else:
                sessions.ended(session, USERS[user])
                if expected[session][0] == user:
                    del expected[session]
        assert len(expected) <= 4
        assert all(one in sessions for one, (_, used) in expected.items() if used + IDLE_SECONDS > now)


def test_the_one_that_is_idle_longest_makes_room() -> None:
    now, alice = 0.0, USERS["alice"]
    sessions = OpenSessions(lambda: now, whole=9, of_user=3)
    for session in ("a", "b", "c", "a"):
        now += 1.0
        with sessions.answering(session, alice):
            now += 1.0
    assert sessions.admit(alice) == ("b", alice)
    assert "b" not in sessions


def test_one_that_is_answering_is_not_idle() -> None:
    now, alice = 0.0, USERS["alice"]
    sessions = OpenSessions(lambda: now, whole=9, of_user=2)
    with sessions.answering("a", alice):
        with sessions.answering("b", alice):
            with pytest.raises(EdgeError) as refused:
                sessions.admit(alice)
            assert refused.value.status == 429
            now += 2 * IDLE_SECONDS
            assert sessions.admit(USERS["bob"]) is None
            assert "a" in sessions
        assert sessions.admit(alice) == ("b", alice)
