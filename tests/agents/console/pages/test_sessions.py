"""Sessions and cookies: whose they are, when they end, and that an answer belongs to the login that asked for it."""

from __future__ import annotations

from base64 import urlsafe_b64decode

from sealbus.agents.console.pages.sessions import (
    LOGIN,
    PENDING_LIFE,
    SESSION,
    LoginSeal,
    PendingLogin,
    Session,
    Sessions,
    cookie,
    cookie_value,
)
from sealbus.agents.login.token_answer import Tokens

NOW = 1_800_000_000_000_000


def session(expires: int = NOW + 1) -> Session:
    return Session(Tokens(access_token="secret", refresh_token=None, scope="", expires=expires))


def test_a_session_ends_with_its_token() -> None:
    sessions = Sessions()
    value = sessions.begin(session())
    assert sessions.of(value, now=NOW) is not None
    assert sessions.of(value + "x", now=NOW) is None
    assert sessions.of(value, now=NOW + 1) is None
    assert len(sessions) == 0


def test_a_session_that_was_left_is_gone() -> None:
    sessions = Sessions()
    value = sessions.begin(session())
    assert sessions.end(value) is not None
    assert sessions.of(value, now=NOW) is None
    assert sessions.end(value) is None


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    sessions = Sessions(most=2)
    first, second = sessions.begin(session()), sessions.begin(session())
    assert sessions.of(first, now=NOW)
    sessions.begin(session())
    assert sessions.of(first, now=NOW) is not None
    assert sessions.of(second, now=NOW) is None


def test_who_holds_a_session_that_has_ended_sees_that() -> None:
    sessions = Sessions(most=1)
    left, room, old = session(), session(), session()
    sessions.end(sessions.begin(left))
    sessions.begin(room)
    sessions.begin(old)
    assert [one.lives(NOW) for one in (left, room, old)] == [False, False, True]
    assert not old.lives(NOW + 1)


def test_a_session_that_has_ended_does_not_live_again() -> None:
    """Its provider renews it no longer, though it has a refresh token and its access token has not run out."""
    sessions = Sessions()
    renewed = Session(Tokens(access_token="secret", refresh_token="more", scope="", expires=NOW + 1))
    value = sessions.begin(renewed)
    assert sessions.of(value, now=NOW + 1) is renewed
    renewed.ended = True
    assert not renewed.may_live(NOW)
    assert sessions.of(value, now=NOW) is None


def test_nobody_who_logs_in_again_and_again_ends_anothers_session() -> None:
    sessions = Sessions(most=3)
    olga = session()
    olga.idp, olga.name = "https://idp.example", "olga"
    sessions.begin(olga)
    greedy = [session() for _ in range(9)]
    for one in greedy:
        sessions.begin(one)
        one.idp, one.name = "https://idp.example", "mallory"
    assert olga.lives(NOW)
    assert [one.lives(NOW) for one in greedy] == [False] * 7 + [True] * 2
    # Also while nobody has said yet who they are.
    unknown = [session() for _ in range(3)]
    for one in unknown:
        sessions.begin(one)
    assert olga.lives(NOW)


def test_a_login_is_ended_by_its_own_answer_in_time() -> None:
    seal, login = LoginSeal(), PendingLogin(to="/tasks", verifier="v", state="s", begun=NOW)
    value = seal.seal(login)
    assert seal.open(value, "s", now=NOW + PENDING_LIFE) == login
    for state, now in (("other", NOW), ("", NOW), ("s", NOW + PENDING_LIFE + 1), ("s", NOW - 1)):
        assert seal.open(value, state, now=now) is None
    # Sealed by another process, changed, cut, or nothing of the kind.
    assert LoginSeal().open(value, "s", now=NOW) is None
    for at in range(len(value)):
        assert seal.open(value[:at], "s", now=NOW) is None
        other = "A" if value[at] != "A" else "B"
        changed = seal.open(value[:at] + other + value[at + 1 :], "s", now=NOW)
        # The last letter may have bits that stand for nothing.
        assert changed is None or at == len(value) - 1
    for junk in ("", "x", "ä", "=" * 40, "A" * 4_000):
        assert seal.open(junk, "s", now=NOW) is None


def test_a_login_shows_nothing_of_itself() -> None:
    """The verifier would let somebody else's program take the code."""
    seal, login = LoginSeal(), PendingLogin(to="/", verifier="secret-verifier", state="s", begun=NOW)
    one, two = seal.seal(login), seal.seal(login)
    assert one != two
    assert b"secret" not in urlsafe_b64decode(one + "==")
    assert b"secret" not in urlsafe_b64decode(two + "==")


def test_no_secret_is_shown() -> None:
    login = PendingLogin(to="/", verifier="secret-verifier", state="secret-state", begun=NOW)
    assert "secret" not in repr(session()) + repr(login)


def test_cookies_are_for_this_host_and_for_no_script() -> None:
    said = cookie(SESSION, "value", secure=True, same_site="Strict")
    assert said == "__Host-sealbus_console=value; Path=/; HttpOnly; SameSite=Strict; Secure"
    assert cookie(LOGIN, "", secure=False, same_site="Lax", seconds=0).endswith("; Max-Age=0")
    header = "a=b; __Host-sealbus_console=value; sealbus_console=planted"
    assert cookie_value(header, SESSION, secure=True) == "value"
    assert cookie_value(header, SESSION, secure=False) == "planted"
    assert cookie_value("\x00=;;", SESSION, secure=True) == ""
