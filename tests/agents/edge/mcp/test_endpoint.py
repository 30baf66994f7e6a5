"""`/mcp` over HTTP: who is let in, what is answered to whom is not, and what is too much."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.mcp_desk import McpDesk, Workshop, mcp_desk

from sealbus.agents.edge.mcp.sessions import SESSIONS_OF_USER

METADATA = "https://edge.example/.well-known/oauth-protected-resource/mcp"
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"accept": "application/json, text/event-stream"}
PRICE: dict[str, Any] = {"name": "workshop_price", "arguments": {"item": "saw"}}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[McpDesk]:
    table = {"scopes": {"workshop.price": "shop:read", "workshop.make": "shop:write"}}
    async with mcp_desk(tmp_path, Workshop().agent, table=table, limits={"body_bytes": 5_000}) as running:
        yield running


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_without_a_token_there_is_a_challenge_that_says_where_to_get_one(desk: McpDesk, method: str) -> None:
    answer = await desk.door.http.request(method, "/mcp", json=INITIALIZE)
    assert answer.status_code == 401
    challenges = answer.headers.get_list("www-authenticate")
    assert all(f'resource_metadata="{METADATA}"' in one for one in challenges)
    assert all('scope="shop:read shop:write"' in one for one in challenges)
    assert not any("error" in one for one in challenges)


async def test_the_metadata_are_of_this_resource(desk: McpDesk) -> None:
    answer = await desk.door.http.get("/.well-known/oauth-protected-resource/mcp")
    found = answer.json()
    assert found["resource"] == "https://edge.example/mcp"
    assert found["authorization_servers"] == [desk.door.issuer.issuer]
    assert found["scopes_supported"] == ["shop:read", "shop:write"]
    root = (await desk.door.http.get("/.well-known/oauth-protected-resource/api")).json()
    assert root["resource"] == "https://edge.example/api"


@pytest.mark.parametrize("aud", ["https://edge.example/mcp", "https://edge.example/api"])
async def test_tokens_for_either_resource_are_taken(desk: McpDesk, aud: str) -> None:
    assert "tools" in await desk.result("tools/list", aud=aud)


@pytest.mark.parametrize(
    "claims", [{"aud": "https://edge.example/other"}, {"life": -600}, {"iss": "https://x.example"}]
)
async def test_a_token_that_does_not_verify_is_refused(desk: McpDesk, claims: dict[str, Any]) -> None:
    answer = await desk.post("tools/list", **claims)
    assert answer.status_code == 401
    assert all('error="invalid_token"' in one for one in answer.headers.get_list("www-authenticate"))


async def test_a_scope_that_is_missing_is_a_challenge(desk: McpDesk) -> None:
    refused = await desk.post("tools/call", PRICE)
    assert refused.status_code == 403
    [challenge] = refused.headers.get_list("www-authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="shop:read"' in challenge
    allowed = await desk.result("tools/call", PRICE, scope="shop:read")
    assert allowed["structuredContent"] == {"item": "saw", "cents": 7}


async def test_tools_out_of_scope_are_not_listed(desk: McpDesk) -> None:
    none = await desk.result("tools/list")
    some = await desk.result("tools/list", scope="shop:write other")
    assert {"workshop_price", "workshop_make"} & {one["name"] for one in none["tools"]} == set()
    assert "workshop_make" in {one["name"] for one in some["tools"]}
    assert none["cacheScope"] == "private"
    assert none["ttlMs"] == 0


async def test_scopes_hold_for_older_clients_as_well(desk: McpDesk) -> None:
    session = (await desk.door.post("/mcp", INITIALIZE, headers=ACCEPT)).headers["mcp-session-id"]
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": PRICE}
    answer = await desk.door.post("/mcp", call, headers={**ACCEPT, "mcp-session-id": session})
    assert answer.status_code == 403


async def test_another_user_cannot_use_a_session(desk: McpDesk) -> None:
    session = (await desk.door.post("/mcp", INITIALIZE, headers=ACCEPT)).headers["mcp-session-id"]
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    fields = {**ACCEPT, "mcp-session-id": session}
    own = await desk.door.post("/mcp", listing, headers=fields)
    others = [
        await desk.door.post("/mcp", listing, headers=fields, **claims)
        for claims in ({"sub": "bob"}, {"client_id": "another"})
    ]
    ended = await desk.door.http.delete("/mcp", headers={**fields, **desk.door.authorized(sub="bob")})
    again = await desk.door.post("/mcp", listing, headers=fields)
    assert own.status_code == again.status_code == 200
    assert {one.status_code for one in (*others, ended)} == {404}


async def test_programs_that_end_without_a_farewell_lock_nobody_out(desk: McpDesk) -> None:
    """Of a user's sessions at a client, the one that is idle longest makes room, in the transport, too."""

    async def begun(**claims: str) -> str:
        answer = await desk.door.post("/mcp", INITIALIZE, headers=ACCEPT, **claims)
        assert answer.status_code == 200, answer.text
        return answer.headers["mcp-session-id"]

    async def listed(session: str, **claims: str) -> int:
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        answer = await desk.door.post("/mcp", listing, headers={**ACCEPT, "mcp-session-id": session}, **claims)
        return answer.status_code

    bobs = await begun(sub="bob")
    first, second, *rest = [await begun() for _ in range(SESSIONS_OF_USER)]
    assert await listed(first) == 200
    last = await begun()
    assert await listed(second) == 404
    assert {await listed(one) for one in (first, *rest, last)} == {200}
    assert await listed(bobs, sub="bob") == 200


