"""What the policy obliges to is honoured or nothing is handled, whichever engine said it: embedded, sidecar, central."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.central_opa import CentralOpa, tls_of
from support.opa import OpaServer
from support.policies import bundle
from support.x509 import ThrowawayCa

from sealbus import Agent, Context, Denied
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Code, ObligationUnknown
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.testing import TestBus

pytestmark = [pytest.mark.opa, pytest.mark.timeout(120)]

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": ["r"], "obligations": obligations(request), "policy": "obliging"}

obligations(request) := [] if endswith(request.action.name, ".reply")

else := [{"type": "watermark", "text": "draft"}] if request.action.properties.obliges == "watermark"

else := [{"type": "show_reasons"}, {"kind": "no type"}] if request.action.properties.obliges == "malformed"

else := [{"type": "show_reasons"}]
"""


class Page(BaseModel):
    obliges: str = ""


@asynccontextmanager
async def engine_of(name: str, folder: Path) -> AsyncIterator[PolicyEngine]:
    (folder / "bundle").mkdir()
    file = folder / "bundle" / "bundle.tar.gz"
    write_bundle(bundle(policy=POLICY), file)
    if name == "embedded":
        async with EmbeddedEngine(file) as embedded:
            yield embedded
    elif name == "sidecar":
        with OpaServer("--bundle", str(file)) as server:
            async with SidecarEngine(server.socket, deadline=10.0) as sidecar:
                yield sidecar
    else:
        ca = ThrowawayCa("example.org")
        with CentralOpa(ca, file) as elsewhere:
            async with CentralEngine([elsewhere.url], tls=tls_of(ca), deadline=10.0) as central:
                yield central


@pytest.mark.parametrize("name", ["embedded", "sidecar", "central"])
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
