"""What the policy obliges to is honoured or nothing is handled, whichever engine said it: embedded, sidecar, central."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.central_opa import CentralOpa, tls_of
from support.native_wheel import require_wheel
from support.opa import OpaServer
from support.policies import bundle
from support.x509 import ThrowawayCa

from sealbus import Agent, Context, Denied
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.denial import NOTHING_TOLD, Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import Code, ObligationUnknown
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.testing import TestBus

pytestmark = [pytest.mark.opa]

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": false, "reasons": ["r"], "obligations": found, "policy": "obliging"} if {
	request.action.properties.refused in ["shown", "hidden"]
	found := remedies(request)
} else := {"allow": true, "reasons": ["r"], "obligations": found, "policy": "obliging"} if {
	found := obligations(request)
}

remedies(request) := found if {
	request.action.properties.refused == "shown"
	found := array.concat([{"type": "show_reasons"}], unshown)
} else := found if {
	found := unshown
}

unshown := [
	{"type": "remedy", "kind": "login", "acr": "urn:x:2", "max_age": 300},
	{"type": "remedy", "kind": "login", "acr": "a\\", error=\\"none"},
	{"type": "remedy", "kind": "bribe"},
	{"type": "watermark"},
	{"type": "remedy", "kind": "later", "after": 90},
]

obligations(request) := [] if endswith(request.action.name, ".reply")

else := [{"type": "watermark", "text": "draft"}] if request.action.properties.obliges == "watermark"

else := [{"type": "show_reasons"}, {"kind": "no type"}] if request.action.properties.obliges == "malformed"

else := [{"type": "show_reasons"}]
"""


class Page(BaseModel):
    obliges: str = ""
    refused: str = ""


@asynccontextmanager
async def engine_of(name: str, folder: Path) -> AsyncIterator[PolicyEngine]:
    (folder / "bundle").mkdir()
    file = folder / "bundle" / "bundle.tar.gz"
    write_bundle(bundle(policy=POLICY), file)
    if name == "embedded":
        async with EmbeddedEngine(file) as embedded:
            yield embedded
    elif name == "native":
        require_wheel()
        async with NativeEngine(file) as native:
            yield native
    elif name == "sidecar":
        with OpaServer("--bundle", str(file)) as server:
            async with SidecarEngine(server.socket, deadline=60.0) as sidecar:
                yield sidecar
    else:
        ca = ThrowawayCa("example.org")
        with CentralOpa(ca, file) as elsewhere:
            async with CentralEngine([elsewhere.url], tls=tls_of(ca), deadline=60.0) as central:
                yield central


@pytest.mark.parametrize("name", ["embedded", "native", "sidecar", "central"])
async def test_an_allow_that_obliges_to_what_nobody_honours_denies(name: str, tmp_path: Path) -> None:
    handled: list[str] = []
    printer = Agent("printer")

    @printer.call("plain", facts=["obliges"])
    async def plain(body: Page, ctx: Context) -> Page:
        handled.append("plain")
        return body

    @printer.call("marked", facts=["obliges"], honours=("watermark",))
    async def marked(body: Page, ctx: Context) -> Page:
        handled.append(f"marked {ctx.obligations}")
        return body

    async with engine_of(name, tmp_path) as engine, TestBus(printer, engine=engine) as bus:
        client = await bus.client("desk")
        assert await client.call("printer.plain", Page(), returns=Page) == Page()
        marked_page = await client.call("printer.marked", Page(obliges="watermark"), returns=Page)
        assert marked_page == Page(obliges="watermark")
        assert handled == ["plain", "marked (mappingproxy({'text': 'draft', 'type': 'watermark'}),)"]
        for verb, obliges, reasons in (("plain", "watermark", ()), ("marked", "malformed", ("r",))):
            with pytest.raises(ObligationUnknown) as refused:
                await client.call(f"printer.{verb}", Page(obliges=obliges), returns=Page)
            assert isinstance(refused.value, Denied)
            assert not isinstance(refused.value, RemoteError)
            assert (refused.value.code, refused.value.reasons) == (Code.OBLIGATION_UNKNOWN, reasons)
            await bus.assert_denied(f"printer.{verb}", "obligation_unknown")
        assert len(handled) == 2
        (*_, record) = await bus.decisions("printer.plain")
        assert (record.engine, record.revision, record.policy) == (name, "r1", "obliging")
        assert record.obligations == b'[{"text":"draft","type":"watermark"}]'
        assert record.input
        assert record.micros is not None


@pytest.mark.parametrize("name", ["embedded", "sidecar", "central"])
async def test_a_denial_tells_what_would_help_and_who_denied_where_it_may(name: str, tmp_path: Path) -> None:
    printer, desk = Agent("printer"), Agent("front")

    @printer.call("plain", facts=["refused"])
    async def plain(body: Page, ctx: Context) -> Page:
        return body

    @desk.call("ask", facts=["obliges"])
    async def ask(body: Page, ctx: Context) -> Page:
        return await ctx.call("printer.plain", body, returns=Page)

    told = (Remedy(kind=RemedyKind.LOGIN, acr="urn:x:2", max_age=300), Remedy(kind=RemedyKind.LATER, after=90))
    last = Denier("spiffe://example.org/agent/printer", "printer.plain", "denied")
    first = Denier("spiffe://example.org/agent/front", "front.ask", "denied")
    async with engine_of(name, tmp_path) as engine, TestBus(printer, desk, engine=engine) as bus:
        client = await bus.client("desk")
        for refused, explanation in (
            ("shown", Explanation(("r",), told, (last,))),
            ("hidden", NOTHING_TOLD),
        ):
            with pytest.raises(Denied) as inner:
                await client.call("printer.plain", Page(refused=refused), returns=Page)
            assert inner.value.explanation == explanation
            with pytest.raises(Denied) as outer:
                await client.call("front.ask", Page(refused=refused), returns=Page)
            assert outer.value.code is Code.DENIED
            assert outer.value.explanation == explanation.passed_on(first)
        (*_, record) = await bus.decisions("printer.plain")
        assert (record.engine, record.allow, record.code) == (name, False, Code.DENIED)
        assert len(json.loads(record.obligations)) == 5
