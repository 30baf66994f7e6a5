"""What identity providers report to the edge: handed to the revoker by a call that is decided and recorded, or refused."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Literal

import pytest
from support.edge import Door, door
from support.engines import ScriptedEngine, allow, deny
from support.security_events import (
    ACCOUNT_DISABLED,
    EVENTS_URL,
    LOGOUT_URL,
    REPORTS,
    SESSION_REVOKED,
    VERIFICATION,
    Told,
    event_token,
    iss_sub,
    log_out,
    logout_token,
    opaque,
    report,
)
from support.shop import Shop

from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.edge.v1.revocation_routes import LOGOUT_PATH, SECURITY_EVENTS_PATH
from sealbus.agents.runtime.policy.revocation import REVOKE, Revocation
from sealbus.envelopes.limits import SECOND


def told_of(edge: Door, kind: Literal["user", "session"], one: str, at: int) -> Revocation:
    return Revocation(kind=kind, issuer=edge.issuer.issuer, id=one, at=at * SECOND)


async def test_each_is_handed_on_and_recorded_as_an_action_of_the_edge() -> None:
    told, second = Told(), int(time.time())
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        user = event_token(edge.issuer, ACCOUNT_DISABLED, iss_sub(edge.issuer, "alice"), iat=second)
        answer = await report(edge, user)
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (202, b"", "no-store")
        assert (await report(edge, event_token(edge.issuer, SESSION_REVOKED, opaque("s-1"), iat=second))).is_success
        left = await log_out(edge, logout_token(edge.issuer, sid="s-2", iat=second))
        assert (left.status_code, left.content, left.headers["cache-control"]) == (204, b"", "no-store")
        assert told.of == [
            told_of(edge, "user", "alice", second),
            told_of(edge, "session", "s-1", second),
            told_of(edge, "session", "s-2", second),
        ]
        decided = await edge.bus.decisions(REVOKE)
        assert [one.allow for one in decided] == [True] * 3
        # The record names the kind, the issuer and the time, and nobody.
        asked = json.loads(decided[0].input or b"")
        assert asked["subject"]["id"] == "spiffe://example.org/edge"
        assert asked["action"]["properties"] == {"kind": "user", "issuer": edge.issuer.issuer, "at": second * SECOND}
        assert asked["context"]["user"]["present"] is False
        assert b"alice" not in (decided[0].input or b"")
        headers = [entry.decided for entry in await edge.bus.audit() if entry.decided is not None]
        assert left.headers["x-request-id"] in [one.tid.hex() for one in headers if one.tid is not None]


async def test_what_revokes_nobody_is_taken_and_not_handed_on() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        answer = await report(edge, event_token(edge.issuer, VERIFICATION, opaque("stream-1"), {"state": "x"}))
        assert (answer.status_code, told.of) == (202, [])
        # That it was handled, and nothing else.
        assert {name for name, count in edge.published().items() if count} == {"STATE"}


async def test_a_token_is_handled_once_by_all_processes_of_the_edge() -> None:
    """Shown again it is answered as before; nobody is asked, nothing recorded, and its issuer's rate not charged."""
    told, second = Told(), int(time.time())
    limits = {"event_rate": 0.001, "event_burst": 3}
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS, limits=limits) as edge, edge.another() as other:
        event = event_token(edge.issuer, SESSION_REVOKED, opaque("s-1"), iat=second)
        logout = logout_token(edge.issuer, sid="s-2", iat=second)
        nobody = event_token(edge.issuer, VERIFICATION, opaque("stream-1"), {"state": "x"}, iat=second)
        for one in (edge, edge, other, other, edge):
            assert (await report(one, event)).status_code == 202
            assert (await log_out(one, logout)).status_code == 204
            assert (await report(one, nobody)).status_code == 202
        assert told.of == [told_of(edge, "session", "s-1", second), told_of(edge, "session", "s-2", second)]
        assert len(await edge.bus.decisions(REVOKE)) == 2
        # Three were charged, and a fourth is over the rate.
        assert (await report(edge, event_token(edge.issuer, jti="event-2", iat=second))).status_code == 429


async def test_what_could_not_be_published_is_handled_when_it_is_reported_again() -> None:
    told, allowed = Told(), [False]
    engine = ScriptedEngine(lambda one: allow() if allowed[0] or one["action"]["name"] != REVOKE else deny())
    async with door(told.agent, engine=engine, row=REPORTS) as edge:
        token = event_token(edge.issuer, SESSION_REVOKED, opaque("s-1"))
        assert (await report(edge, token)).status_code == 503
        allowed[0] = True
        for _ in range(2):
            assert (await report(edge, token)).status_code == 202
        assert [one.id for one in told.of] == ["s-1"]


