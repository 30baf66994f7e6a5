"""What attackers show the token service as a partner's assertion: each with its status and code, and no context for any.

And what a partner that is trusted for its own users makes of that: none of them is ever one of ours.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from joserfc.jwk import ECKey
from support.engines import ScriptedEngine
from support.issuer import AUDIENCE, compact, new_key, public_jwk
from support.shop import Shop
from support.token_site import PARTNER, TOKEN_ENDPOINT, Site, token_site

from sealbus import Denied
from sealbus.agents.edge.v1.token_service import JWT_TYPE
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.sdk.token_exchange import parse_context_token
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.message.wire import Statement
from sealbus.policies.engines.embedded import EmbeddedEngine

MINE = new_key()


def made(site: Site, key: Any = None, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return an assertion signed by a key of the attacker's own, or `key`, whatever its header says."""
    return site.assertion(header=header, key=key or MINE, **claims)


def parts(site: Site, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    claims = site.partner.claims(sub="mia", aud=TOKEN_ENDPOINT, client_id=None, life=60)
    return compact(site.partner.header(**{"typ": "authorization-grant+jwt", **header}), claims, sign)


def with_public_key_as_secret(site: Site) -> str:
    key = site.partner.keys["key-1"]
    assert isinstance(key, ECKey)
    pem = key.as_pem(private=False)
    return parts(site, {"alg": "HS256"}, lambda data: hmac.new(pem, data, sha256).digest())


def second(later: float) -> int:
    return int(time.time() + later)


ASSERTIONS: dict[str, tuple[Callable[[Site], str], str]] = {
    "nothing like one": (lambda site: "x", "bad_token"),
    "long": (lambda site: site.assertion(pad="x" * 16_384), "bad_token"),
    "alg none": (lambda site: parts(site, {"alg": "none"}, lambda _: b""), "bad_token"),
    "HS256 with the public key": (with_public_key_as_secret, "bad_token"),
    "an algorithm that is not allowed": (lambda site: made(site, header={"alg": "ES384"}), "bad_token"),
    "a key of one's own": (made, "bad_token"),
    "a key of one's own, in the header": (
        lambda site: made(site, header={"jwk": public_jwk(MINE, "key-1")}),
        "bad_token",
    ),
    "a key at a URL of one's own": (lambda site: made(site, header={"jku": "https://evil.example/jwks"}), "bad_token"),
    "an extension": (lambda site: site.assertion(header={"crit": ["exp"]}), "bad_token"),
    "of an access token's type": (lambda site: site.assertion(header={"typ": "at+jwt"}), "bad_token"),
    "of a proof's type": (lambda site: site.assertion(header={"typ": "dpop+jwt"}), "bad_token"),
    "of a security event's type": (lambda site: site.assertion(header={"typ": "secevent+jwt"}), "bad_token"),
    "of no type": (lambda site: site.assertion(header={"typ": None}), "bad_token"),
    "of somebody else": (lambda site: site.assertion(iss="https://evil.example"), "unknown_issuer"),
    "of an issuer that begins like the partner's": (
        lambda site: site.assertion(iss=site.partner.issuer + "/x"),
        "unknown_issuer",
    ),
    "of nobody": (lambda site: site.assertion(iss=None), "unknown_issuer"),
    "of two": (lambda site: site.assertion(iss=[site.partner.issuer]), "unknown_issuer"),
    "of an issuer that may not assert": (
        lambda site: site.issuer.token(aud=TOKEN_ENDPOINT, header={"typ": "authorization-grant+jwt"}, life=60),
        "unknown_issuer",
    ),
    "for another": (lambda site: site.assertion(aud="https://other.example/token"), "token_audience"),
    "for a name that begins like ours": (lambda site: site.assertion(aud=TOKEN_ENDPOINT + "/2"), "token_audience"),
    "for the edge as a resource": (lambda site: site.assertion(aud=AUDIENCE), "token_audience"),
    "for two": (lambda site: site.assertion(aud=[TOKEN_ENDPOINT, "https://other.example"]), "token_audience"),
    "for nobody": (lambda site: site.assertion(aud=None), "bad_token"),
    "for an empty list": (lambda site: site.assertion(aud=[]), "token_audience"),
    "a second too late": (lambda site: site.assertion(life=-1), "token_expired"),
    "of years": (lambda site: site.assertion(exp=4_000_000_000), "bad_token"),
    "of ten minutes": (lambda site: site.assertion(exp=second(600)), "bad_token"),
    "without an end": (lambda site: site.assertion(exp=None), "bad_token"),
    "with an end that is text": (lambda site: site.assertion(exp=str(second(60))), "bad_token"),
    "of tomorrow": (lambda site: site.assertion(iat=4_000_000_000), "bad_token"),
    "not yet valid": (lambda site: site.assertion(nbf=second(60)), "bad_token"),
    "without an id": (lambda site: site.assertion(jti=None), "bad_token"),
    "with an empty id": (lambda site: site.assertion(jti=""), "bad_token"),
    "with an id that is a list": (lambda site: site.assertion(jti=["a"]), "bad_token"),
    "of no user": (lambda site: site.assertion(sub=None), "bad_token"),
    "of a user who is a list": (lambda site: site.assertion(sub=["mia"]), "bad_token"),
    "of a user whose name is too long": (lambda site: site.assertion(sub="m" * 250), "bad_token"),
    "bound to a key": (lambda site: site.assertion(cnf={"jkt": "x" * 43}), "bad_token"),
    "an access token": (lambda site: site.partner.token(), "bad_token"),
    "an access token of ours": (lambda site: site.issuer.token(), "unknown_issuer"),
}


async def test_no_assertion_of_an_attacker_gets_a_context() -> None:
    async with token_site(Shop().pricing) as site:
        for name, (forged, code) in ASSERTIONS.items():
            text = forged(site)
            as_subject = site.form(subject_token_type=JWT_TYPE, subject_token=text)
            for form, error in ((site.grant(text), "invalid_grant"), (as_subject, "invalid_request")):
                answer = await site.post(form)
                said = answer.json()
                assert (answer.status_code, said["code"], said["error"]) == (400, code, error), (name, answer.text)
                assert "access_token" not in said
                assert not any(part in answer.text for part in text.split(".") if len(part) > 20), name
        # And the table is not of a service that takes none; nothing of it has used the id that they share.
        assert (await site.post(site.grant(site.assertion()))).status_code == 200


async def test_an_assertion_is_used_once_at_any_process_of_the_edge() -> None:
    async with token_site(Shop().pricing) as site, site.beside() as other:
        for number, edge in enumerate((site.edge, other)):
            text = site.assertion(jti=f"first-{number}")
            assert (await site.post(site.grant(text), edge=edge)).status_code == 200
            # The same again, in the other form, and another one with its id.
            again = site.assertion(jti=f"first-{number}", sub="kim")
            as_subject = site.form(subject_token_type=JWT_TYPE, subject_token=text)
            for form in (site.grant(text), as_subject, site.grant(again)):
                for process in (site.edge, other):
                    answer = await site.post(form, edge=process)
                    assert (answer.status_code, answer.json()["code"]) == (400, "bad_token")
                    assert answer.json()["error_description"] == "jti: used before"


async def test_of_many_who_show_one_assertion_at_a_time_one_gets_a_context() -> None:
    async with token_site(Shop().pricing) as site, site.beside() as other:
        form = site.grant(site.assertion())
        answers = await asyncio.gather(*[site.post(form, edge=edge) for edge in (site.edge, other) * 4])
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


async def test_an_assertion_is_no_access_token() -> None:
    async with token_site(Shop().pricing, types=("at+jwt", "jwt", "authorization-grant+jwt")) as site:
        for header, code in (({}, "token_audience"), ({"typ": "JWT"}, "token_audience")):
            refused = await site.public(site.assertion(header=header, client_id="web"))
            assert (refused.status_code, refused.json()["code"]) == (401, code)
            refused = await site.post(site.form(subject_token=site.assertion(header=header, client_id="web")))
            assert (refused.status_code, refused.json()["code"]) == (400, code)
        # The row does take what is meant for the edge.
        assert (await site.public(site.partner.token())).status_code != 401


async def test_where_the_row_has_no_audience_for_them_there_are_no_assertions() -> None:
    async with token_site(Shop().pricing, assertion_audience=None) as site:
        for audience in (TOKEN_ENDPOINT, AUDIENCE):
            answer = await site.post(site.grant(site.assertion(aud=audience)))
            assert (answer.status_code, answer.json()["code"]) == (400, "unknown_issuer")


async def test_what_cannot_be_remembered_as_used_is_not_taken() -> None:
    async with token_site(Shop().pricing) as site:
        site.bus.broker.fail("STATE", BusUnavailable("down"))
        answer = await site.post(site.grant(site.assertion()))
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        assert "access_token" not in answer.json()


@pytest.mark.parametrize("way", ["assertion", "access token"])
async def test_a_partner_that_names_its_user_alice_gets_nothing_of_our_alice(way: str) -> None:
    async with (
        EmbeddedEngine.of_folder() as engine,
        token_site(inventory.agent, pricing.agent, engine=engine) as site,
    ):
        client = await site.bus.client("shop-web")

        async def update(user: Statement) -> None:
            handle = await client.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=user)
            await handle.result(inventory.Stock)

        answer = await site.post(site.form(subject_token=site.issuer.token(sub="alice")))
        await update(parse_context_token(answer.json()["access_token"]))
        for name in ("alice", f"alice@{PARTNER}"):
            answer = await site.post(
                site.grant(site.assertion(sub=name, jti=name))
                if way == "assertion"
                else site.form(subject_token=site.partner.token(sub=name))
            )
            assert answer.status_code == 200
            with pytest.raises(Denied) as refused:
                await update(parse_context_token(answer.json()["access_token"]))
            assert set(refused.value.reasons) == {"not_owner", "unknown_user"}
        # And an issuer of ours cannot name anybody as the partner does.
        answer = await site.post(site.form(subject_token=site.issuer.token(sub=f"mia@{PARTNER}")))
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_token")


