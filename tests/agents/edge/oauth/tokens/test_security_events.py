"""Whom an event token or a logout token revokes: which events, which subjects, until when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.issuer import PATIENT, TRUSTS_NOBODY, LoopbackIssuer
from support.security_events import (
    CLIENT_ID,
    CREDENTIAL_CHANGE,
    RECEIVER,
    SESSION_REVOKED,
    VERIFICATION,
    event_token,
    iss_sub,
    logout_token,
    opaque,
)

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import EdgeError, KeysUnavailable
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.security_events import HANDLED_FOR, SecurityEventVerifier
from sealbus.agents.runtime.policy.revocation import KEPT
from sealbus.envelopes.errors import BusUnavailable, StateUnavailable
from sealbus.envelopes.limits import SECOND

RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SECOND_NOW = 1_795_752_000
NOW = SECOND_NOW * SECOND
CHANGED = {"credential_type": "password", "change_type": "update"}


class Guard:
    """A guard that remembers in memory, or raises `problem`."""

    def __init__(self) -> None:
        self.uses: dict[bytes, tuple[int, int]] = {}
        self.problem: Exception | None = None

    async def used(self, digest: bytes, *, made: int) -> bool:
        if self.problem is not None:
            raise self.problem
        return digest in self.uses

    async def use(self, digest: bytes, *, made: int, until: int) -> bool:
        if self.problem is not None:
            raise self.problem
        return self.uses.setdefault(digest, (made, until)) == (made, until)


@asynccontextmanager
async def verifying(**row: Any) -> AsyncIterator[tuple[LoopbackIssuer, SecurityEventVerifier]]:
    said = {"event_audiences": frozenset({RECEIVER}), "logout_audiences": frozenset({CLIENT_ID}), **row}
    async with LoopbackIssuer() as issuer, KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield issuer, SecurityEventVerifier([issuer.row(**said)], keys, Guard())  # type: ignore[arg-type]  # as much as it uses


async def revoked(kind: str, subject: object, payload: object = None, **claims: Any) -> tuple[str, str, int] | None:
    """Return what a token revokes: kind, id, and the seconds until NOW."""
    async with verifying() as (issuer, verifier):
        said = subject(issuer) if callable(subject) else subject
        token = event_token(issuer, kind, said, payload, **{"iat": SECOND_NOW, **claims})
        event = await verifier.event(token, now=NOW)
        found = event.revoked
        assert event.issuer == issuer.issuer
        if found is None:
            return None
        assert found.issuer == event.issuer
        return found.kind, found.id, SECOND_NOW - found.at // SECOND


def complex_of(**parts: Any) -> Any:
    def made(issuer: LoopbackIssuer) -> dict[str, Any]:
        return {"format": "complex"} | {
            name: iss_sub(issuer, part) if isinstance(part, str) else part for name, part in parts.items()
        }

    return made


def nearly(changes: Mapping[str, str] | None = None, *, iss: Callable[[str], str] = str) -> Any:
    """Return a subject that is almost alice's: with other members, or another `iss`."""

    def made(issuer: LoopbackIssuer) -> dict[str, str]:
        subject = iss_sub(issuer, "alice")
        return {**subject, "iss": iss(subject["iss"]), **(changes or {})}

    return made


def of_alice(issuer: LoopbackIssuer) -> dict[str, str]:
    return iss_sub(issuer, "alice")


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        (opaque("s-1"), ("session", "s-1")),
        (of_alice, ("user", "alice")),
        (complex_of(session=opaque("s-1")), ("session", "s-1")),
        (complex_of(user="alice"), ("user", "alice")),
        (complex_of(user=opaque("alice"), session="s-1"), ("session", "s-1")),
        # The examples of CAEP 1.0: the session alone, and a user's sessions on a device, which are all of theirs here.
        (complex_of(session=opaque("s-1"), user="alice", tenant=opaque("7")), ("session", "s-1")),
        (complex_of(user="alice", device="d-1", tenant=opaque("7")), ("user", "alice")),
    ],
)
async def test_whose_session_is_revoked(subject: object, found: tuple[str, str]) -> None:
    assert await revoked(SESSION_REVOKED, subject) == (*found, 0)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (CREDENTIAL_CHANGE, CHANGED),
        (CREDENTIAL_CHANGE, {**CHANGED, "change_type": "revoke"}),
        (CREDENTIAL_CHANGE, {**CHANGED, "change_type": "delete", "friendly_name": "x"}),
        (f"{RISC}account-disabled", {"reason": "hijacking"}),
        (f"{RISC}account-purged", {}),
        (f"{RISC}sessions-revoked", {}),
        (f"{RISC}credential-compromise", {"credential_type": "password"}),
    ],
)
async def test_events_after_which_a_user_logs_in_anew(kind: str, payload: Mapping[str, str]) -> None:
    for subject in (of_alice, opaque("alice"), complex_of(user="alice", session=opaque("s-1"))):
        assert await revoked(kind, subject, payload) == ("user", "alice", 0)
    # Their time is the event's, if the token says it, and never later than the token.
    assert await revoked(kind, of_alice, {**payload, "event_timestamp": SECOND_NOW - 60}) == ("user", "alice", 60)
    assert await revoked(kind, of_alice, {**payload, "event_timestamp": SECOND_NOW + 60}) == ("user", "alice", 0)


