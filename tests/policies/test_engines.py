"""One contract for all engines: the same policy gives the same answers, and faults never allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.central_opa import CentralOpa, tls_of
from support.native_wheel import require_wheel
from support.opa import OpaServer
from support.policies import ALLOW, DENY, SCRIPTED, bundle, document, eventually, put
from support.x509 import ThrowawayCa

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code, PolicyFailed, PolicyUnavailable
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.connect import ConnectAnswer, ConnectDecision, ConnectRequest, connect_document
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.documents import checked_document
from sealbus.policies.decision.engine import Answer, PolicyEngine
from sealbus.policies.decision.placement import Placement
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine
from sealbus.policies.engines.sidecar import SidecarEngine

SHAPES: dict[str, Json] = {
    "yes": ALLOW,
    "no": DENY,
    "truthy": {**ALLOW, "allow": "true"},
    "one": {**ALLOW, "allow": 1},
    "null": {**ALLOW, "allow": None},
    "more": {**ALLOW, "extra": 1},
    "bare": True,
    "text": "yes",
    "empty": {},
    "long": {**ALLOW, "reasons": ["x" * 300]},
    "many": {**ALLOW, "obligations": [{"n": number} for number in range(20)]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An engine over the bundle file `file`, which holds nothing else."""

    engine: PolicyEngine
    file: Path

    async def replace(self, new: Bundle) -> None:
        await asyncio.to_thread(write_bundle, new, self.file)

    async def until_revision(self, revision: str) -> None:
        async def holds() -> bool:
            [answer] = await self.engine.decide([document()])
            return isinstance(answer, Decision) and answer.revision == revision

        await eventually(holds)


@asynccontextmanager
async def embedded(file: Path, deadline: float) -> AsyncGenerator[PolicyEngine, None]:
    async with EmbeddedEngine(file, deadline=deadline) as engine:
        yield engine


@asynccontextmanager
async def native(file: Path, deadline: float) -> AsyncGenerator[PolicyEngine, None]:
    require_wheel()
    async with NativeEngine(file, deadline=deadline) as engine:
        yield engine


@asynccontextmanager
async def sidecar(file: Path, deadline: float) -> AsyncGenerator[PolicyEngine, None]:
    server = await asyncio.to_thread(OpaServer, "--bundle", str(file), "--watch")
    await asyncio.to_thread(server.__enter__)
    try:
        async with SidecarEngine(server.socket, deadline=deadline) as engine:
            yield engine
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


@asynccontextmanager
async def central(file: Path, deadline: float) -> AsyncGenerator[PolicyEngine, None]:
    ca = ThrowawayCa("example.org")
    server = await asyncio.to_thread(CentralOpa, ca, file)
    await asyncio.to_thread(server.__enter__)
    try:
        async with CentralEngine([server.url], tls=tls_of(ca, CONTROL), deadline=deadline) as engine:
            yield engine
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


CONTROL = "spiffe://example.org/control"
"""Who may ask about messages and about connections, as `deploy/local/opa` says."""

OPENERS = [embedded, native, *(pytest.param(one, marks=pytest.mark.opa) for one in (sidecar, central))]

Opener = Callable[[Path, float], AbstractAsyncContextManager[PolicyEngine]]


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def opener(request: pytest.FixtureRequest) -> Opener:
    found: Opener = request.param
    return found


@pytest.fixture
async def running(opener: Opener, tmp_path: Path) -> AsyncIterator[Running]:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(SHAPES), file)
    async with opener(file, 5.0) as engine:
        yield Running(engine=engine, file=file)


def codes(answers: Sequence[Answer]) -> list[str]:
    """Return for each answer its verdict, or the code of its error."""
    return [
        {True: "allow", False: "deny"}[answer.allow] if isinstance(answer, Decision) else str(answer.code)
        for answer in answers
    ]


async def test_decisions(running: Running) -> None:
    allowed, denied = await running.engine.decide([document("yes"), document("no")])
    assert isinstance(allowed, Decision)
    assert isinstance(denied, Decision)
    assert (allowed.allow, allowed.reasons, allowed.obligations) == (True, (), ())
    assert (denied.allow, denied.reasons) == (False, ("no",))
    assert [dict(one) for one in denied.obligations] == [{"notify": "owner"}]
    assert {allowed.policy, denied.policy} == {"scripted"}
    assert {allowed.revision, denied.revision} == {"r1"}
    assert allowed.engine == running.engine.name
    assert 0 <= allowed.micros < 5_000_000