async def test_where_all_places_are_taken_who_has_most_makes_room(tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, Workshop().agent, table={"sessions": 3}) as desk:
        given = []
        for user in ("alice", "alice", "bob", "carol", "carol"):
            answer = await desk.door.post("/mcp", INITIALIZE, headers=ACCEPT, sub=user)
            assert answer.status_code == 200, answer.text
            given.append(answer.headers["mcp-session-id"])
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
        codes = []
        for user, session in zip(("alice", "alice", "bob", "carol", "carol"), given, strict=True):
            fields = {**ACCEPT, "mcp-session-id": session}
            codes.append((await desk.door.post("/mcp", listing, headers=fields, sub=user)).status_code)
        # Alice had two when carol came; then each has one, and carol's second takes the place of her first.
        assert codes == [404, 200, 200, 404, 200]


async def test_pages_of_other_origins_are_refused(desk: McpDesk) -> None:
    for origin in ("https://evil.example", "null", "https://edge.example.evil.example"):
        assert (await desk.door.post("/mcp", INITIALIZE, headers={**ACCEPT, "origin": origin})).status_code == 403
    own = await desk.door.post("/mcp", INITIALIZE, headers={**ACCEPT, "origin": "https://edge.example"})
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * 6_000, 413),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 4_000, 400),
        (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"null", 400),
    ],
)
async def test_what_is_no_message_is_refused(desk: McpDesk, body: bytes, status: int) -> None:
    assert (await desk.door.post("/mcp", body, headers=ACCEPT)).status_code == status


async def test_other_types_and_methods_are_refused(desk: McpDesk) -> None:
    text = await desk.door.post("/mcp", INITIALIZE, headers={**ACCEPT, "content-type": "text/plain"})
    assert text.status_code == 415
    for method in ("GET", "PUT", "PATCH"):
        answer = await desk.door.http.request(method, "/mcp", headers={**ACCEPT, **desk.door.authorized()})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "DELETE, POST"


async def test_no_answer_is_kept_or_guessed(desk: McpDesk) -> None:
    answer = await desk.post("tools/list")
    assert answer.headers["x-content-type-options"] == "nosniff"
    streamed = await desk.door.post("/mcp", INITIALIZE, headers=ACCEPT)
    assert answer.headers["cache-control"] == "no-store"
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["cache-control"].startswith("no-")


async def test_rates_are_those_of_the_edge(tmp_path: Path) -> None:
    async with mcp_desk(
        tmp_path, Workshop().agent, limits={"user_rate": 0.001, "user_burst": 3.5, "charged_bytes": 1 << 20}
    ) as desk:
        answers = [await desk.post("tools/list") for _ in range(4)]
        other = await desk.post("tools/list", sub="bob")
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert other.status_code == 200


async def test_no_token_and_no_argument_is_in_log_message_or_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The package `mcp` logs what it could not parse; only the place is let through."""
    caplog.set_level("DEBUG")
    workshop = Workshop()
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        token = desk.door.issuer.token()
        headers = {**ACCEPT, "authorization": f"Bearer {token}"}
        bodies: list[object] = [
            {"jsonrpc": "2.0", "id": 1, "method": "marker-method", "params": {"a": "marker-param"}},
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "marker-version"}},
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "marker-tool"}},
            INITIALIZE,
        ]
        for body in bodies:
            await desk.door.post("/mcp", body, headers=headers)
        for arguments in ({"item": "marker-item"}, {"item": ["marker-list"]}):
            await desk.post("tools/call", {"name": "workshop_price", "arguments": arguments})
            await desk.post("tools/call", {"name": "workshop_broken", "arguments": arguments})
        stored = b"".join(
            one.payload + one.header_block for name in desk.door.published() for one in desk.door.bus.stored(name)
        )
    # The test's own HTTP client and its handler's exception, which development shows, say what they were given.
    ours = [one for one in caplog.records if not one.name.startswith(("http", "sealbus.bus.work"))]
    told = "\n".join(one.getMessage() + json.dumps(one.exc_text) for one in ours)
    assert "marker" not in told
    assert not any(part in told or part.encode() in stored for part in token.split("."))