async def test_events_that_revoke_nobody() -> None:
    assert await revoked(VERIFICATION, opaque("stream-1"), {"state": "x"}) is None
    assert await revoked(f"{RISC}account-enabled", {"format": "email", "email": "alice@example.org"}) is None
    assert await revoked(CREDENTIAL_CHANGE, of_alice, {**CHANGED, "change_type": "create"}) is None


@pytest.mark.parametrize(
    ("kind", "subject", "payload", "detail"),
    [
        (SESSION_REVOKED, {"format": "email", "email": "alice@example.org"}, {}, "stands for no id"),
        (SESSION_REVOKED, {"format": "jwt_id", "iss": "x", "jti": "y"}, {}, "stands for no id"),
        (SESSION_REVOKED, {"format": "aliases", "identifiers": []}, {}, "stands for no id"),
        (SESSION_REVOKED, {"id": "s-1"}, {}, "format"),
        (SESSION_REVOKED, {"format": "opaque"}, {}, "id"),
        (SESSION_REVOKED, opaque(""), {}, "id"),
        (SESSION_REVOKED, opaque("x" * 257), {}, "id"),
        (SESSION_REVOKED, opaque("a\u0000b"), {}, "id"),
        (SESSION_REVOKED, {"format": "opaque", "id": 7}, {}, "id"),
        (SESSION_REVOKED, {"format": "iss_sub", "iss": "https://other.example", "sub": "alice"}, {}, "another issuer"),
        (SESSION_REVOKED, complex_of(device="d-1"), {}, "user"),
        (SESSION_REVOKED, complex_of(session=7), {}, "session"),
        (SESSION_REVOKED, complex_of(user={"format": "email", "email": "a@b.example"}), {}, "stands for no id"),
        (SESSION_REVOKED, complex_of(user={"format": "complex"}), {}, "stands for no id"),
        (SESSION_REVOKED, opaque("s-1"), {"event_timestamp": SECOND_NOW * 1_000}, "event_timestamp"),
        (SESSION_REVOKED, opaque("s-1"), {"event_timestamp": "now"}, "event_timestamp"),
        (SESSION_REVOKED, opaque("s-1"), [], "events"),
        (f"{RISC}account-disabled", complex_of(session=opaque("s-1")), {}, "user"),
        (f"{RISC}identifier-changed", of_alice, {}, "of a kind"),
        ("session-revoked", of_alice, {}, "of a kind"),
        (SESSION_REVOKED.upper(), of_alice, {}, "of a kind"),
        (f"{SESSION_REVOKED}s", of_alice, {}, "of a kind"),
        # What is nearly a format, or nearly this issuer, is another.
        (SESSION_REVOKED, {"format": "Opaque", "id": "s-1"}, {}, "stands for no id"),
        (SESSION_REVOKED, {"format": "opaque2", "id": "s-1"}, {}, "stands for no id"),
        (SESSION_REVOKED, nearly({"format": "ISS_SUB"}), {}, "stands for no id"),
        (SESSION_REVOKED, nearly({"format": "iss_sub2"}), {}, "stands for no id"),
        (SESSION_REVOKED, {"format": "Complex", "session": opaque("s-1")}, {}, "stands for no id"),
        (SESSION_REVOKED, {"format": "complex2", "session": opaque("s-1")}, {}, "stands for no id"),
        (SESSION_REVOKED, nearly(iss=lambda name: name.upper()), {}, "another issuer"),
        (SESSION_REVOKED, nearly(iss=lambda name: f"{name}/"), {}, "another issuer"),
        (CREDENTIAL_CHANGE, of_alice, {"credential_type": "password"}, "change_type"),
        (CREDENTIAL_CHANGE, of_alice, {**CHANGED, "change_type": "sold"}, "change_type"),
        (CREDENTIAL_CHANGE, of_alice, {**CHANGED, "change_type": "Update"}, "change_type"),
        (CREDENTIAL_CHANGE, of_alice, {"change_type": "revoke"}, "credential_type"),
    ],
)
async def test_what_names_nobody_here_is_refused(kind: str, subject: object, payload: object, detail: str) -> None:
    with pytest.raises(EdgeError, match=detail) as refused:
        await revoked(kind, subject, payload)
    assert (refused.value.status, refused.value.error) == (400, "invalid_request")
    assert "alice" not in refused.value.detail