async def test_nothing_is_asked_of_nothing(running: Running) -> None:
    assert list(await running.engine.decide([])) == []


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in ("yes", "no")] + ["undefined", "fails"])
async def test_what_is_no_decision_fails_and_fails_alone(running: Running, shape: str) -> None:
    assert codes(await running.engine.decide([document(shape)])) == [Code.POLICY_ERROR]
    asked = [document("yes"), document(shape), document("no")]
    assert codes(await running.engine.decide(asked)) == ["allow", Code.POLICY_ERROR, "deny"]


async def test_order_and_number_are_kept_whatever_fails(running: Running) -> None:
    names = ["yes", "no", "undefined", "fails", "truthy", "text"]
    asked = [names[number * 7 % 6] for number in range(230)]
    expected = {"yes": "allow", "no": "deny"}
    answers = await running.engine.decide([document(name) for name in asked])
    assert codes(answers) == [expected.get(name, Code.POLICY_ERROR) for name in asked]


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"\xff\x00", b"[1]", b"{}{}", b'{"a":1.5}', b'{"v":1},{"v":1}', b"null", b"x" * 70_000]
)
async def test_garbage_is_refused_and_moves_no_other_answer(running: Running, garbage: bytes) -> None:
    asked = [document("no"), garbage, document("yes")]
    assert codes(await running.engine.decide(asked)) == ["deny", Code.POLICY_ERROR, "allow"]


async def test_garbage_that_fits_together_is_still_garbage(running: Running) -> None:
    """Joined, these would be three documents, and the second would get the answer of another."""
    asked = [document("no") + b"," + document("yes"), b'{"a":[1', b'2],"action":{"name":"yes"}}']
    assert codes(await running.engine.decide(asked)) == [Code.POLICY_ERROR] * 3


async def test_a_document_that_the_engines_might_read_otherwise(running: Running) -> None:
    fraction = bytes(document("yes")).replace(b'"v":1,', b'"v":1.5,')
    assert codes(await running.engine.decide([fraction])) == [Code.POLICY_ERROR]
    assert codes(await running.engine.decide([fraction, document("yes")])) == [Code.POLICY_ERROR, "allow"]


CAREFUL = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "careful"} if {
	not forbidden(request)
}

forbidden(request) if count(request.context.chain) > 2
"""


async def test_an_error_of_a_builtin_is_not_taken_for_undefined(running: Running) -> None:
    """OPA's own default would be: the rule that forbids does not fire, and the message is allowed."""
    await running.replace(bundle(revision="careful", policy=CAREFUL, data={}))

    async def careful() -> bool:
        return (await running.engine.status()).revision == "careful"

    await eventually(careful)
    made = document("x")
    chains = (b'["a"]', b'["a","b","c"]', b"7")
    asked = [checked_document(made.replace(b'["spiffe://example.org/agent/planner"]', chain)) for chain in chains]
    assert codes(await running.engine.decide(asked)) == ["allow", Code.POLICY_ERROR, Code.POLICY_ERROR]


async def test_a_recorded_document_is_decided_as_it_was(running: Running) -> None:
    assert codes(await running.engine.decide([bytes(document("no"))])) == ["deny"]


async def test_text_of_every_kind_arrives(running: Running) -> None:
    odd = 'q"\\/\b\f\n\r\t\x00\x7fü☃\u2028\U0001f600'
    answers = await running.engine.decide([document("yes", properties={"odd": odd, odd: [1, True, odd]})] * 2)
    assert codes(answers) == ["allow", "allow"]


async def test_calls_side_by_side(running: Running) -> None:
    async def ask(name: str) -> list[str]:
        return codes(await running.engine.decide([document(name)] * 60))

    results = await asyncio.gather(*(ask("yes" if number % 2 else "no") for number in range(10)))
    assert results == [["allow" if number % 2 else "deny"] * 60 for number in range(10)]


async def test_status(running: Running) -> None:
    status = await running.engine.status()
    assert (status.engine, status.revision, status.problem) == (running.engine.name, "r1", "")


async def test_a_replaced_bundle_comes_into_force(running: Running) -> None:
    for number in range(2, 5):
        verdict = DENY if number % 2 == 0 else ALLOW
        new = bundle({"yes": verdict}, revision=f"r{number}")
        await running.replace(new)
        await running.until_revision(f"r{number}")
        assert codes(await running.engine.decide([document()])) == ["deny" if number % 2 == 0 else "allow"]
    assert (await running.engine.status()).revision == "r4"


