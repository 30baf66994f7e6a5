from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.edge import ENDS_SOON, edge_table
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.settings import SMALLEST, load
from support.shop import Update
from support.x509 import ThrowawayCa

from sealbus import Agent, Context
from sealbus.agents.edge.edge import RunningEdge, connection_limits, issuers_of, minting_limits, open_edge, serve_edge
from sealbus.agents.edge.http.tls import file_context
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.runtime.settings.schema import EdgeTable, IssuerTable
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import FORMAT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus

EDGE = """[edge]
resource = "https://api.example.org"
[[edge.issuers]]
issuer = "https://idp.example.org"
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "edge.resource must be the URL"),
        ('[edge]\nresource = "api"', "edge.resource must be the URL"),
        ('[edge]\nresource = "http://api.example.org"', "edge.resource must be the URL"),
        ('[edge]\nresource = "https://api.example.org"', "edge.issuers is empty"),
        (EDGE.replace("https://idp", "http://idp"), "issuer 'http://idp.example.org': must be an https URL"),
        (EDGE.replace("[edge]", '[edge]\nactions = ["*"]'), "write <agent>.<verb>"),
        (EDGE.replace("[edge]", '[edge]\naddress = "0.0.0.0:0"'), "is not loopback: set edge.certificate and edge.key"),
        (EDGE.replace("[edge]", '[edge]\naddress = "x:y"'), "edge.address 'x:y'"),
        (EDGE.replace("[edge]", '[edge]\ncertificate = "a"'), "edge.certificate and edge.key go together"),
        (EDGE.replace("[edge]", '[edge]\npseudonym_key = "missing"'), "missing cannot be read: No such file"),
        (EDGE.replace("[edge]", '[edge]\ncertificate = "a"\nkey = "b"'), "cannot be used: No such file"),
        (EDGE.replace("[edge]", '[edge]\ncors = ["*"]'), "edge.cors '*': any page"),
        (EDGE.replace("[edge]", '[edge]\ncors = ["http://x"]'), "edge.cors 'http://x': write an origin"),
        (EDGE.replace("[edge]", '[edge]\nschemas = ["none.json"]'), "none.json cannot be read: No such file"),
        (
            EDGE.replace("[edge]", "[edge]\ncontext_start = 3_601"),
            "readers accept 3600 s (context.start): no agent would",
        ),
        (
            EDGE.replace("[edge]", "[edge]\ncontext_life = 28_801"),
            "readers accept 28800 s (context.life): no agent would",
        ),
        (EDGE.replace("[edge]", "[context]\nlife = 60\n[edge]\ncontext_life = 61"), "readers accept 60 s (context."),
        (EDGE.replace("[edge]", "[edge]\ncontext_start = 61\ncontext_life = 60"), "more than its contexts live (60 s)"),
    ],
)
async def test_what_is_wrong_with_the_settings_is_one_line_before_anything_is_opened(
    tmp_path: Path, text: str, complaint: str
) -> None:
    settings = load(tmp_path, SMALLEST + text)
    with pytest.raises(ConfigurationError) as caught:
        async with open_edge(settings):
            raise AssertionError("opened")
    assert complaint in caught.value.detail
    assert "\n" not in caught.value.detail


def test_the_rows_of_the_table_are_issuers_with_the_resource_as_audience() -> None:
    (issuer,) = issuers_of(
        EdgeTable(
            resource="https://api.example.org",
            issuers=(
                IssuerTable(
                    issuer="https://idp.example.org", claims={"department": "dep"}, tenant="acme", scopes=("a",)
                ),
            ),
        )
    )
    assert issuer.audiences == {"https://api.example.org"}
    assert (dict(issuer.claims), issuer.tenant) == ({"department": "dep"}, "acme")
    assert issuer.scopes == frozenset({"a"})


def test_a_row_says_whose_subjects_they_are_and_what_they_are() -> None:
    def one(**row: object) -> Issuer:
        rows = (IssuerTable(issuer="https://idp.example.org", **row),)  # type: ignore[arg-type]  # as settings are read
        [issuer] = issuers_of(EdgeTable(resource="https://api.example.org", issuers=rows))
        return issuer

    ours = one()
    assert (ours.domain, ours.workloads, ours.client_claim, dict(ours.require)) == (None, False, "client_id", {})
    partner = one(domain="partner.example", audiences=(), assertion_audience="https://api.example.org/token")
    assert (str(partner.domain), partner.audiences) == ("partner.example", frozenset())
    assert partner.assertion_audience == "https://api.example.org/token"
    ci = one(domain="ci.example", subjects="workloads", client_claim="sub", require={"repository_owner": "acme"})
    assert (ci.workloads, ci.client_claim, dict(ci.require)) == (True, "sub", {"repository_owner": "acme"})
    for bad in ({"domain": "Partner.example"}, {"domain": "https://partner.example"}, {"subjects": "robots"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            one(**bad)
    with pytest.raises(ConfigurationError, match="domain of"):
        one(subjects="workloads")
    with pytest.raises(ConfigurationError, match="audiences of"):
        one(audiences=())


@pytest.mark.parametrize(
    ("said", "lifetimes", "times"),
    [
        ({}, Lifetimes(), (900, 28_800)),
        ({}, Lifetimes(context_start=60 * SECOND), (60, 28_800)),
        ({}, Lifetimes(context_life=60 * SECOND), (60, 60)),
        ({"context_start": 3_600, "context_life": 7_200}, Lifetimes(), (3_600, 7_200)),
        ({"context_life": 600}, Lifetimes(), (600, 600)),
        ({"context_life": 86_400}, FORMAT_LIFETIMES, (900, 86_400)),
    ],
)
def test_contexts_live_as_said_and_no_longer_than_readers_take(
    said: dict[str, int], lifetimes: Lifetimes, times: tuple[int, int]
) -> None:
    limits = minting_limits(EdgeTable.model_validate(said), lifetimes)
    assert (limits.context_start_seconds, limits.context_end_seconds) == times


async def test_what_is_served_mints_for_as_long_as_is_said() -> None:
    async with LoopbackIssuer() as issuer, TestBus(engine=ScriptedEngine()) as bus:
        node = (await bus.client("edge")).node
        table = edge_table(issuer, context_start=60, context_life=120)
        async with serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge:
            assert (edge.front.limits.context_start_seconds, edge.front.limits.context_end_seconds) == (60, 120)


async def test_a_stop_finishes_what_is_open_and_takes_nothing_new() -> None:
    asked, go_on, agent = asyncio.Event(), asyncio.Event(), Agent("slow")

    @agent.call("wait")
    async def wait(body: Update, ctx: Context) -> str:
        asked.set()
        await go_on.wait()
        return "done"

    async with LoopbackIssuer() as issuer, TestBus(agent, engine=ScriptedEngine()) as bus, asyncio.TaskGroup() as group:
        node = (await bus.client("edge")).node
        table = edge_table(issuer, actions=("slow.wait",))
        fields = {"Authorization": f"Bearer {issuer.token()}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http:
            # The default's five seconds for open requests: this one needs as long as this test takes to look around.
            async with serve_edge(table, node, issuer_tls=TRUSTS_NOBODY) as edge:
                url = f"http://127.0.0.1:{edge.port}/v1/calls/slow/wait"
                open_call = group.create_task(http.post(url, json={"item_id": "42"}, headers=fields))
                await asked.wait()
                group.create_task(_looked(edge, go_on))
            answer = await open_call
            assert (answer.status_code, answer.json()) == (200, "done")
            with pytest.raises(httpx2.ConnectError):
                await http.post(url, json={"item_id": "42"}, headers=fields)


async def _looked(edge: RunningEdge, go_on: asyncio.Event) -> None:
    """Let the open call end, once the edge has begun to stop."""
    await edge.front.stopping.wait()
    go_on.set()


async def _serving(use: Callable[..., Any], **changes: Any) -> None:
    async with LoopbackIssuer() as issuer, TestBus(engine=ScriptedEngine()) as bus:
        node = (await bus.client("edge")).node
        table = edge_table(issuer, **changes)
        async with serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge:
            await use(edge.port)


async def test_an_address_in_use_is_told_by_its_setting() -> None:
    async def again(port: int) -> None:
        with pytest.raises(BaseException) as caught:  # noqa: PT011  looked into below
            await _serving(again, address=f"127.0.0.1:{port}")
        error = caught.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, ConfigurationError)
        assert f"edge.address 127.0.0.1:{port} cannot be used" in error.detail

    await _serving(again)


async def test_the_public_listener_speaks_tls_and_takes_a_replaced_certificate(tmp_path: Path) -> None:
    ca = ThrowawayCa("example.org")
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"

    def write() -> bytes:
        issued = ca.issue("spiffe://example.org/any", addresses=["127.0.0.1"])
        certificate.write_bytes(issued.cert_pem)
        key.write_bytes(issued.key_pem)
        key.chmod(0o600)
        return issued.cert_der

    first = write()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(cadata=ca.cert_der)
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    async def use(port: int) -> None:
        url = f"https://127.0.0.1:{port}/.well-known/oauth-protected-resource"
        for expected in (first, None):
            async with (
                httpx2.AsyncClient(verify=trusting, trust_env=False, timeout=60) as http,
                http.stream("GET", url) as answer,
            ):
                shown = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(binary_form=True)
                assert answer.status_code == 200
            assert shown == (expected or second[0])
            second.append(write())
        with pytest.raises(httpx2.TransportError):
            async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http:
                await http.get(url.replace("https", "http"))

    second: list[bytes] = []
    await _serving(use, certificate=certificate, key=key)


def test_files_that_do_not_fit_leave_the_last_good_ones_in_use(tmp_path: Path) -> None:
    ca = ThrowawayCa("example.org")
    issued = ca.issue("spiffe://example.org/any")
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"
    certificate.write_bytes(issued.cert_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    context = file_context(certificate, key)
    good = context._current()
    key.write_bytes(b"junk")
    assert context._current() is good
    key.unlink()
    assert context._current() is good
    with pytest.raises(ConfigurationError, match=r"edge.key .* cannot be used"):
        file_context(certificate, key)


@pytest.mark.parametrize(
    ("said", "bounds"),
    [
        ({}, (1_024, 512, 128)),
        ({"plaintext": True}, (1_024, 1_024, 1_024)),
        ({"plaintext": True, "connections_of_address": 64}, (1_024, 1_024, 64)),
        ({"proxies": 1}, (1_024, 1_024, 1_024)),
        ({"connections": 4}, (4, 2, 1)),
        ({"connections": 100, "connections_of_address": 80}, (100, 80, 80)),
        ({"connections": 100, "connections_of_address": 200}, (100, 100, 100)),
    ],
)
def test_connections_are_bounded_as_said(said: dict[str, Any], bounds: tuple[int, int, int]) -> None:
    """What is in front of an edge is one address, and everybody."""
    limits = connection_limits(EdgeTable(**said))
    assert (limits.connections, limits.connections_of_network, limits.connections_of_address) == bounds
