from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from a2a.types import AgentCard, HTTPAuthSecurityScheme, SecurityScheme
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from google.protobuf.json_format import MessageToDict, ParseDict
from joserfc.jwk import ECKey, RSAKey
from jwt import PyJWK
from support.a2a import CardKeyFile, Lines, Site, card_key, site
from support.shop import Shop

from sealbus.agents.edge.a2a.cards import EXTENSION, CardKey
from sealbus.envelopes.errors import ConfigurationError

CARD = "/a2a/writer/.well-known/agent-card.json"


@pytest.fixture
def key(tmp_path: Path) -> CardKeyFile:
    return card_key(tmp_path)


async def fetched(found: Site) -> dict[str, Any]:
    answer = await found.door.http.get(CARD)
    assert answer.status_code == 200
    card: dict[str, Any] = answer.json()
    return card


def verified(card: dict[str, Any], key: CardKeyFile) -> AgentCard:
    found = ParseDict(card, AgentCard())
    create_signature_verifier(lambda kid, _: PyJWK({**key.public, "kid": kid or ""}), ["ES256"])(found)
    return found


async def test_everybody_sees_the_card_of_each_agent_that_says_so_and_no_other(tmp_path: Path) -> None:
    shop, lines = Shop(), Lines()
    async with site(tmp_path, shop.inventory, lines.agent, shown=["writer"]) as found:
        answer = await found.door.http.get(CARD)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = await found.door.http.get(CARD, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for other in ("inventory", "absent", "%2e%2e", "writer%2f.."):
            hidden = await found.door.http.get(f"/a2a/{other}/.well-known/agent-card.json")
            assert hidden.status_code == 404
        card = answer.json()
    assert [one["protocolBinding"] for one in card["supportedInterfaces"]] == ["JSONRPC", "HTTP+JSON", "GRPC"]
    assert card["supportedInterfaces"][2]["tenant"] == "writer"
    assert card["capabilities"]["streaming"]
    assert [one["id"] for one in card["skills"]][:2] == ["writer.write", "writer.shout"]
    [extension] = card["capabilities"]["extensions"]
    assert extension["uri"] == EXTENSION
    assert extension["params"]["skills"]["writer.shout"]["takes"]["properties"] == {"value": {"type": "string"}}


async def test_markup_in_a_description_stays_text(tmp_path: Path) -> None:
    async with site(tmp_path, Lines().agent) as found:
        answer = await found.door.http.get(CARD)
    [shout] = [one for one in answer.json()["skills"] if one["id"] == "writer.shout"]
    assert shout["description"] == '<b>Shout</b> & "quote" [link](javascript:alert(1)).'
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_card_is_signed_as_a_whole(tmp_path: Path, key: CardKeyFile) -> None:
    async with site(tmp_path, Lines().agent, settings={"card_key": key.file}) as found:
        card = await fetched(found)
    assert json.loads(json.dumps(MessageToDict(verified(card, key)))) == card


def _other_scheme(card: dict[str, Any]) -> object:
    other = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Basic"))
    card["securitySchemes"] = {"token": MessageToDict(other)}
    return card


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "its name": lambda card: card.update(name="other"),
    "where it is": lambda card: card["supportedInterfaces"][0].update(url="https://elsewhere.example/rpc"),
    "a skill": lambda card: card["skills"].pop(),
    "what a skill takes": lambda card: card["capabilities"]["extensions"][0]["params"]["skills"].pop("writer.write"),
    "how it is asked": _other_scheme,
    "its first signature": lambda card: (card["signatures"].pop(0), _other_scheme(card)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_card_does_not_verify(tmp_path: Path, key: CardKeyFile, change: str) -> None:
    async with site(tmp_path, Lines().agent, settings={"card_key": key.file}) as found:
        card = await fetched(found)
    CHANGES[change](card)
    with pytest.raises(InvalidSignaturesError):
        verified(card, key)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        RSAKey.generate_key(2048).as_pem(private=True),
        ECKey.generate_key("P-384").as_pem(private=True),
        ECKey.generate_key("P-256").as_pem(private=False),
    ],
    ids=["empty", "text", "RSA", "P-384", "public"],
)
def test_only_a_private_p256_key_signs_cards(pem: bytes, tmp_path: Path) -> None:
    file = tmp_path / "card.key"
    file.touch(mode=0o600)
    file.write_bytes(pem)
    with pytest.raises(ConfigurationError, match=r"edge\.a2a\.card_key"):
        CardKey.read(file)
