"""`/v1/approvals`: each answer with its status and code, and what of it reaches the bus in whose name."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from support.edge import Door, door
from support.engines import deny
from support.payments import ASKED, Payments

from sealbus.agents.edge.v1 import approvals as shown
from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, SCOPE
from sealbus.agents.edge.v1.approvals import PageLimits
from sealbus.bus.gate.status_reader import StatusLimits
from sealbus.bus.stream_names import HELD
from sealbus.envelopes.errors import BusUnavailable

QUEUE = f"{APPROVALS_PATH}?queue=managers"
LIMITS = {"body_bytes": 2_000, "submit_seconds": 5.0}


@dataclass(kw_only=True)
class Counter:
    """The edge before an agent that pays, whose payments wait; alice asks for them, and boss says something."""

    door: Door
    payments: Payments

    async def asked(self, **claims: Any) -> str:
        """Have a payment asked for, by alice unless said, and return its URL there once it waits."""
        before = {one.digest for one in await self.door.bus.waiting()}
        answer = await self.door.post("/v1/tasks/payments/pay", {"invoice": "42"}, **claims)
        assert answer.status_code == 202
        await self.door.bus.idle()
        [new] = [one.digest for one in await self.door.bus.waiting() if one.digest not in before]
        return f"{APPROVALS_PATH}/{new.hex()}"

    async def get(self, path: str, **claims: Any) -> httpx2.Response:
        return await self.door.get(path, **{"sub": "boss", **claims})

    async def say(
        self, path: str, body: object, *, headers: Mapping[str, str] | None = None, **claims: Any
    ) -> httpx2.Response:
        return await self.door.post(path, body, headers=headers, **{"sub": "boss", "scope": SCOPE, **claims})

    async def verdict(self, path: str, verdict: str = "approve", **claims: Any) -> httpx2.Response:
        """Say `verdict` about what is shown at `path`."""
        shown = (await self.get(path)).json()
        answer = await self.say(path, {"decision": shown["decision"], "verdict": verdict}, **claims)
        await self.door.bus.idle()
        return answer

    def sealed(self) -> int:
        """Return how many verdicts were sealed."""
        return sum(one.subject.endswith(".approve") for one in self.door.bus.stored("TASKS"))


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
async def counter(payments: Payments) -> AsyncIterator[Counter]:
    async with door(payments.agent, engine=payments.engine, actions=("payments.*",), limits=LIMITS) as running:
        yield Counter(door=running, payments=payments)


def told(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def test_what_waits_is_listed_and_shown_and_runs_once_it_is_approved(counter: Counter) -> None:
    url = await counter.asked()
    listed = await counter.get(QUEUE)
    assert (listed.status_code, listed.headers["cache-control"]) == (200, "no-store")
    assert listed.json().keys() == {"approvals"}
    [one] = listed.json()["approvals"]
    assert one == (await counter.get(url)).json()
    assert (one["id"], one["text"], one["user"]["id"]) == (url.rpartition("/")[2], "Pay ACME", "alice")
    answer = await counter.say(url, {"decision": one["decision"], "verdict": "approve", "note": "as agreed"})
    assert (answer.status_code, answer.json()) == (200, {"id": one["id"], "verdict": "approve"})
    await counter.door.bus.idle()
    assert counter.payments.paid == [("42", ("boss",))]
    [decided] = await counter.door.bus.decisions("payments._approve")
    asked = json.loads(decided.input or b"")
    assert asked["action"]["properties"] == {"verdict": "approve", "note": "as agreed"}
    user = asked["context"]["user"]
    assert (user["id"], user["idp"], user["client"]) == ("boss", counter.door.issuer.issuer, "shop-web")
    assert asked["context"]["chain"] == ["spiffe://example.org/edge"]
    assert (await counter.get(QUEUE)).json() == {"approvals": []}


async def test_what_nobody_approved_in_time_has_expired_for_every_reader(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter.door.edge.node.status_reader, "limits", StatusLimits(parked=0.05))
    counter.payments.asked = {**ASKED, "until": 1}
    url = (await counter.door.post("/v1/tasks/payments/pay", {"invoice": "42"})).json()["status_url"]
    states: list[str] = []
    async with (
        asyncio.timeout(20),
        counter.door.http.stream("GET", f"{url}/events", headers=counter.door.authorized()) as stream,
    ):
        states += [json.loads(line[6:])["state"] async for line in stream.aiter_lines() if line.startswith("data: ")]
    assert states == ["input-required", "expired"]
    shown = (await counter.door.get(url)).json()
    assert (shown["state"], shown["code"], shown["final"]) == ("expired", "expired", True)
    assert told(await counter.door.get(f"{url}/result")) == (504, "expired")
    assert told(await counter.door.http.delete(url, headers=counter.door.authorized())) == (409, "task_ended")
    assert (await counter.get(QUEUE)).json() == {"approvals": []}


async def test_a_denial_ends_it(counter: Counter) -> None:
    url = await counter.asked()
    task = (await counter.get(url)).json()["task"]
    assert (await counter.verdict(url, "deny")).json()["verdict"] == "deny"
    assert not counter.payments.paid
    assert (await counter.door.get(f"/v1/tasks/{task}")).json()["state"] == "rejected"
    assert told(await counter.get(url)) == (409, "approval_closed")


async def test_what_was_said_can_be_withdrawn_and_said_anew(counter: Counter) -> None:
    counter.payments.enough = 2
    url = await counter.asked()
    assert told(await counter.verdict(url, "withdraw")) == (409, "approval_closed")
    assert (await counter.verdict(url)).status_code == 200
    assert [one["user"] for one in (await counter.get(url)).json()["verdicts"]] == ["boss"]
    assert told(await counter.verdict(url)) == (409, "approval_repeated")
    answer = await counter.verdict(url, "withdraw")
    assert (answer.status_code, answer.json()["verdict"]) == (200, "withdraw")
    # What was taken back is shown as that.
    assert [one["verdict"] for one in (await counter.get(url)).json()["verdicts"]] == ["withdraw"]
    assert told(await counter.verdict(url, "withdraw")) == (409, "approval_closed")
    assert (await counter.verdict(url)).status_code == 200
    assert (await counter.verdict(url, sub="other")).status_code == 200
    assert counter.payments.paid == [("42", ("boss", "other"))]


async def test_a_second_verdict_about_what_is_done_is_closed(counter: Counter) -> None:
    url = await counter.asked()
    shown = (await counter.get(url)).json()
    said = {"decision": shown["decision"], "verdict": "approve"}
    assert (await counter.say(url, said)).status_code == 200
    await counter.door.bus.idle()
    assert told(await counter.say(url, said)) == (409, "approval_closed")
    assert told(await counter.say(url, said, sub="other")) == (409, "approval_closed")
    assert counter.sealed() == 1


@pytest.mark.parametrize("session", [{}, {"sid": "another", "client_id": "another-app", "jti": "another"}])
async def test_nothing_is_sealed_for_who_asked_for_it_themselves(counter: Counter, session: dict[str, str]) -> None:
    url = await counter.asked()
    for verdict in ("approve", "deny", "withdraw"):
        assert told(await counter.verdict(url, verdict, sub="alice", **session)) == (403, "approval_self")
    assert counter.sealed() == 0
    assert not counter.payments.paid


async def test_a_user_of_that_name_elsewhere_is_somebody_else(counter: Counter) -> None:
    context = counter.door.bus.user("alice", "shop")
    client = await counter.door.bus.client("shop")
    handle = await client.submit("payments.pay", {"invoice": "42"}, user=context)
    await counter.door.bus.idle()
    answer = await counter.verdict(f"{APPROVALS_PATH}/{handle.digest.hex()}", sub="alice")
    assert answer.status_code == 200


async def test_who_may_not_view_finds_nothing(counter: Counter) -> None:
    url = await counter.asked()
    counter.payments.may = lambda user: user == "boss"
    shown = (await counter.get(url)).json()
    assert (await counter.get(QUEUE, sub="clerk")).json() == {"approvals": []}
    assert told(await counter.get(url, sub="clerk")) == (404, "not_found")
    said = {"decision": shown["decision"], "verdict": "approve"}
    assert told(await counter.say(url, said, sub="clerk")) == (404, "not_found")
    assert (await counter.verdict(url)).status_code == 200
    assert told(await counter.get(url, sub="clerk")) == (404, "not_found")
    assert counter.sealed() == 1


async def test_who_may_only_view_is_denied_with_the_reasons_that_are_shown(counter: Counter) -> None:
    url = await counter.asked()
    reasons: tuple[dict[str, object], ...] = ({"type": "show_reasons"},)
    counter.payments.decide = lambda document: (
        deny("not_a_manager", obligations=reasons)
        if document["action"]["properties"].get("verdict") == "deny"
        else None
    )
    answer = await counter.verdict(url, "deny")
    assert told(answer) == (403, "denied")
    assert answer.json()["reasons"] == ["not_a_manager"]
    assert (await counter.get(url)).json()["verdicts"] == []


async def test_a_token_without_the_scope_is_told_which(counter: Counter) -> None:
    url = await counter.asked()
    for scope in (None, "openid", SCOPE + "d"):
        answer = await counter.verdict(url, scope=scope)
        assert told(answer) == (403, "denied")
        assert answer.json()["remedy"] == [{"kind": "scope", "scope": SCOPE}]
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert f'scope="{SCOPE}"' in answer.headers["www-authenticate"]
    assert counter.sealed() == 0
    assert (await counter.verdict(url, scope=f"openid {SCOPE}")).status_code == 200


async def test_without_a_token_there_is_nothing(counter: Counter) -> None:
    url = await counter.asked()
    for method, path in (("GET", QUEUE), ("GET", url), ("POST", url)):
        answer = await counter.door.http.request(method, path)
        assert told(answer) == (401, "no_token")
    assert counter.sealed() == 0


LOGINS: dict[str, dict[str, Any]] = {
    "too weak": {"acr": "silver", "auth_time": 0},
    "of unknown strength": {"auth_time": 0},
    "too old": {"acr": "gold", "auth_time": -400},
    "of unknown age": {"acr": "gold"},
}
"""A login, and how many seconds from now it was."""


@pytest.mark.parametrize("name", LOGINS)
async def test_a_login_that_is_not_enough_is_told_which_is(counter: Counter, name: str) -> None:
    counter.payments.asked = {**ASKED, "acr": ["gold", "platinum"], "max_age": 300}
    url = await counter.asked()
    login = dict(LOGINS[name])
    if "auth_time" in login:
        login["auth_time"] += int(time.time())
    answer = await counter.verdict(url, **login)
    assert told(answer) == (401, "denied")
    assert answer.json()["remedy"] == [{"kind": "login", "acr": "gold platinum", "max_age": 300}]
    challenge = answer.headers["www-authenticate"]
    for part in ('error="insufficient_user_authentication"', 'acr_values="gold platinum"', "max_age=300"):
        assert part in challenge.replace('max_age="300"', "max_age=300")
    assert counter.sealed() == 0
    # As the challenge says.
    answer = await counter.verdict(url, acr="platinum", auth_time=int(time.time()))
    assert answer.status_code == 200
    assert counter.payments.paid


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A verdict that is wrong in one way. `said` replaces members of the body, None leaves one out."""

    status: int = 400
    code: str = "malformed"
    said: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