async def test_a_client_that_is_called_like_a_user_gets_nothing_of_the_user() -> None:
    async with (
        EmbeddedEngine.of_folder() as engine,
        token_site(inventory.agent, pricing.agent, engine=engine) as site,
    ):
        client = await site.bus.client("shop-web")
        for name in ("alice", "bob"):
            answer = await site.post(site.form(subject_token=site.issuer.token(sub=name, client_id=name)))
            user = parse_context_token(answer.json()["access_token"])
            with pytest.raises(Denied) as refused:
                await client.call(inventory.read, inventory.Read(item_id="42"), user=user)
            assert "unknown_user" in refused.value.reasons


async def test_the_policy_is_told_whose_and_what_a_subject_is() -> None:
    engine = ScriptedEngine()
    async with token_site(Shop().pricing, engine=engine) as site:
        client = await site.bus.client("shop-web")
        forms = (
            site.form(subject_token=site.issuer.token()),
            site.form(subject_token=site.issuer.token(sub="shop-web")),
            site.form(subject_token=site.partner.token(sub="mia", client_id="web")),
            site.grant(site.assertion(sub="kim")),
        )
        for form in forms:
            user = parse_context_token((await site.post(form)).json()["access_token"])
            await client.call("pricing.quote", {"item_id": "42"}, returns=dict[str, Any], user=user)
        asked = [one["context"]["user"] for one in engine.asked if one["action"]["name"] == "pricing.quote"]
        assert [(one["type"], one["domain"], one["id"], one["client"]) for one in asked] == [
            ("user", "", "alice", "shop-web"),
            ("client", "", "shop-web", "shop-web"),
            ("user", PARTNER, f"mia@{PARTNER}", f"web@{PARTNER}"),
            ("user", PARTNER, f"kim@{PARTNER}", "spiffe://example.org/agent/shop-web"),
        ]