async def test_a_logout_ends_its_session_and_without_one_its_user() -> None:
    async with verifying() as (issuer, verifier):
        times: dict[str, Any] = {"iat": SECOND_NOW - 3, "exp": SECOND_NOW + 60}
        for claims, kind, one in (
            ({}, "session", "session-1"),
            ({"sub": None}, "session", "session-1"),
            ({"sid": None}, "user", "alice"),
        ):
            found = (await verifier.logout(logout_token(issuer, **times, **claims), now=NOW)).revoked
            assert found is not None
            assert (found.kind, found.issuer, found.id, found.at) == (kind, issuer.issuer, one, NOW - 3 * SECOND)


async def test_the_ids_stay_out_of_texts() -> None:
    async with verifying() as (issuer, verifier):
        times: dict[str, Any] = {"iat": SECOND_NOW, "exp": SECOND_NOW + 60}
        found = await verifier.logout(logout_token(issuer, sid=None, **times), now=NOW)
        assert "alice" not in f"{found} {found!r}"


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"sub": None, "sid": None}, "neither"),
        ({"sub": ""}, "sub"),
        ({"sid": ""}, "sid"),
        ({"nonce": "n"}, "nonce"),
        ({"jti": None}, "jti"),
        ({"exp": None}, "exp"),
        ({"exp": SECOND_NOW}, "exp"),
        ({"iat": SECOND_NOW + 6}, "future"),
        ({"events": None}, "events"),
        ({"events": {}}, "events"),
        ({"events": {SESSION_REVOKED: {}}}, "events"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": True}}, "events"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}, SESSION_REVOKED: {}}}, "events"),
    ],
)
async def test_what_is_no_logout_token(claims: Mapping[str, Any], detail: str) -> None:
    async with verifying() as (issuer, verifier):
        token = logout_token(issuer, **{"iat": SECOND_NOW, "exp": SECOND_NOW + 60, **claims})
        with pytest.raises(EdgeError, match=detail) as refused:
            await verifier.logout(token, now=NOW)
        assert refused.value.status == 400


async def test_each_is_taken_for_its_own_audience_only() -> None:
    async with verifying(event_audiences=frozenset({"one", "two"}), logout_audiences=frozenset()) as (issuer, verifier):
        for aud in ("one", ["x", "two"]):
            assert (await verifier.event(event_token(issuer, iat=SECOND_NOW, aud=aud), now=NOW)).issuer
        for aud in ("three", RECEIVER, []):
            with pytest.raises(EdgeError) as refused:
                await verifier.event(event_token(issuer, iat=SECOND_NOW, aud=aud), now=NOW)
            assert (refused.value.error, refused.value.status) == ("invalid_audience", 400)
        # An issuer that may not report at all is none here.
        with pytest.raises(EdgeError, match="iss") as refused_one:
            await verifier.logout(logout_token(issuer), now=NOW)
        assert refused_one.value.error == "invalid_issuer"


async def test_what_is_just_within_its_bounds_is_taken() -> None:
    async with LoopbackIssuer() as issuer, KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        row = issuer.row(event_audiences=frozenset({RECEIVER}))
        ahead = SECOND_NOW + DEFAULT_EDGE_LIMITS.future_seconds
        token = event_token(issuer, iat=ahead)
        for length, taken in ((len(token), True), (len(token) - 1, False)):
            limits = replace(DEFAULT_EDGE_LIMITS, token_bytes=length)
            verifier = SecurityEventVerifier([row], keys, Guard(), limits)  # type: ignore[arg-type]  # not asked
            if taken:
                assert (await verifier.event(token, now=NOW)).issuer
            else:
                with pytest.raises(EdgeError, match="too long"):
                    await verifier.event(token, now=NOW)
        verifier = SecurityEventVerifier([row], keys, Guard())  # type: ignore[arg-type]  # not asked
        with pytest.raises(EdgeError, match="future"):
            await verifier.event(token, now=NOW - 1)


