from __future__ import annotations

import asyncio

from sealbus.agents.dev.nats.log import ServerLog

STAMP = "[11300] 2026/11/24 16:42:56.967096"


async def test_the_port_and_readiness_are_heard() -> None:
    said = ServerLog()
    said.heard(f"{STAMP} [INF] Listening for client connections on 127.0.0.1:32939")
    assert (said.port, said.ready.done()) == (32939, False)
    said.heard(f"{STAMP} [INF] Server is ready")
    said.heard(f"{STAMP} [INF] Server is ready")
    await asyncio.wait_for(said.ready, 1)


async def test_the_outcome_of_a_reload_is_heard_once_it_was_asked_for() -> None:
    said = ServerLog()
    said.heard(f"{STAMP} [INF] Reloaded server configuration")
    outcome = said.reload()
    assert not outcome.done()
    said.heard(f"{STAMP} [INF] Reloaded server configuration (sha256:{'0a' * 32})")
    said.heard(f"{STAMP} [ERR] Failed to reload server configuration: too late")
    assert outcome.result() == ""
    refused = said.reload()
    said.heard(f"{STAMP} [ERR] Failed to reload server configuration: open /x: no such file")
    assert refused.result() == "open /x: no such file"


async def test_what_is_not_the_servers_own_line_is_not_heard() -> None:
    said = ServerLog()
    outcome = said.reload()
    said.heard("Server is ready")
    said.heard(f'{STAMP} [ERR] 127.0.0.1:1 - cid:1 - "[1] a b [INF] Reloaded server configuration" - Publish Violation')
    said.heard(f"{STAMP} [INF] Reloaded server configuration again")
    said.heard(f"{STAMP} [INF] Not listening for client connections on 127.0.0.1:32939")
    assert not said.ready.done()
    assert not outcome.done()
    assert said.port == 0


async def test_a_taken_port_is_recognized() -> None:
    said = ServerLog()
    assert not said.port_in_use
    said.heard(f'{STAMP} [FTL] Error listening on port: x, "listen tcp x: bind: address already in use"')
    assert said.port_in_use


async def test_the_last_words_are_the_last_complaint() -> None:
    said = ServerLog()
    assert said.last_words == "it logged nothing"
    said.heard("panic: oh")
    assert said.last_words == "panic: oh"
    said.heard("nats-server: nats.conf:3:1: unknown field")
    said.heard(f"{STAMP} [INF] Server Exiting..")
    assert said.last_words == "nats.conf:3:1: unknown field"
    said.heard(f"{STAMP} [FTL] Error listening on port")
    said.heard(f"{STAMP} [INF] Server Exiting..")
    assert said.last_words == "Error listening on port"
    for _ in range(60):
        said.heard("more")
    assert said.last_words == "more"