async def test_with_pseudonyms_a_users_id_does_not_leave_the_edge(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row=REPORTS, pseudonym_key=tmp_path / "key") as edge:
        pseudonyms = edge.edge.front.pseudonyms
        assert pseudonyms is not None
        await report(edge, event_token(edge.issuer, ACCOUNT_DISABLED, iss_sub(edge.issuer, "alice")))
        await log_out(edge, logout_token(edge.issuer, sid=None))
        await log_out(edge, logout_token(edge.issuer, sid="s-1"))
        assert [one.id for one in told.of] == [await pseudonyms.of(edge.issuer.issuer, "alice")] * 2 + ["s-1"]


async def test_a_partners_user_is_named_as_policies_know_them() -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row={**REPORTS, "domain": "partner.example"}) as edge:
        await report(edge, event_token(edge.issuer, ACCOUNT_DISABLED, iss_sub(edge.issuer, "alice")))
        await log_out(edge, logout_token(edge.issuer, sid=None))
        assert [one.id for one in told.of] == ["alice@partner.example"] * 2


@pytest.mark.parametrize("user", ["x" * 250, "ä" * 121], ids=["letters", "bytes"])
async def test_a_name_that_no_context_can_hold_is_refused_and_not_asked_for_again(user: str) -> None:
    told = Told()
    async with door(told.agent, engine=ScriptedEngine(), row={**REPORTS, "domain": "partner.example"}) as edge:
        answer = await report(edge, event_token(edge.issuer, ACCOUNT_DISABLED, iss_sub(edge.issuer, user)))
        assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")
        answer = await log_out(edge, logout_token(edge.issuer, sub=user, sid=None))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert user not in answer.text
        assert told.of == []
        # Nobody of that name comes in.
        assert (await edge.post("/v1/calls/pricing/quote", {}, sub=user)).status_code == 401


@pytest.mark.parametrize("row", [{}, {"event_audiences": ("x",)}, {"logout_audiences": ("x",)}], ids=str)
async def test_there_is_no_such_path_unless_an_issuer_reports(row: dict[str, tuple[str, ...]]) -> None:
    async with door(Shop().pricing, engine=ScriptedEngine(), row=row) as edge:
        for path, there in ((SECURITY_EVENTS_PATH, "event_audiences" in row), (LOGOUT_PATH, "logout_audiences" in row)):
            assert (await edge.http.get(path)).status_code == (405 if there else 404)
            assert path in (EVENTS_URL, LOGOUT_URL)


async def test_what_could_not_be_published_is_to_be_reported_again(caplog: pytest.LogCaptureFixture) -> None:
    denied = ScriptedEngine(lambda one: deny() if one["action"]["name"] == REVOKE else allow())
    async with door(Told().agent, engine=denied, row=REPORTS) as edge:
        with caplog.at_level(logging.ERROR, logger="sealbus"):
            for answer in (
                await report(edge, event_token(edge.issuer)),
                await log_out(edge, logout_token(edge.issuer)),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
                assert answer.headers["retry-after"] == "5"
        assert "revoker.revoke answered denied" in caplog.text
        assert "session-1" not in caplog.text
    async with door(Shop().pricing, engine=ScriptedEngine(), row=REPORTS) as edge:
        answer = await report(edge, event_token(edge.issuer))
        assert (answer.status_code, answer.json()["code"]) == (503, "no_listener")


async def test_an_issuer_that_reports_too_much_is_told_to_wait() -> None:
    told = Told()
    async with door(
        told.agent, engine=ScriptedEngine(), row=REPORTS, limits={"event_rate": 0.001, "event_burst": 2}
    ) as edge:
        token = event_token(edge.issuer)
        # What it did not sign does not count.
        for _ in range(4):
            assert (await report(edge, token[:-4] + "AAAA")).status_code == 400
        tokens = [token, event_token(edge.issuer, jti="event-2")]
        statuses = [(await report(edge, one)).status_code for one in tokens]
        answer = await log_out(edge, logout_token(edge.issuer))
        assert (statuses, answer.status_code, answer.json()["code"]) == ([202] * 2, 429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1


async def test_keys_that_are_not_available_are_no_reason_to_refuse() -> None:
    async with door(Told().agent, engine=ScriptedEngine(), row=REPORTS) as edge:
        edge.issuer.key_set.status = 500
        answer = await report(edge, event_token(edge.issuer))
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
