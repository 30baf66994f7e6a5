"""The application of a listener: what it counts and logs of each request."""

from __future__ import annotations

import logging

import pytest
from support.edge import door
from support.shop import Shop

from sealbus.bus.telemetry import FIELDS

LOGGER = "sealbus.agents.edge.http.application"


async def test_requests_are_counted_by_pattern_and_logged_with_what_they_came_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER)
    async with door(Shop().pricing) as edge:
        body = {"item_id": "42", "quantity": 1}
        answer = await edge.post("/v1/calls/pricing/quote", body)
        assert answer.status_code == 200
        for path in ("/v1/calls/pricing/none", "/v1/calls/other/none", "/v1/nowhere/42", "/%1b%5b2J"):
            assert (await edge.post(path, body)).status_code == 404
        counters = edge.edge.node.counters
        call, name = "/v1/calls/{agent}/{verb}", "sealbus_edge_requests_total"
        assert counters.value(name, route=call, status="200") == 1
        assert counters.value(name, route=call, status="404") == 2
        assert counters.value(name, route="none", status="404") == 2
        assert counters.value(name) == 5
        assert f'sealbus_edge_request_seconds_count{{route="{call}"}} 3.0' in counters.render()
    said = [vars(record)[FIELDS] for record in caplog.records if record.name == LOGGER]
    assert [(one["path"], one["status"], one.get("code")) for one in said] == [
        ("/v1/calls/pricing/quote", 200, None),
        ("/v1/calls/pricing/none", 404, "not_found"),
        ("/v1/calls/other/none", 404, "not_found"),
        ("(no such path)", 404, None),
        ("(no such path)", 404, None),
    ]
    assert said[0]["request_id"] == answer.headers["x-request-id"]
    assert {one["event"] for one in said} == {"request"}
