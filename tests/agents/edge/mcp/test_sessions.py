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


@pytest.mark.parametrize(("idle", "counts"), [(IDLE_SECONDS - 1.0, True), (IDLE_SECONDS, False)])
def test_what_has_been_idle_long_enough_is_forgotten(idle: float, counts: bool) -> None:
    now, alice = 0.0, USERS["alice"]
    sessions = OpenSessions(lambda: now, whole=9, of_user=1)
    with sessions.answering("a", alice):
        pass
    now = idle
    assert (sessions.admit(alice) is not None) is counts


def test_a_session_is_ended_by_its_own_client_alone() -> None:
    sessions = opened(9, 2, "alice")
    sessions.ended("0", USERS["bob"])
    assert "0" in sessions
    sessions.ended("0", USERS["alice"])
    assert "0" not in sessions


def test_the_one_that_is_idle_longest_makes_room() -> None:
    now, alice = 0.0, USERS["alice"]
    sessions = OpenSessions(lambda: now, whole=9, of_user=3)
    for session in ("a", "b", "c", "a"):
        now += 1.0
        with sessions.answering(session, alice):
            now += 1.0
    assert sessions.admit(alice) == ("b", alice)
    assert "b" not in sessions


def test_where_all_are_open_one_of_who_has_most_makes_room() -> None:
    sessions = OpenSessions(lambda: 0.0, whole=2, of_user=2)
    for session in ("a", "b"):
        assert sessions.admit(USERS["alice"]) is None
        with sessions.answering(session, USERS["alice"]):
            pass
    assert sessions.admit(USERS["bob"]) == ("a", USERS["alice"])


def opened(whole: int, of_user: int, *users: str) -> OpenSessions:
    """Return sessions of these users, the one that is idle longest first; each is named after its place."""
    sessions = OpenSessions(lambda: 0.0, whole=whole, of_user=of_user)
    for place, user in enumerate(users):
        with sessions.answering(str(place), USERS[user]):
            pass
    return sessions


def test_who_has_as_many_as_one_may_have_ends_their_own() -> None:
    assert opened(9, 1, "bob", "alice").admit(USERS["alice"]) == ("1", USERS["alice"])


def test_who_has_as_many_as_those_with_most_ends_their_own() -> None:
    assert opened(2, 2, "bob", "alice").admit(USERS["alice"]) == ("1", USERS["alice"])


def test_who_has_fewest_loses_none_to_a_newcomer() -> None:
    assert opened(3, 2, "bob", "alice", "alice").admit(USERS["carol"]) == ("1", USERS["alice"])


@pytest.mark.parametrize("near", ["session-", "session-AA", "SESSION-A", "session-a "])
def test_a_session_is_known_by_its_whole_name(near: str) -> None:
    sessions = OpenSessions(lambda: 0.0, whole=2)
    with sessions.answering("session-a", USERS["alice"]):
        assert "session-a" in sessions
        assert near not in sessions


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
