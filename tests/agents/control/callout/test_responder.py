"""The responder without a server: what it is asked, what it answers, and that every doubt is a refusal with its code."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from support.auth_request import AskingServer
from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.control.callout import responder
from sealbus.agents.control.callout.key_files import CalloutKeys
from sealbus.agents.control.callout.nkeys import CurveKey, Prefix, SigningKey, decode_jwt
from sealbus.agents.control.callout.responder import Callout, ConnectRules, RefusedConnection
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.subscription import Asked
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine

CA = ThrowawayCa("example.org")
PARTNER = ThrowawayCa("partner.org")
NAMES = Names(TrustDomain("example.org"))
KEYS = CalloutKeys(
    issuer=SigningKey.generate(Prefix.ACCOUNT), xkey=CurveKey.generate(), user=SigningKey.generate(Prefix.USER)
)
PREVIOUS = CalloutKeys(
    issuer=SigningKey.generate(Prefix.ACCOUNT), xkey=CurveKey.generate(), user=SigningKey.generate(Prefix.USER)
)
INVENTORY = "spiffe://example.org/agent/inventory"


class Asker:
    """A server that asks one responder, and reads its answers."""

    def __init__(self, engine: PolicyEngine, keys: Sequence[CalloutKeys] = (KEYS,), **rules: Any) -> None:
        self.server = AskingServer()
        self.timeout = 2
        self.identity = StaticIdentity(CA, "spiffe://example.org/control", federated=(PARTNER,))
        self.refused: list[RefusedConnection] = []
        self.counters = Counters()
        self.callout = Callout(
            ConnectRules(**{"names": NAMES, "accounts": ["APP", "APP_AGENTS"], **rules}),
            connection=Connection(
                ["tls://127.0.0.1:1"],
                identity=self.identity,
                server_ids=frozenset({SpiffeId("spiffe://example.org/nats")}),
                inbox_prefix="_INBOX.callout.",
            ),
            identity=self.identity,
            engine=engine,
            keys=keys,
            counters=self.counters,
            on_refused=self.refused.append,
        )

    def claims(self, svid: IssuedSvid, ca: ThrowawayCa = CA) -> dict[str, Any]:
        chain = [svid.cert_pem.decode(), ca.cert_pem.decode()]
        return self.server.claims([chain], expires=int(time.time()) + self.timeout)

    def asked(self, claims: dict[str, Any], *, sealed: bytes | None = None, sender: str | None = None) -> Asked:
        token = self.server.request(claims, issued=claims["exp"] - self.timeout)
        block = f"NATS/1.0\r\nNats-Server-Xkey: {self.server.xkey.public if sender is None else sender}\r\n\r\n"
        return Asked(
            payload=self.server.xkey.seal(token, KEYS.xkey.public) if sealed is None else sealed,
            header_block=block.encode(),
            arrived=asyncio.get_running_loop().time(),
        )

    def waiting_since(self, seconds: float) -> Asked:
        """Return a request about `INVENTORY` that arrived so many seconds ago."""
        asked = self.asked(self.claims(CA.issue(INVENTORY)))
        return replace(asked, arrived=asked.arrived - seconds)

    def read(self, answer: bytes | None, keys: CalloutKeys = KEYS) -> dict[str, Any]:
        """Return what an answer under `keys` says, verified as the server does."""
        assert answer is not None
        claims = decode_jwt(self.server.xkey.open(answer, keys.xkey.public), Prefix.ACCOUNT)
        assert (claims["iss"], claims["aud"], claims["sub"]) == (
            keys.issuer.public,
            self.server.key.public,
            self.server.user,
        )
        return cast("dict[str, Any]", claims["nats"])

    async def ask(self, svid: IssuedSvid, ca: ThrowawayCa = CA) -> dict[str, Any]:
        return self.read(await self.callout.answer(self.asked(self.claims(svid, ca))))


@pytest.fixture
async def engine() -> AsyncIterator[PolicyEngine]:
    async with EmbeddedEngine.of_folder() as running:
        yield running


async def test_a_known_agent_is_let_in_until_its_certificate_ends(engine: PolicyEngine) -> None:
    asker, svid = Asker(engine), CA.issue(INVENTORY)
    user = decode_jwt((await asker.ask(svid))["jwt"].encode(), Prefix.ACCOUNT)
    nats = cast("dict[str, Any]", user["nats"])
    assert (user["aud"], user["sub"], user["exp"]) == ("APP_AGENTS", asker.server.user, svid.not_after // 1_000_000)
    assert "name" not in user
    assert "task.pricing.quote" in nats["pub"]["allow"]
    assert "status.shop-web.*" in nats["pub"]["allow"]
    assert nats["sub"]["allow"] == ["_INBOX.inventory.>", "call.inventory.* inventory"]
    assert asker.refused == []
    assert 'sealbus_callout_total{outcome="allowed"} 1' in asker.counters.render()


async def test_a_connection_lasts_no_longer_than_is_said(engine: PolicyEngine) -> None:
    asker, before = Asker(engine, longest=60.0), int(time.time())
    user = decode_jwt((await asker.ask(CA.issue(INVENTORY)))["jwt"].encode(), Prefix.ACCOUNT)
    assert isinstance(user["exp"], int)
    assert before + 59 <= user["exp"] <= int(time.time()) + 60


async def test_the_policy_is_asked_about_who_was_verified(engine: PolicyEngine) -> None:
    documents: list[bytes] = []

    class Listening(ScriptedEngine):
        async def connect(self, document: bytes) -> ConnectAnswer:
            documents.append(document)
            return await engine.connect(document)

    asker, svid = Asker(Listening()), CA.issue(INVENTORY)
    await asker.ask(svid)
    (document,) = map(json.loads, documents)
    assert document["subject"] == {
        "type": "workload",
        "id": INVENTORY,
        "properties": {"trust_domain": "example.org", "token": "inventory"},
    }
    assert document["resource"] == {
        "type": "nats_server",
        "id": asker.server.key.public,
        "properties": {"name": "n1"},
    }
    assert "secret" not in documents[0].decode()


@pytest.mark.parametrize(
    ("svid", "ca", "code", "who"),
    [
        (CA.issue("spiffe://example.org/agent/stranger"), CA, "denied", "spiffe://example.org/agent/stranger"),
        (
            PARTNER.issue("spiffe://partner.org/agent/inventory"),
            PARTNER,
            "denied",
            "spiffe://partner.org/agent/inventory",
        ),
        (PARTNER.issue(INVENTORY), PARTNER, "wrong_authority", ""),
        (CA.issue(INVENTORY, uris=[INVENTORY, INVENTORY]), CA, "not_one_uri", ""),
        (CA.issue(INVENTORY, uris=[]), CA, "not_one_uri", ""),
    ],
    ids=["stranger", "partner", "in our name", "two", "none"],
)
async def test_refusals_are_answered_and_told(
    engine: PolicyEngine, svid: IssuedSvid, ca: ThrowawayCa, code: str, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    asker = Asker(engine)
    with caplog.at_level(logging.WARNING):
        assert await asker.ask(svid, ca) == {"type": "authorization_response", "version": 2, "error": code}
    (refused,) = asker.refused
    assert (str(refused.code), refused.subject, refused.server) == (code, who, asker.server.key.public)
    assert refused.reasons == (("unknown_workload",) if code == "denied" else ())
    assert f'sealbus_callout_total{{outcome="{code}"}} 1' in asker.counters.render()
    assert code in caplog.text
    assert "secret" not in caplog.text + str(refused)


async def test_a_server_is_answered_under_the_keys_that_it_has(engine: PolicyEngine) -> None:
    """While they are replaced: some servers have the new ones already, and others do not."""
    asker, strict = Asker(engine, (KEYS, PREVIOUS)), Asker(engine)
    for keys in (KEYS, PREVIOUS):
        claims = asker.claims(CA.issue(INVENTORY))
        claims["nats"]["user_nkey"] = asker.server.user = SigningKey.generate(Prefix.USER).public
        sealed = asker.server.xkey.seal(asker.server.request(claims), keys.xkey.public)
        assert "jwt" in asker.read(await asker.callout.answer(asker.asked(claims, sealed=sealed)), keys)
    claims = strict.claims(CA.issue(INVENTORY))
    sealed = strict.server.xkey.seal(strict.server.request(claims), PREVIOUS.xkey.public)
    assert await strict.callout.answer(strict.asked(claims, sealed=sealed)) is None
    assert [str(one.code) for one in strict.refused] == ["bad_auth_request"]


async def test_a_client_without_a_certificate(engine: PolicyEngine) -> None:
    asker = Asker(engine)
    claims = asker.server.claims(expires=int(time.time()) + 2)
    assert asker.read(await asker.callout.answer(asker.asked(claims)))["error"] == "no_client_certificate"


async def test_a_copy_of_a_request_is_refused(engine: PolicyEngine) -> None:
    asker = Asker(engine)
    asked = asker.asked(asker.claims(CA.issue(INVENTORY)))
    assert "jwt" in asker.read(await asker.callout.answer(asked))
    assert asker.read(await asker.callout.answer(asked))["error"] == "replayed"


async def test_an_account_that_the_policy_may_not_give(engine: PolicyEngine) -> None:
    assert (await Asker(engine, accounts=["ACME"]).ask(CA.issue(INVENTORY)))["error"] == "policy_error"


async def test_a_workload_that_has_no_certificate_itself_lets_nobody_in(engine: PolicyEngine) -> None:
    asker = Asker(engine)
    asker.identity.material = None
    assert (await asker.ask(CA.issue(INVENTORY)))["error"] == "identity_unavailable"


@pytest.mark.parametrize(
    ("answer", "code"), [(PolicyUnavailable("away"), "policy_unavailable"), (PolicyFailed("odd"), "policy_error")]
)
async def test_no_decision_is_a_refusal(answer: ConnectAnswer, code: str) -> None:
    class Failing(ScriptedEngine):
        async def connect(self, document: bytes) -> ConnectAnswer:
            return answer

    assert (await Asker(Failing()).ask(CA.issue(INVENTORY)))["error"] == code


async def test_a_decision_that_comes_too_late_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "ANSWER_SHARE", 0.02)

    class Hanging(ScriptedEngine):
        async def connect(self, document: bytes) -> ConnectAnswer:
            await asyncio.Event().wait()
            raise AssertionError

    asker = Asker(Hanging())
    async with asyncio.timeout(60):
        assert (await asker.ask(CA.issue(INVENTORY)))["error"] == "policy_unavailable"


async def test_a_request_that_waited_too_long_takes_no_more_time(engine: PolicyEngine) -> None:
    asker = Asker(engine)
    assert await asker.callout.answer(asker.waiting_since(1.5)) is None
    assert [str(one.code) for one in asker.refused] == ["overloaded"]


async def test_a_server_that_waits_longer_is_answered_later(engine: PolicyEngine) -> None:
    asker, patient, other = Asker(engine), AskingServer(), AskingServer()
    for server, asker.timeout in ((patient, 40), (other, 2)):
        asker.server = server
        assert await asker.callout.answer(asker.waiting_since(0.0)) is not None
    asker.server, asker.timeout = patient, 40
    patient.user = SigningKey.generate(Prefix.USER).public
    assert "jwt" in asker.read(await asker.callout.answer(asker.waiting_since(20.0)))
    assert await asker.callout.answer(asker.waiting_since(30.0)) is None
    asker.server, asker.timeout = other, 2
    assert await asker.callout.answer(asker.waiting_since(1.5)) is None
    assert [str(one.code) for one in asker.refused] == ["overloaded", "overloaded"]


async def test_servers_beyond_those_that_are_remembered_are_answered_as_at_first(
    engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responder, "SERVERS", 1)
    asker, patient = Asker(engine), AskingServer()
    asker.timeout = 40
    for asker.server in (patient, AskingServer()):
        assert await asker.callout.answer(asker.waiting_since(0.0)) is not None
    asker.server = patient
    assert await asker.callout.answer(asker.waiting_since(20.0)) is None


async def test_a_request_that_came_before_says_nothing_of_its_server(engine: PolicyEngine) -> None:
    """Whoever has captured a request of a server that waited longer cannot make the responder work for longer."""
    asker = Asker(engine)
    asker.timeout = 40
    captured = asker.waiting_since(0.0)
    assert await asker.callout.answer(captured) is not None
    asker.timeout = 2
    asker.server.user = SigningKey.generate(Prefix.USER).public
    assert await asker.callout.answer(asker.waiting_since(0.0)) is not None
    assert await asker.callout.answer(captured) is not None
    assert await asker.callout.answer(asker.waiting_since(1.5)) is None
    assert [str(one.code) for one in asker.refused] == ["replayed", "overloaded"]


# What is not answered at all: nothing is known of who asks.


async def test_what_is_not_sealed_for_us_or_not_by_its_server_is_not_answered(engine: PolicyEngine) -> None:
    asker, other = Asker(engine), AskingServer()
    claims = asker.claims(CA.issue(INVENTORY))
    token = asker.server.request(claims)
    forged = other.request(claims)
    foreign = CurveKey.generate()
    for asked in (
        asker.asked(claims, sealed=token),
        asker.asked(claims, sealed=asker.server.xkey.seal(token, other.xkey.public)),
        asker.asked(claims, sealed=asker.server.xkey.seal(forged, KEYS.xkey.public)),
        asker.asked(claims, sealed=b""),
        asker.asked(claims, sender=""),
        asker.asked(claims, sender=foreign.public),
        # Sealed by somebody who wants the answer: the server that signed it has another key.
        asker.asked(claims, sealed=foreign.seal(token, KEYS.xkey.public), sender=foreign.public),
    ):
        assert await asker.callout.answer(asked) is None
    assert {str(one.code) for one in asker.refused} == {"bad_auth_request"}
    assert len(asker.refused) == 7


async def test_an_expired_request_and_one_of_a_server_that_is_not_ours_are_not_answered(engine: PolicyEngine) -> None:
    asker = Asker(engine)
    claims = asker.claims(CA.issue(INVENTORY))
    claims["exp"] = int(time.time()) - 60
    assert await asker.callout.answer(asker.asked(claims)) is None
    strict = Asker(engine, servers=[AskingServer().key.public])
    assert await strict.callout.answer(strict.asked(strict.claims(CA.issue(INVENTORY)))) is None
    assert [str(one.code) for one in (*asker.refused, *strict.refused)] == ["auth_request_expired", "unknown_server"]


async def test_a_responder_that_does_not_run_says_so(engine: PolicyEngine) -> None:
    assert Asker(engine).callout.problem == "the auth callout is not running"