async def test_what_is_asked_together_is_decided_under_one_revision(running: Running) -> None:
    """Each revision gives another answer, so that a mixture would show, while the bundle is replaced all the time."""
    seen: set[str] = set()
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers = await running.engine.decide([document()] * 40)
            found = {(one.revision, one.policy) for one in answers if isinstance(one, Decision)}
            assert len(found) == 1, found
            [(revision, policy)] = found
            assert policy == f"policy of {revision}" or revision == "r1"
            seen.add(revision)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask())
        for number in range(10, 16):
            revision = f"r{number}"
            await running.replace(bundle({"yes": {**ALLOW, "policy": f"policy of {revision}"}}, revision=revision))
            await running.until_revision(revision)
        stop.set()
        await asking
    assert len(seen) >= 3


@pytest.mark.parametrize("bad", ["nonsense", "not rego", "no entry point"])
async def test_a_bad_bundle_leaves_the_old_in_force(running: Running, bad: str) -> None:
    raw = {
        "nonsense": b"nonsense",
        "not rego": bundle(revision="bad", policy="package x {").raw,
        "no entry point": bundle(revision="bad", policy="package sealbus.authz\n\nother if { x }\n").raw,
    }[bad]
    put(raw, running.file)
    until = asyncio.get_running_loop().time() + 0.5
    while asyncio.get_running_loop().time() < until:
        [answer] = await running.engine.decide([document()])
        assert isinstance(answer, Decision)
        assert answer.revision == "r1"
        await asyncio.sleep(0.02)
    await running.replace(bundle(revision="r2"))
    await running.until_revision("r2")


async def test_the_deadline_is_kept(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), file)
    async with opener(file, 1e-9) as engine:
        answers = await engine.decide([document()] * 120)
    assert len(answers) == 120
    late = [answer for answer in answers if isinstance(answer, PolicyUnavailable)]
    # The embedded engine looks at the clock between slices: its first may still be decided.
    assert len(late) >= 80
    assert all(not isinstance(answer, PolicyFailed) for answer in answers)


async def test_an_engine_that_was_left_does_not_decide(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), file)
    async with opener(file, 5.0) as engine:
        pass
    assert codes(await engine.decide([document()])) == [Code.POLICY_UNAVAILABLE]
    status = await engine.status()
    assert (status.revision, status.problem) == ("", "the engine is not entered")