async def test_shown_again_it_says_the_same() -> None:
    async with verifying() as (issuer, verifier):
        token = event_token(issuer, iat=SECOND_NOW)
        first = await verifier.event(token, now=NOW)
        assert await verifier.event(token, now=NOW + KEPT - 1) == first


async def test_it_is_known_by_issuer_id_and_what_it_says() -> None:
    async with verifying() as (issuer, verifier):

        async def digest(token: str) -> bytes:
            return (await verifier.event(token, now=NOW)).digest

        plain = await digest(event_token(issuer, iat=SECOND_NOW))
        assert len(plain) == 16
        others = [
            event_token(issuer, iat=SECOND_NOW, jti="event-2"),
            event_token(issuer, iat=SECOND_NOW - 1),
            event_token(issuer, subject=opaque("session-2"), iat=SECOND_NOW),
            event_token(issuer, subject=iss_sub(issuer, "session-1"), iat=SECOND_NOW),
            event_token(issuer, VERIFICATION, iat=SECOND_NOW),
        ]
        found = {plain, *[await digest(one) for one in others]}
        logout = logout_token(issuer, sid="session-1", jti="event-1", iat=SECOND_NOW, exp=SECOND_NOW + 60)
        found.add((await verifier.logout(logout, now=NOW)).digest)
        assert len(found) == len(others) + 2
        # Anything else about it is no part of that.
        assert await digest(event_token(issuer, iat=SECOND_NOW, txn="t-1")) == plain


@pytest.mark.parametrize("problem", [StateUnavailable("full"), BusUnavailable("away")])
async def test_where_nobody_knows_whether_it_was_handled_it_is_handled(problem: Exception) -> None:
    async with LoopbackIssuer() as issuer, KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        guard = Guard()
        row = issuer.row(event_audiences=frozenset({RECEIVER}))
        verifier = SecurityEventVerifier([row], keys, guard)  # type: ignore[arg-type]  # as much as it uses
        event = await verifier.event(event_token(issuer, iat=SECOND_NOW), now=NOW)
        assert not await verifier.handled(event)
        await verifier.remember(event, now=NOW)
        assert await verifier.handled(event)
        # A use from before the token was made cannot be one of it; a day is what STATE keeps.
        ahead = DEFAULT_EDGE_LIMITS.future_seconds * SECOND
        assert list(guard.uses.values()) == [(NOW - ahead, NOW + HANDLED_FOR)]
        guard.problem = problem
        assert not await verifier.handled(event)
        await verifier.remember(event, now=NOW)


async def test_what_the_list_would_let_go_of_at_once_is_refused() -> None:
    """To take it would be to say that somebody is denied."""
    old = SECOND_NOW - KEPT // SECOND
    async with verifying() as (issuer, verifier):
        for token in (
            event_token(issuer, iat=old),
            event_token(issuer, SESSION_REVOKED, opaque("s-1"), {"event_timestamp": old}, iat=SECOND_NOW),
            event_token(issuer, f"{RISC}account-disabled", of_alice(issuer), {"event_timestamp": 0}, iat=SECOND_NOW),
        ):
            with pytest.raises(EdgeError, match="too long ago") as refused:
                await verifier.event(token, now=NOW)
            assert (refused.value.status, refused.value.error) == (400, "invalid_request")
        with pytest.raises(EdgeError, match="too long ago"):
            await verifier.logout(logout_token(issuer, iat=old, exp=SECOND_NOW + 1), now=NOW)
        # What denies nobody has no time that matters.
        assert (await verifier.event(event_token(issuer, VERIFICATION, opaque("stream-1"), iat=old), now=NOW)).issuer


async def test_without_keys_nobody_is_refused() -> None:
    async with verifying() as (issuer, verifier):
        issuer.key_set.status = 500
        with pytest.raises(KeysUnavailable):
            await verifier.event(event_token(issuer, iat=SECOND_NOW), now=NOW)
