"""The OpenAPI document: what the edge exposes of what its agents describe, and whether the edge does what it says."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, ConfigDict, Field
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.issuer import AUDIENCE

from sealbus import Agent, Context
from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import STATUS
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.oauth.client_authentication import ClientSecret
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.v1.openapi import openapi_document, read_schemas
from sealbus.agents.edge.v1.schedule_routes import SCHEDULES_PATH
from sealbus.agents.edge.v1.task_routes import SUBMITTED
from sealbus.agents.sdk.schema import SCHEMA_BYTES, AgentSchema
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.sending.status import State
from sealbus.bus.work.schedules.request import Overlap
from sealbus.bus.work.schedules.standing import STANDING_SHORTEST
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))
PATH = "/v1/openapi.json"
CALL = "/v1/calls/shop/quote"
TASK = "/v1/tasks/shop/order"
ANSWERS_IN_CHUNKS = "call.shop.count"
FAST = {f"{who}_{what}": 1e6 for who in ("user", "client", "address") for what in ("rate", "burst")}
"""Nobody asks too often here."""

SCHEMATHESIS = f"""
[checks]
# It calls an answer to a request without a token good that is 401; `test_without_a_token_it_is_401` is our own.
ignored_auth.enabled = false
# Nor does DELETE delete a task: it is canceled, and stays to be looked at.
use_after_free.enabled = false
[[operations]]
# What does not fit is told by the task's state: its agent may be down.
include-operation-id-regex = "^task[.]"
checks.negative_data_rejection.enabled = false
[[operations]]
# The answer to a good request for the result of a task that was rejected.
include-operation-id = "getTaskResult"
checks.positive_data_acceptance.enabled = false
[[operations]]
# Without `Accept: text/event-stream`, which no schema can ask for, it is 406.
include-operation-id = "{ANSWERS_IN_CHUNKS}"
checks.positive_data_acceptance.enabled = false
"""


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Line(Strict):
    item: str = Field(max_length=20)
    count: float = Field(ge=0, le=1_000)
    """A number: a strict integer of pydantic refuses 5.0, which is one in JSON Schema."""


class Order(Strict):
    lines: list[Line] = Field(max_length=3)
    note: str | None = None


class Total(BaseModel):
    cents: int
    lines: list[Line]


class Secret(BaseModel):
    hidden: Total


shop = Agent("shop")


@shop.call("quote")
async def quote(body: Order, ctx: Context) -> Total:
    """Quote an order."""
    return Total(cents=sum(int(one.count) for one in body.lines), lines=body.lines)


@shop.call("count")
async def count(body: Line, ctx: Context) -> AsyncIterator[int]:
    """Count up."""
    for number in range(min(int(body.count), 3)):
        yield number


@shop.task("order")
async def order(body: Order, ctx: Context) -> Total:
    """Order."""
    return Total(cents=1, lines=body.lines)


@shop.call("secret")
async def secret(body: Secret, ctx: Context) -> Secret:
    """For nobody outside."""
    return body


@shop.task("parts")
async def parts(body: Line, ctx: Context) -> AsyncIterator[bytes]:
    """Give bytes in parts."""
    yield b""


@shop.call("upload")
async def upload(body: bytes, ctx: Context) -> None:
    """Take bytes, which no request over HTTP brings."""


ACTIONS = ("shop.quote", "shop.count", "shop.order")


def written(folder: Path, agent: Agent = shop) -> Path:
    file = folder / f"{agent.name}.json"
    file.write_text(AgentSchema.of(agent).text(), encoding="utf-8")
    return file


def document(*actions: str, issuers: tuple[Issuer, ...] = (), schema: AgentSchema | None = None) -> dict[str, Any]:
    exposed = Exposed(actions, NAMES)
    return openapi_document([schema or AgentSchema.of(shop)], exposed, resource=AUDIENCE, issuers=issuers)


def agents_part(found: dict[str, Any]) -> tuple[set[str], set[str]]:
    paths = {path for path in found["paths"] if "{" not in path and path != "/v1/approvals"}
    return paths, {name for name in found["components"]["schemas"] if "." in name}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Door]:
    async with door(
        shop,
        engine=ScriptedEngine(),
        actions=ACTIONS,
        schemas=(written(tmp_path),),
        limits=FAST,
        connections=ConnectionLimits(),
    ) as running:
        yield running


def test_what_is_not_exposed_is_not_shown_nor_are_its_models() -> None:
    assert agents_part(document("shop.quote")) == ({CALL}, {"shop.Order", "shop.Line", "shop.Total"})
    assert agents_part(document("shop.count")) == ({"/v1/calls/shop/count"}, {"shop.Line"})
    assert agents_part(document("other.*")) == (set(), set())
    paths, models = agents_part(document("shop.*"))
    # Not `upload`, which takes bytes.
    assert paths == {CALL, TASK, "/v1/calls/shop/count", "/v1/calls/shop/secret", "/v1/tasks/shop/parts"}
    assert "shop.Secret" in models
    assert "Take bytes" not in json.dumps(document("shop.*"))


def test_an_action_that_is_anothers_subject_is_not_shown() -> None:
    """`shop.order` is then the subject of another action, and no request for it reaches that."""
    taken = OwnSubject(subject="shop.order", kind=Kind.TASK, owner=NAMES.id_of("shop"), action="legacy.order")
    exposed = Exposed(["shop.order", "shop.quote"], NAMES, own_subjects(taken))
    found = openapi_document([AgentSchema.of(shop)], exposed, resource=AUDIENCE, issuers=())
    assert agents_part(found)[0] == {CALL}


def test_what_users_have_done_later_is_shown_where_they_may() -> None:
    exposed = Exposed(("shop.*",), NAMES)
    found: dict[str, Any] = openapi_document([], exposed, resource=AUDIENCE, issuers=(), schedules=True)
    assert found["paths"]["/v1/schedules"].keys() == {"get", "post"}
    assert found["paths"]["/v1/schedules/{name}"].keys() == {"parameters", "delete"}
    assert {"Grant", "Granted", "Schedule"} <= found["components"]["schemas"].keys()
    assert "/v1/schedules" not in document("shop.*")["paths"]


def test_a_task_says_what_its_result_will_be() -> None:
    paths = document("shop.*")["paths"]
    total = {"$ref": "#/components/schemas/shop.Total"}
    assert paths[TASK]["post"]["x-sealbus-result"] == {"application/json": {"schema": total}}
    in_parts = {"application/octet-stream": {"schema": {"type": "array", "items": {}}}}
    assert paths["/v1/tasks/shop/parts"]["post"]["x-sealbus-result"] == in_parts
    assert paths[CALL]["post"]["responses"]["200"]["content"] == {"application/json": {"schema": total}}
    chunks = paths["/v1/calls/shop/count"]["post"]["responses"]["200"]["content"]
    assert chunks == {"text/event-stream": {"x-sealbus-part": {"application/json": {"schema": {"type": "integer"}}}}}


def test_each_status_has_its_codes_and_each_operation_refers_to_them() -> None:
    found = document("shop.*")
    problems = found["components"]["responses"]
    for code, status in STATUS.items():
        assert f"`{code}`" in problems[f"Problem{status}"]["description"]
    for item in found["paths"].values():
        for method in item.keys() & {"get", "post", "delete"}:
            said = item[method]["responses"]
            assert {"400", "401", "429", "500", "503"} <= said.keys()
            assert all(
                one["$ref"] == f"#/components/responses/Problem{status}"
                for status, one in said.items()
                if status >= "4"
            )


def test_what_is_data_says_what_the_code_does() -> None:
    found: dict[str, Any] = openapi_document([], Exposed((), NAMES), resource=AUDIENCE, issuers=(), schedules=True)
    assert {path for path in found["paths"] if path.startswith(SCHEDULES_PATH)} == {
        SCHEDULES_PATH,
        SCHEDULES_PATH + "/{name}",
    }
    models = found["components"]["schemas"]
    task, denied = models["Task"]["properties"], models["Problem"]["properties"]
    assert task["state"]["enum"] == [SUBMITTED, *(state.value for state in State)]
    for remedy in (task["remedy"], denied["remedy"]):
        assert remedy["items"]["properties"]["kind"]["enum"] == [kind.value for kind in RemedyKind]
    assert models["Verdict"]["properties"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    for model in ("Grant", "Schedule"):
        assert models[model]["properties"]["overlap"]["enum"] == [overlap.value for overlap in Overlap]
    [every] = [
        one["properties"]["every"]
        for one in models["Grant"]["properties"]["when"]["oneOf"]
        if "every" in one["properties"]
    ]
    assert every["minimum"] == STANDING_SHORTEST
    assert "x-problems" not in json.dumps(found)


def test_issuers_whose_metadata_the_edge_reads_are_named() -> None:
    asked = IntrospectionEndpoint("https://c.example/introspect", ClientSecret("edge", "secret"))
    partner = TrustDomain("partner.example")
    issuers = (
        Issuer(issuer="https://b.example/realm/", audiences=frozenset({"x"})),
        Issuer(issuer="https://a.example", audiences=frozenset({"x"})),
        Issuer(issuer="https://c.example", audiences=frozenset({"x"}), introspection=asked),
        Issuer(issuer="https://d.example", audiences=frozenset({"x"}), jwks_uri="https://d.example/keys"),
        Issuer(issuer="https://e.example", audiences=frozenset(), domain=partner, assertion_audience="y"),
        Issuer(issuer="https://f.example", audiences=frozenset({"x"}), domain=partner, workloads=True),
    )
    found = document("shop.*", issuers=issuers)
    schemes = found["components"]["securitySchemes"]
    assert [one["openIdConnectUrl"] for name, one in schemes.items() if name.startswith("issuer")] == [
        "https://a.example/.well-known/openid-configuration",
        "https://b.example/realm/.well-known/openid-configuration",
    ]
    assert (schemes["bearer"]["scheme"], schemes["dpop"]["scheme"]) == ("bearer", "DPoP")
    assert found["security"] == [{name: []} for name in schemes]
    assert found["servers"] == [{"url": "https://edge.example"}]


def test_files_that_cannot_be_used_are_one_line_that_names_them(tmp_path: Path) -> None:
    good, bad, large = written(tmp_path), tmp_path / "bad.json", tmp_path / "large.json"
    again = tmp_path / "again.json"
    again.write_bytes(good.read_bytes())
    bad.write_text("{}", encoding="ascii")
    large.write_bytes(b" " * (SCHEMA_BYTES + 1))
    for paths, complaint in (
        ((good, tmp_path / "none.json"), "none.json cannot be read: No such file"),
        ((tmp_path,), "cannot be read: Is a directory"),
        ((bad,), "bad.json: agent: Field required; `sealbus agent schema` writes such files"),
        ((large,), "large.json: over 1048576 bytes"),
        ((good, again), "again.json: there is another file of the agent shop"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read_schemas(paths)
        assert complaint in caught.value.detail
        assert caught.value.detail.startswith("edge.schemas ")
        assert "\n" not in caught.value.detail
    assert [one.agent for one in read_schemas((good,))] == ["shop"]
    assert read_schemas(()) == ()


async def test_it_is_served_to_everybody_and_can_be_kept(edge: Door) -> None:
    answer = await edge.http.get(PATH)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.json() == document(*ACTIONS, issuers=tuple(edge.edge.front.issuers))
    posted = await edge.http.post(PATH)
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
    assert edge.issuer.fetches == 0


async def test_without_schemas_there_is_none() -> None:
    async with door(shop, engine=ScriptedEngine(), actions=ACTIONS) as edge:
        answer = await edge.get(PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_without_a_token_it_is_401(edge: Door) -> None:
    one = f"/v1/tasks/{'0' * 32}"
    asked = [
        ("POST", CALL),
        ("POST", TASK),
        ("GET", one),
        ("DELETE", one),
        ("GET", f"{one}/result"),
        ("GET", f"{one}/events"),
    ]
    for method, path in asked:
        answer = await edge.http.request(method, path, content=b"{}", headers={"Content-Type": "application/json"})
        _is_problem(answer, 401, "no_token")
        assert "WWW-Authenticate" in answer.headers


async def test_what_is_not_described_is_a_problem_too(edge: Door) -> None:
    """Schemathesis takes any text for an error of 404, 405 and 415."""
    _is_problem(await edge.post("/v1/tasks/shop/secret", {}), 404, "not_found")
    _is_problem(await edge.get("/v1"), 404, "not_found")
    for method, path in (
        ("PUT", TASK),
        ("PATCH", CALL),
        ("OPTIONS", CALL),
        ("HEAD", CALL),
        ("TRACE", PATH),
        ("BREW", PATH),
    ):
        answer = await edge.http.request(method, path, headers=edge.authorized())
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
        assert answer.headers["allow"] == ("GET" if path == PATH else "POST")
    _is_problem(await edge.post(CALL, {}, headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    _is_problem(await edge.post(CALL, {}, headers={"Content-Encoding": "gzip"}), 415, "unsupported_media_type")


def _is_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    said = answer.json()
    assert (said["status"], said["code"], said["type"]) == (status, code, "about:blank")
    assert said.keys() == {"type", "title", "status", "code", "detail"}
    assert len(answer.headers["x-request-id"]) == 32


async def schemathesis(edge: Door, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run schemathesis against the edge by its own document; return its exit code and what it prints."""
    (folder / "schemathesis.toml").write_text(SCHEMATHESIS, encoding="utf-8")
    url = str(edge.http.base_url)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *("run", f"{url}{PATH}", "--url", url, "--no-color", "--seed", "1", "--suppress-health-check", "all"),
        *("-H", f"Authorization: {edge.authorized(life=600)['Authorization']}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.slow
async def test_the_edge_does_what_its_document_says(edge: Door, tmp_path: Path) -> None:
    code, said = await schemathesis(edge, tmp_path, "--phases", "coverage,fuzzing,stateful", "-n", "10")
    assert code == 0, said
    assert "Tested: 10" in said
    events = ("-H", "Accept: text/event-stream", "--include-operation-id", ANSWERS_IN_CHUNKS)
    code, said = await schemathesis(edge, tmp_path, "--phases", "coverage", *events)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "instead", "complaint"),
    [
        ('"cents": {', '"cents": {"maximum": -1, ', "Response violates schema"),
        ('"maxLength": 20', '"maxLength": 30', "Schema-valid request rejected"),
    ],
)
async def test_a_document_that_is_not_true_is_found_out(
    tmp_path: Path, found: str, instead: str, complaint: str
) -> None:
    file = written(tmp_path)
    text = file.read_text(encoding="utf-8")
    assert found in text
    file.write_text(text.replace(found, instead), encoding="utf-8")
    async with door(
        shop,
        engine=ScriptedEngine(),
        actions=("shop.quote",),
        schemas=(file,),
        limits=FAST,
        connections=ConnectionLimits(),
    ) as edge:
        arguments = ("--phases", "coverage", "--include-path-regex", "^/v1/calls/", "--max-failures", "1")
        code, said = await schemathesis(edge, tmp_path, *arguments)
    assert code == 1, said
    assert complaint in said
