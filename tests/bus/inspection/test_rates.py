"""What happens now: counted by agent and action, for ten seconds, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Price, Shop, Update

from sealbus import Denied
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.inspection import rates as module
from sealbus.bus.inspection.rates import SPAN, Rates
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.work import READ_AGAIN, DenialsRecord
from sealbus.testing import TestBus

NOW = 1_000 * SECOND
PRICING = "/agent/pricing"


async def entries() -> list[AuditEntry]:
    """Return the records of two calls that were allowed and one that was denied, and of their answers."""
    engine = ScriptedEngine()
    async with TestBus(Shop().pricing, engine=engine) as bus:
        client = await bus.client("shop-web")
        for _ in range(2):
            await client.call("pricing.quote", Update(item_id="1", quantity=2), returns=Price)
        engine.verdict = lambda asked: deny("no") if asked["action"]["name"] == "pricing.quote" else allow()
        with pytest.raises(Denied):
            await client.call("pricing.quote", Update(item_id="1"), returns=Price)
        await bus.idle()
        return await bus.audit()


async def test_decisions_and_outcomes_are_counted_by_agent_and_action() -> None:
    counted = Rates()
    for one in await entries():
        counted.add(replace(one, stored=NOW))
    rows = {(one.agent, one.action): one for one in counted.rows(NOW)}
    quote = rows[PRICING, "pricing.quote"]
    assert (quote.allowed, quote.denied, quote.failed) == (0.2, 0.1, 0.0)
    assert quote.p50 is not None
    assert quote.p99 is not None
    assert 0 < quote.p50 <= quote.p99
    assert counted.rows(NOW)[0] == quote
    assert rows["/agent/shop-web", "pricing.quote.reply"].p50 is None


async def test_what_is_older_is_forgotten() -> None:
    counted = Rates()
    for one in await entries():
        counted.add(replace(one, stored=NOW))
    assert counted.rows(NOW + SPAN - 1)
    assert counted.rows(NOW + SPAN) == []
    # Forgotten, and not only left out: they do not come back for an earlier time.
    assert counted.rows(NOW) == []


async def test_denials_that_are_only_counted_count_and_others_do_not() -> None:
    counted, [first, *_] = Rates(), await entries()
    record = DenialsRecord(iss=first.recorder, minute=NOW - NOW % (60 * SECOND), counts={"denied": 7})
    counted.add(replace(first, stored=NOW, record=record))
    [row] = counted.rows(NOW)
    assert (row.action, row.denied, row.allowed) == ("(only counted)", 0.7, 0)
    again = DenialsRecord(iss=first.recorder, minute=NOW - NOW % (60 * SECOND), counts={READ_AGAIN: 3})
    counted.add(replace(first, stored=NOW, record=again))
    [row] = counted.rows(NOW)
    assert (row.action, row.denied, row.allowed) == ("(only counted)", 0.7, 0.3)


async def test_no_more_are_kept_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    counted, newest, all_of_them = Rates(), Rates(), await entries()
    for one in all_of_them * 4:
        counted.add(replace(one, stored=NOW))
    for one in all_of_them[-3:]:
        newest.add(replace(one, stored=NOW))
    assert counted.rows(NOW) == newest.rows(NOW)
