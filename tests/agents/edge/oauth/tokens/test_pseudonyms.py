"""Pseudonyms of users: the same for the same, of nobody without the key, and the id nowhere behind the edge."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from support.edge import door
from support.engines import ScriptedEngine, allow
from support.shop import Price, Shop

from sealbus.agents.edge.oauth.private_file import KEY_BYTES
from sealbus.agents.edge.oauth.tokens.pseudonyms import PSEUDONYM_PREFIX, PseudonymKey
from sealbus.envelopes.errors import ConfigurationError

KEY = bytes(range(KEY_BYTES))
IDP = "https://idp.example.org"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_pseudonym_is_the_hmac_of_issuer_and_user() -> None:
    expected = hmac.digest(KEY, b"sealbus.pseudonym.v1\0\0\0\x17" + IDP.encode() + b"alice", hashlib.sha256)
    assert PseudonymKey(KEY).derived(IDP, "alice") == PSEUDONYM_PREFIX + expected.hex()


def test_only_the_same_user_under_the_same_key_has_the_same() -> None:
    under = PseudonymKey(KEY)
    assert under.derived(IDP, "alice") == PseudonymKey(KEY).derived(IDP, "alice")
    others = [
        under.derived(IDP, "bob"), under.derived("https://idp.example.com", "alice"), under.derived(IDP + "a", "lice"),
        under.derived(IDP, "Alice"), PseudonymKey(bytes(32)).derived(IDP, "alice"),
    ]  # fmt: skip
    assert len({under.derived(IDP, "alice"), *others}) == 6


def test_a_key_is_read_from_its_file_and_shown_nowhere(tmp_path: Path) -> None:
    for end in (b"", b"\n"):
        under = PseudonymKey.read(written(tmp_path / "key", KEY.hex().encode() + end))
        assert under.derived(IDP, "alice") == PseudonymKey(KEY).derived(IDP, "alice")
        assert repr(under) == "PseudonymKey(...)"


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        PseudonymKey(KEY[1:])


async def test_behind_the_edge_the_users_id_is_nowhere_and_the_user_still_has_the_task(tmp_path: Path) -> None:
    key = written(tmp_path / "key", KEY.hex().encode())
    engine = ScriptedEngine(lambda _: allow())
    async with door(Shop().inventory, Shop().pricing, engine=engine, pseudonym_key=key) as edge:
        sent = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, sub="somebody-real")
        assert sent.status_code == 202
        await edge.bus.idle()
        priced = await edge.post("/v1/calls/pricing/quote", {"item_id": "42"}, sub="somebody-real")
        assert Price.model_validate(priced.json()).price == 7
        pseudonym = PseudonymKey(KEY).derived(edge.issuer.issuer, "somebody-real")
        assert {one["context"]["user"]["id"] for one in engine.asked} == {pseudonym}
        stored = [one.payload for stream in edge.bus.broker.streams for one in edge.bus.stored(stream)]
        assert len(stored) > 3
        assert not [one for one in stored if b"somebody-real" in one]
        # Nor a hash that a list of users would give away.
        guess = hashlib.sha256(json.dumps([edge.issuer.issuer, "somebody-real"]).encode()).hexdigest().encode()
        assert not [one for one in stored if guess in one]
        # Whose task it is, the edge knows by the token.
        assert (await edge.get(sent.headers["location"], sub="somebody-real")).status_code == 200
        assert (await edge.get(sent.headers["location"], sub="somebody-else")).status_code == 404