async def test_what_a_block_raises_comes_out_as_it_is(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(bundle(), file)
    with pytest.raises(LookupError, match="mine"):
        async with opener(file, 5.0):
            raise LookupError("mine")


# Connections to NATS


CONNECTIONS = """package sealbus.connect

decision := decide(input)

decide(request) := data.connections[request.resource.properties.name] if request.resource.properties.name != "fails"

decide(request) := concat("", [request.subject.type]) if request.resource.properties.name == "fails"
"""
RULES: dict[str, Json] = {"allow": ["a.>"], "deny": []}
LIMITS: dict[str, Json] = {"subscriptions": 1, "payload": -1, "data": -1}
LET_IN: dict[str, Json] = {
    "allow": True,
    "reasons": [],
    "policy": "scripted",
    "account": "APP",
    "publish": RULES,
    "subscribe": RULES,
    "limits": LIMITS,
}
KEPT_OUT: dict[str, Json] = {"allow": False, "reasons": ["no"], "policy": "scripted"}


def connections(revision: str = "r1") -> Bundle:
    """Return a bundle that says to a connection what stands in its data under the server's name."""
    modules = {"authz.rego": SCRIPTED.encode(), "connect.rego": CONNECTIONS.encode()}
    data: dict[str, Json] = {
        "answers": {"yes": ALLOW},
        "connections": {"in": LET_IN, "out": KEPT_OUT, "truthy": {**LET_IN, "allow": "true"}, "bare": True},
        "sealbus": {"registry": {"cells": {"works": "default"}}},
    }
    return read_bundle(
        pack_bundle(modules, data, Manifest(revision=revision, roots=("answers", "connections", "sealbus")))
    )


def connecting(name: str) -> bytes:
    made = connect_document(
        ConnectRequest(
            subject="spiffe://example.org/agent/shop",
            trust_domain="example.org",
            token="shop",
            server="N",
            server_name=name,
            time=1_795_528_800_000_000,
            not_after=1_795_532_400_000_000,
        )
    )
    return checked_document(made.replace(b'"type":"workload"', b'"type":1')) if name == "fails" else made


async def test_connections_are_decided(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(connections(), file)
    async with opener(file, 5.0) as engine:
        let_in, kept_out = await engine.connect(connecting("in")), await engine.connect(connecting("out"))
        assert isinstance(let_in, ConnectDecision)
        assert isinstance(kept_out, ConnectDecision)
        assert (let_in.allow, let_in.account, let_in.publish.allow) == (True, "APP", ("a.>",))
        assert (let_in.engine, let_in.revision, let_in.policy) == (engine.name, "r1", "scripted")
        assert (kept_out.allow, kept_out.reasons) == (False, ("no",))
        # An OPA elsewhere has its own bundle.
        assert let_in.cells == ({"works": Placement("default")} if engine.name in ("embedded", "native") else None)
        answers: list[ConnectAnswer] = [
            await engine.connect(one)
            for one in (*map(connecting, ("truthy", "bare", "undefined", "fails")), b"{", b'{"a":1.5}')
        ]
        assert [one.code for one in answers if isinstance(one, PolicyFailed)] == [Code.POLICY_ERROR] * 6
        [message] = await engine.decide([document()])
        assert isinstance(message, Decision)
        # Bytes that were not made by `connect_document` are checked, and then asked about.
        assert isinstance(await engine.connect(bytes(connecting("in"))), ConnectDecision)


# Approvals


APPROVALS = """package sealbus.approval

decision := decide(input)

decide(request) := data.answers[request.of.action.name] if request.obligation.queue != "fails"

decide(request) := concat("", [request.subject.type]) if request.obligation.queue == "fails"
"""


def approvals(revision: str = "r1") -> Bundle:
    """Return a bundle that says to an approval what stands in its data under the action that waits."""
    modules = {"authz.rego": SCRIPTED.encode(), "approval.rego": APPROVALS.encode()}
    return read_bundle(
        pack_bundle(modules, {"answers": SHAPES}, Manifest(revision=revision, roots=("answers", "sealbus")))
    )


def approving(name: str, queue: str = "managers") -> bytes:
    asked = approval_question(document("x._approve"), of=document(name), obligation=b'{"queue":"%b"}' % queue.encode())
    return checked_document(asked.replace(b'"type":"workload"', b'"type":1')) if queue == "fails" else asked


async def test_approvals_are_decided_by_a_rule_of_their_own(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(approvals(), file)
    async with opener(file, 5.0) as engine:
        allowed, denied = await engine.approve(approving("yes")), await engine.approve(approving("no"))
        assert isinstance(allowed, Decision)
        assert isinstance(denied, Decision)
        assert (allowed.allow, allowed.policy, allowed.revision) == (True, "scripted", "r1")
        assert (denied.allow, denied.reasons, denied.engine) == (False, ("no",), engine.name)
        assert [dict(one) for one in denied.obligations] == [{"notify": "owner"}]
        others = [name for name in SHAPES if name not in ("yes", "no")] + ["undefined"]
        asked = (*map(approving, others), approving("yes", "fails"), b"{", b'{"a":1.5}', bytes(document("yes")))
        assert codes([await engine.approve(one) for one in asked]) == [Code.POLICY_ERROR] * (len(others) + 4)
        # Bytes that were not made by `approval_question` are checked, and then asked about.
        assert codes([await engine.approve(bytes(approving("yes")))]) == ["allow"]
        # It is another rule that decides about the message itself.
        assert codes(await engine.decide([document("no")])) == ["deny"]


async def test_under_a_policy_without_that_rule_nobody_approves_and_all_else_goes_on(running: Running) -> None:
    for _ in range(4):
        assert codes([await running.engine.approve(approving("yes"))]) == [Code.POLICY_ERROR]
        assert isinstance(await running.engine.connect(connecting("in")), PolicyFailed)
    assert codes(await running.engine.decide([document("yes")])) == ["allow"]


async def test_the_deadline_is_kept_for_approvals(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(approvals(), file)
    async with opener(file, 1e-9) as engine:
        answer = await engine.approve(approving("yes"))
    # The embedded engine cannot interrupt a single decision.
    assert isinstance(answer, Decision if engine.name == "embedded" else PolicyUnavailable)


async def test_an_engine_that_was_left_lets_nobody_approve(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(approvals(), file)
    async with opener(file, 5.0) as engine:
        pass
    assert codes([await engine.approve(approving("yes"))]) == [Code.POLICY_UNAVAILABLE]


async def test_a_policy_without_connections_lets_nobody_in(running: Running) -> None:
    assert isinstance(await running.engine.connect(connecting("in")), PolicyFailed)


async def test_an_engine_that_was_left_lets_nobody_in(opener: Opener, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    write_bundle(connections(), file)
    async with opener(file, 5.0) as engine:
        pass
    assert isinstance(await engine.connect(connecting("in")), PolicyUnavailable)
