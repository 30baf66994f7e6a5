"""A central OPA's own API, tried by workloads of the trust domain and by others: questions only, from those it knows."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Iterator

import aiohttp
import pytest
from support.central_opa import OPA_ID, WORKER, CentralOpa, tls_of
from support.identity import StaticIdentity
from support.policies import bundle
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.runtime.policy.opa_tls import OpaTls
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.opa.wire import APPROVAL_PATH, BATCH_PATH

pytestmark = pytest.mark.opa

CA = ThrowawayCa("example.org")
CONTROL = "spiffe://example.org/control"
STRANGER = "spiffe://example.org/agent/stranger"
QUESTION = b'{"input":{"batch":[]}}'
STRICT = "?provenance=true&strict-builtin-errors=true"


@pytest.fixture(scope="module")
def opa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CentralOpa]:
    file = tmp_path_factory.mktemp("bundle") / "bundle.tar.gz"
    write_bundle(bundle(), file)
    with CentralOpa(CA, file) as server:
        yield server


def by(svid: IssuedSvid) -> OpaTls:
    identity = StaticIdentity(CA, WORKER)
    identity.show(svid)
    return OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)}))


async def said(
    opa: CentralOpa, method: str, path: str, *, who: OpaTls | None = None, body: bytes = QUESTION
) -> tuple[int, bytes]:
    """Return status and body; 0 where the connection is refused."""
    context = (who or tls_of(CA)).current().context
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.request(method, f"{opa.url}{path}", data=body, headers={"Content-Type": "application/json"}) as got,
        ):
            return got.status, await got.read()
    except aiohttp.ClientError:
        return 0, b""


async def test_what_a_known_workload_may_ask(opa: CentralOpa) -> None:
    assert (await said(opa, "POST", BATCH_PATH))[0] == 200
    assert (await said(opa, "POST", f"{BATCH_PATH}{STRICT}"))[0] == 200
    assert (await said(opa, "POST", "/v1/data/sealbus/authz/decision"))[0] == 200
    assert (await said(opa, "POST", f"{APPROVAL_PATH}{STRICT}"))[0] == 200
    connect = "/v1/data/sealbus/connect/decision"
    assert (await said(opa, "POST", connect, who=tls_of(CA, CONTROL)))[0] == 200


FORBIDDEN = [
    ("PUT", "/v1/data/answers"), ("PATCH", "/v1/data/answers"), ("DELETE", "/v1/data/answers"),
    ("PUT", "/v1/data/system/callers"), ("PUT", "/v1/data"), ("PUT", "/v1/policies/mine"),
    ("DELETE", "/v1/policies/authz.rego"), ("GET", "/v1/policies"), ("GET", "/v1/data"), ("POST", "/v1/data"),
    ("GET", BATCH_PATH), ("PUT", BATCH_PATH), ("POST", f"{BATCH_PATH}/0"), ("POST", "/v1/data/sealbus/authz"),
    ("POST", "/v1/data/sealbus/authz/decide"), ("POST", "/v1/data/sealbus/connect/decision"),
    ("POST", "/v1/data/sealbus/connect/batch"), ("POST", "/v1/data/sealbus/approval/decide"),
    ("POST", "/v1/data/sealbus/approval"), ("GET", APPROVAL_PATH), ("PUT", APPROVAL_PATH),
    ("POST", "/v1/data/sealbus/registry/agents"),
    ("POST", "/v1/data/system/callers"), ("POST", "/v1/data/answers"), ("POST", "/v0/data/sealbus/authz/batch"),
    ("POST", "/v1/query"), ("GET", "/v1/query?q=data"), ("POST", "/"), ("POST", "/v1/compile"),
    ("POST", "/v1/compile/sealbus/authz/batch"), ("GET", "/v1/config"), ("GET", "/v1/status"), ("GET", "/metrics"),
    ("GET", "/health"), ("GET", "/debug/pprof/"), ("GET", "/debug/pprof"), ("POST", f"{BATCH_PATH}?explain=full"),
    ("POST", f"{BATCH_PATH}?metrics=true"), ("POST", f"{BATCH_PATH}?provenance=true&instrument=true"),
    ("POST", "/v1/data/sealbus%2Fauthz/batch"), ("POST", "//v1/data/sealbus/authz/batch"),
    ("POST", "/v1/data/sealbus/authz/batch/"), ("POST", "/v1/data/sealbus/../sealbus/authz/decide"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), FORBIDDEN, ids=str)
async def test_what_nobody_may(opa: CentralOpa, method: str, path: str) -> None:
    status, body = await said(opa, method, path)
    assert status == 401, (status, body)
    assert b"scripted" not in body
    assert (await said(opa, "POST", BATCH_PATH))[0] == 200


@pytest.mark.parametrize(
    "svid",
    [
        CA.issue(STRANGER),
        CA.issue(OPA_ID),
        CA.issue("spiffe://example.org"),
        CA.issue(WORKER, uris=[WORKER, STRANGER]),
        CA.issue(WORKER, uris=[STRANGER, WORKER]),
        CA.issue(WORKER, uris=[WORKER, WORKER]),
        CA.issue(WORKER, uris=[]),
        CA.issue(WORKER, uris=["spiffe://example.org/agent/%70lanner"]),
        CA.issue(WORKER, uris=[f"{WORKER}?x=1"]),
        CA.issue(WORKER, uris=[f"{WORKER}?"]),
        CA.issue(WORKER, uris=[f"{WORKER}#x"]),
        CA.issue(WORKER, uris=["spiffe://u@example.org/agent/planner"]),
        CA.issue(WORKER, uris=["https://example.org/agent/planner"]),
        CA.issue(WORKER, uris=["spiffe://example.org//agent/planner"]),
        CA.issue(WORKER, uris=["spiffe:/agent/planner"]),
        CA.issue(WORKER, authority=True),
        CA.issue(WORKER, organization=WORKER, uris=[STRANGER]),
    ],
)
async def test_who_may_not_ask(opa: CentralOpa, svid: IssuedSvid) -> None:
    for path in (BATCH_PATH, APPROVAL_PATH):
        assert (await said(opa, "POST", path, who=by(svid)))[0] in (0, 401)


@pytest.mark.parametrize(
    "svid",
    [
        ThrowawayCa("example.org").issue(WORKER),
        ThrowawayCa("partner.example").issue(WORKER),
        CA.issue(WORKER, life=-60, age=120),
    ],
    ids=["another authority of that name", "a federated authority", "expired"],
)
async def test_who_may_not_even_connect(opa: CentralOpa, svid: IssuedSvid) -> None:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=CA.cert_der)
    assert await answer_over(opa, context, svid) == b""
    assert (await answer_over(opa, context, CA.issue(WORKER))).startswith(b"HTTP/1.1 200")


async def test_without_a_certificate_nobody_connects(opa: CentralOpa) -> None:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=CA.cert_der)
    assert await answer_over(opa, context, None) == b""


async def test_below_tls_1_3_nobody_connects(opa: CentralOpa) -> None:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=CA.cert_der)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await answer_over(opa, context, CA.issue(WORKER)) == b""


async def test_without_tls_nobody_is_answered(opa: CentralOpa) -> None:
    assert b"200 OK" not in await answer_over(opa, None, None)


async def answer_over(opa: CentralOpa, context: ssl.SSLContext | None, svid: IssuedSvid | None) -> bytes:
    """Return what OPA answers on a connection of its own to a question by somebody who checks nothing."""
    if context is not None:
        context.check_hostname = False
    if context is not None and svid is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(svid.cert_pem + svid.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
    head = f"POST {BATCH_PATH} HTTP/1.1\r\nHost: opa\r\nConnection: close\r\nContent-Length: {len(QUESTION)}\r\n\r\n"
    try:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", opa.port, ssl=context)
            try:
                writer.write(head.encode() + QUESTION)
                return await reader.read()
            finally:
                writer.transport.abort()
    except OSError:
        return b""


def test_the_diagnostic_address_tells_health_and_metrics_only(opa: CentralOpa) -> None:
    assert opa.request("GET", "/health")[0] == 200
    assert opa.request("GET", "/metrics")[0] == 200
    for method, path in FORBIDDEN:
        if path not in ("/health", "/metrics"):
            assert opa.request(method, path, QUESTION)[0] in (301, 401, 404, 405), (method, path)
