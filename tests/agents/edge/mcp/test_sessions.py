"""How many sessions of the older protocol are open: a rule over any course of opening, using, ending and waiting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.mcp.sessions import IDLE_SECONDS, OpenSessions

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
            if own[user] >= 2 or len(expected) >= 4:
                with pytest.raises(EdgeError) as caught:
                    sessions.admit(user)
                assert caught.value.status == 429
            else:
                sessions.admit(user)
                sessions.used(f"s{made}", user)
                expected[f"s{made}"] = (user, now)
                made += 1
        else:
            session = f"s{number}"
            if session not in expected:
                continue
            if kind == "use":
                sessions.used(session, user)
                if expected[session][0] == user:
                    expected[session] = (user, now)
            else:
                sessions.ended(session, user)
                if expected[session][0] == user:
                    del expected[session]
        assert all(one in sessions for one, (_, used) in expected.items() if used + IDLE_SECONDS > now)