BAD: dict[str, Bad] = {
    "no decision": Bad(said={"decision": None}),
    "a decision that is no text": Bad(said={"decision": 7}),
    "a decision of other letters": Bad(said={"decision": "A" * 64}),
    "a short decision": Bad(said={"decision": "0" * 63}),
    "a decision and a line end": Bad(said={"decision": "0" * 64 + "\n"}),
    "another decision": Bad(said={"decision": "0" * 64}, status=409, code="approval_foreign"),
    "no verdict": Bad(said={"verdict": None}),
    "a verdict that is none": Bad(said={"verdict": "maybe"}),
    "a verdict in capitals": Bad(said={"verdict": "APPROVE"}),
    "what only the edge asks": Bad(said={"verdict": "view"}),
    "a verdict that is no text": Bad(said={"verdict": True}),
    "a note that is no text": Bad(said={"note": ["x"]}),
    "a note of more than a line": Bad(said={"note": "a\nb"}),
    "a note that is too long": Bad(said={"note": "x" * 257}),
    "a note of too many bytes": Bad(said={"note": "ä" * 129}),
    "another member": Bad(said={"until": 1}),
    "a member twice": Bad(body=b'{"decision":"%064d","verdict":"deny","verdict":"approve"}' % 0),
    "no object": Bad(body=b"[]"),
    "a text": Bad(body=b'"approve"'),
    "no JSON": Bad(body=b"{"),
    "no body": Bad(body=b""),
    "an object within": Bad(said={"note": {"a": 1}}),
    "too large": Bad(said={"note": "x" * 2_000}, status=413, code="too_large"),
    "no type": Bad(fields={"Content-Type": ""}, status=415, code="unsupported_media_type"),
    "a form": Bad(
        fields={"Content-Type": "application/x-www-form-urlencoded"}, status=415, code="unsupported_media_type"
    ),
    "msgpack": Bad(
        body=b"\x80", fields={"Content-Type": "application/msgpack"}, status=415, code="unsupported_media_type"
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_verdict_that_is_not_taken(counter: Counter, name: str) -> None:
    bad = BAD[name]
    url = await counter.asked()
    said = {"decision": (await counter.get(url)).json()["decision"], "verdict": "approve", **bad.said}
    body = {member: value for member, value in said.items() if value is not None}
    answer = await counter.say(url, body if bad.body is None else bad.body, headers=bad.fields)
    assert told(answer) == (bad.status, bad.code)
    await counter.door.bus.idle()
    # About another decision only the agent can say.
    assert counter.sealed() == (bad.code == "approval_foreign")
    assert not counter.payments.paid


async def test_a_note_of_256_bytes_is_taken(counter: Counter) -> None:
    url = await counter.asked()
    said = {"decision": (await counter.get(url)).json()["decision"], "verdict": "approve", "note": "ä" * 128}
    assert (await counter.say(url, said)).status_code == 200


@pytest.mark.parametrize("task", ["0" * 64, "x", "0" * 63, "A" * 64, "0" * 65, "*", ">", "%2e%2e"])
async def test_what_is_no_task_is_not_found(counter: Counter, task: str) -> None:
    path = f"{APPROVALS_PATH}/{task}"
    assert told(await counter.get(path)) == (404, "not_found")
    assert told(await counter.say(path, {"decision": "0" * 64, "verdict": "approve"})) == (404, "not_found")
    assert counter.sealed() == 0


@pytest.mark.parametrize(
    "query",
    ["", "?queue=", "?queue=a.b", "?queue=*", "?queue=%3E", "?queue=a%20b", "?queue=m&after=-1", "?queue=m&after=x",
     "?queue=m&after=1e3", "?queue=m&after=" + "9" * 16, "?queue=m&after="],
)  # fmt: skip
async def test_a_list_has_a_queue_and_begins_where_a_page_ended(counter: Counter, query: str) -> None:
    assert told(await counter.get(APPROVALS_PATH + query)) == (400, "malformed")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", QUEUE, "GET"), ("DELETE", f"{APPROVALS_PATH}/{'0' * 64}", "GET, POST")],
)
async def test_other_methods_are_none(counter: Counter, method: str, path: str, allow: str) -> None:
    answer = await counter.door.http.request(method, path, headers=counter.door.authorized())
    assert (*told(answer), answer.headers["allow"]) == (405, "method_not_allowed", allow)


async def test_an_agent_that_does_not_answer_is_no_failure(payments: Payments) -> None:
    limits = {**LIMITS, "submit_seconds": 0.2}
    async with door(payments.agent, engine=payments.engine, actions=("payments.*",), limits=limits) as running:
        counter = Counter(door=running, payments=payments)
        url = await counter.asked()
        shown = (await counter.get(url)).json()
        running.bus.broker.fail("TASKS", BusUnavailable("away"))
        answer = await counter.say(url, {"decision": shown["decision"], "verdict": "approve"})
        assert told(answer) == (503, "bus_unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_a_list_costs_what_is_read_for_it(payments: Payments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "PAGE_LIMITS", PageLimits(together=1, tasks_of_a_request=0.5))
    limits = {**LIMITS, "user_rate": 0.001, "user_burst": 10}
    async with door(payments.agent, engine=payments.engine, actions=("payments.*",), limits=limits) as running:
        counter = Counter(door=running, payments=payments)
        wait = [await payments.submitted(running.bus, invoice=str(one)) for one in range(8)]
        first = (await counter.get(QUEUE)).json()
        # 9 are left after the request. Reading takes 2, and each task 2 more: the fourth was read, and not paid for.
        assert [one["id"] for one in first["approvals"]] == [one.digest.hex() for one in wait[:4]]
        second = (await counter.get(f"{QUEUE}&after={first['after']}")).json()
        assert [one["id"] for one in second["approvals"]] == [wait[4].digest.hex()]
        answer = await counter.get(f"{QUEUE}&after={second['after']}")
        assert told(answer) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 1
        # Somebody else is somebody else.
        assert len((await counter.get(QUEUE, sub="other")).json()["approvals"]) == 4


async def test_what_was_planted_is_not_listed(counter: Counter) -> None:
    url = await counter.asked()
    [stored] = [one for one in counter.door.bus.stored(HELD) if ".task." in one.subject]
    forged = stored.subject.rpartition(".")[0] + "." + "0" * 64
    counter.door.bus.broker.inject(forged, stored.payload)
    assert len((await counter.get(QUEUE)).json()["approvals"]) == 1
    assert told(await counter.get(f"{APPROVALS_PATH}/{'0' * 64}")) == (404, "not_found")
    assert (await counter.get(url)).status_code == 200


async def test_where_nothing_is_held_nothing_waits(counter: Counter) -> None:
    url = await counter.asked()
    del counter.door.bus.broker.streams[HELD]
    assert told(await counter.get(url)) == (404, "not_found")
    assert told(await counter.say(url, {"decision": "0" * 64, "verdict": "approve"})) == (404, "not_found")


async def test_who_looks_for_what_is_not_there_pays_for_both_looks(payments: Payments) -> None:
    limits = {**LIMITS, "user_rate": 0.001, "user_burst": 4}
    async with door(payments.agent, engine=payments.engine, actions=("payments.*",), limits=limits) as running:
        counter = Counter(door=running, payments=payments)
        answers = [told(await counter.get(f"{APPROVALS_PATH}/{'0' * 64}")) for _ in range(3)]
    assert answers == [(404, "not_found"), (404, "not_found"), (429, "rate_limited")]
