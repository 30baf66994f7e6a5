"""What a person's own client asks of the edge about what waits, and what becomes of each of its answers."""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from typing import Any

import httpx2
import pytest
from support.edge import door
from support.payments import Payments

from sealbus.agents.edge.v1.approval_routes import SCOPE
from sealbus.agents.login.approvals import Approvals, Refused
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, Denied

EDGE = "https://edge.example/api"
ID, DECISION = "a" * 64, "d" * 64
TOKEN = "token-that-nobody-may-see"


class Scripted:
    """Stands for an edge that answers as a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: deque[httpx2.Response | Exception] = deque()
        self.asked: list[httpx2.Request] = []
        self.pauses: list[float] = []

    def says(self, document: object, status: int = 200, **fields: str) -> None:
        self.answers.append(httpx2.Response(status, json=document, headers=fields))

    def client(self, edge: str = EDGE) -> Approvals:
        return Approvals(edge, TOKEN, self.pause)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    stands = Scripted()
    client = partial(httpx2.AsyncClient, transport=httpx2.MockTransport(stands.answer))
    monkeypatch.setattr(httpx2, "AsyncClient", client)
    return stands


async def test_all_pages_of_a_queue_are_what_waits(edge: Scripted) -> None:
    edge.says({"approvals": [{"id": "1"}, {"id": "2"}], "after": 7})
    edge.says({"approvals": [], "after": 9})
    edge.says({"approvals": [{"id": "3"}]})
    async with edge.client() as approvals:
        assert [one["id"] for one in await approvals.waiting("managers")] == ["1", "2", "3"]
    assert [(one.method, str(one.url)) for one in edge.asked] == [
        ("GET", f"{EDGE}/v1/approvals?queue=managers&after={after}") for after in (0, 7, 9)
    ]
    assert [one.headers["authorization"] for one in edge.asked] == [f"Bearer {TOKEN}"] * 3


async def test_a_long_queue_is_read_no_faster_than_the_edge_lets(edge: Scripted) -> None:
    edge.says({"approvals": [{"id": "1"}], "after": 7})
    edge.says({"code": "rate_limited"}, 429, **{"Retry-After": "2"})
    edge.says({"code": "rate_limited"}, 429, **{"Retry-After": "1"})
    edge.says({"approvals": [{"id": "2"}]})
    async with edge.client() as approvals:
        assert [one["id"] for one in await approvals.waiting("managers")] == ["1", "2"]
    assert edge.pauses == [2, 1]
    assert [one.url.params["after"] for one in edge.asked] == ["0", "7", "7", "7"]


@pytest.mark.parametrize("after", ["", "0", "31", "-1", "1e3", "Fri, 27 Nov 2026 12:00:00 GMT"])
async def test_who_is_told_to_wait_for_long_or_for_no_time_is_told(edge: Scripted, after: str) -> None:
    edge.says(
        {"code": "rate_limited", "detail": "Too many requests."}, 429, **({"Retry-After": after} if after else {})
    )
    async with edge.client() as approvals:
        with pytest.raises(Refused, match="Too many requests") as raised:
            await approvals.waiting("managers")
    assert (raised.value.code, edge.pauses) == ("rate_limited", [])


async def test_one_is_asked_for_and_told_by_its_id(edge: Scripted) -> None:
    edge.says({"id": ID})
    edge.says({"id": ID, "verdict": "approve"})
    async with edge.client() as approvals:
        assert await approvals.approval(ID) == {"id": ID}
        await approvals.submit_verdict(ID, "approve", decision=DECISION, note="as agreed")
    shown, said = edge.asked
    assert (shown.method, str(shown.url)) == ("GET", f"{EDGE}/v1/approvals/{ID}")
    assert (said.method, str(said.url), said.headers["content-type"]) == (
        "POST",
        f"{EDGE}/v1/approvals/{ID}",
        "application/json",
    )
    assert json.loads(said.content) == {"decision": DECISION, "verdict": "approve", "note": "as agreed"}


async def test_what_a_person_types_goes_to_no_other_path(edge: Scripted) -> None:
    async with edge.client() as approvals:
        for text in ("../tasks/payments/pay", "x?queue=a", "x#y"):
            edge.says({})
            await approvals.approval(text)
        edge.says({})
        await approvals.waiting("a&after=5")
    assert [one.url.raw_path.decode().removeprefix("/api/v1/approvals") for one in edge.asked] == [
        "/..%2Ftasks%2Fpayments%2Fpay",
        "/x%3Fqueue%3Da",
        "/x%23y",
        "?queue=a%26after%3D5&after=0",
    ]


async def test_a_login_or_scope_that_is_missing_is_told_with_its_remedy(edge: Scripted) -> None:
    login = [{"kind": "login", "acr": "gold", "max_age": 300}]
    edge.says({"code": "denied", "detail": "The policy does not allow this.", "remedy": login}, 401)
    edge.says({"code": "denied", "remedy": [{"kind": "scope", "scope": SCOPE}]}, 403)
    edge.says({"code": "approval_self", "detail": "Nobody approves what they asked for."}, 403)
    edge.says({"code": "denied", "remedy": "junk"}, 403)
    async with edge.client() as approvals:
        found: list[Denied] = []
        for _ in range(4):
            with pytest.raises(Denied) as raised:
                await approvals.submit_verdict(ID, "approve", decision=DECISION)
            found.append(raised.value)
    first, second, third, fourth = found
    [remedy] = first.remedies
    assert (remedy.kind, remedy.acr, remedy.max_age) == (RemedyKind.LOGIN, "gold", 300)
    assert [(one.kind, one.scope) for one in second.remedies] == [(RemedyKind.SCOPE, SCOPE)]
    assert (third.detail, third.remedies) == ("Nobody approves what they asked for.", ())
    assert (fourth.detail, fourth.remedies) == ("not allowed", ())


@pytest.mark.parametrize(
    ("status", "document", "code", "detail"),
    [
        (409, {"code": "approval_closed", "detail": "Nothing waits."}, "approval_closed", "Nothing waits."),
        (404, {"code": "not_found", "detail": "nothing waits here"}, "not_found", "nothing waits here"),
        (503, {"code": "bus_unavailable"}, "bus_unavailable", ""),
        (500, {}, "500", ""),
        (302, {}, "302", ""),
    ],
)
async def test_every_other_answer_is_a_refusal_with_its_code(
    edge: Scripted, status: int, document: object, code: str, detail: str
) -> None:
    edge.says(document, status, Location="https://evil.example/")
    async with edge.client() as approvals:
        with pytest.raises(Refused) as raised:
            await approvals.submit_verdict(ID, "approve", decision=DECISION)
    assert (raised.value.code, raised.value.detail) == (code, detail)
    # Nowhere else is the token sent.
    assert len(edge.asked) == 1


async def test_an_edge_that_is_away_or_none_is_told_by_its_address(edge: Scripted) -> None:
    async with edge.client() as approvals:
        edge.answers += [
            httpx2.ConnectError("x"),
            httpx2.Response(200, content=b"<html>"),
            httpx2.Response(200, json=[]),
        ]
        with pytest.raises(BusUnavailable, match=r"edge\.example/api/? does not answer: ConnectError"):
            await approvals.approval(ID)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"edge\.example/api/? is not an edge"):
                await approvals.approval(ID)


@pytest.mark.parametrize(
    "url", ["http://edge.example", "edge.example", "ftp://edge.example", "", "http://127.0.0.1.example"]
)
def test_a_token_goes_to_no_place_where_others_can_read_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        Approvals(url, TOKEN)


async def test_at_an_edge_what_waits_is_seen_and_approved() -> None:
    payments = Payments()
    async with door(payments.agent, engine=payments.engine, actions=("payments.*",)) as running:
        handle = await payments.submitted(running.bus)
        url = f"http://127.0.0.1:{running.edge.port}"
        async with Approvals(url, running.issuer.token(sub="boss")) as approvals:
            [one] = await approvals.waiting("managers")
            assert await approvals.approval(one["id"]) == one
            with pytest.raises(Denied) as raised:
                await approvals.submit_verdict(one["id"], "approve", decision=one["decision"])
            assert [remedy.scope for remedy in raised.value.remedies] == [SCOPE]
        async with Approvals(url, running.issuer.token(sub="boss", scope=SCOPE)) as approvals:
            said: dict[str, Any] = {"decision": one["decision"], "note": "as agreed"}
            await approvals.submit_verdict(one["id"], "approve", **said)
            await running.bus.idle()
            with pytest.raises(Refused) as closed:
                await approvals.submit_verdict(one["id"], "approve", **said)
            assert closed.value.code == "approval_closed"
        assert payments.paid == [("42", ("boss",))]
        assert handle.digest.hex() == one["id"]
