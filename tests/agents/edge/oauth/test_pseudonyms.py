"""Pseudonyms of users: the same for the same, of nobody without the key, and the id nowhere behind the edge."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest
from support.edge import door
from support.engines import ScriptedEngine, allow
from support.shop import Price, Shop

from sealbus.agents.edge.oauth.private_file import KEY_BYTES, write_key
from sealbus.agents.edge.oauth.user_context import PSEUDONYM_PREFIX, Pseudonyms
from sealbus.envelopes.errors import ConfigurationError

KEY = bytes(range(KEY_BYTES))
IDP = "https://idp.example.org"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_pseudonym_is_the_hmac_of_issuer_and_user() -> None:
    expected = hmac.digest(KEY, b"sealbus.pseudonym.v1\0\0\0\x17" + IDP.encode() + b"alice", hashlib.sha256)
    assert Pseudonyms(KEY).of(IDP, "alice") == PSEUDONYM_PREFIX + expected.hex()


def test_only_the_same_user_under_the_same_key_has_the_same() -> None:
    under = Pseudonyms(KEY)
    assert under.of(IDP, "alice") == Pseudonyms(KEY).of(IDP, "alice")
    others = [
        under.of(IDP, "bob"), under.of("https://idp.example.com", "alice"), under.of(IDP + "a", "lice"),
        under.of(IDP, "Alice"), Pseudonyms(bytes(32)).of(IDP, "alice"),
    ]  # fmt: skip
    assert len({under.of(IDP, "alice"), *others}) == 6


def test_a_key_is_read_from_its_file_and_shown_nowhere(tmp_path: Path) -> None:
    for end in (b"", b"\n"):
        under = Pseudonyms.read(written(tmp_path / "key", KEY.hex().encode() + end))
        assert under.of(IDP, "alice") == Pseudonyms(KEY).of(IDP, "alice")
        assert repr(under) == "Pseudonyms(...)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o610, 0o644, 0o777])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Pseudonyms.read(written(tmp_path / "key", KEY.hex().encode(), mode))


@pytest.mark.parametrize(
    "content", [b"", b"00", KEY, KEY.hex().upper().encode(), KEY.hex().encode() + b"00", KEY.hex().encode() + b"\n\n"]
)
def test_what_is_no_key_is_refused_without_being_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is not such a key") as refused:
        Pseudonyms.read(written(tmp_path / "key", content))
    assert KEY.hex() not in str(refused.value).lower()


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Pseudonyms.read(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not such a key"):
        Pseudonyms.read(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Pseudonyms(KEY[1:])


def test_a_new_key_is_for_its_owner_alone_and_replaces_none(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two"):
        write_key(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        keys.append(Pseudonyms.read(tmp_path / name).of(IDP, "alice"))
    assert keys[0] != keys[1]
    before = (tmp_path / "one").read_bytes()
    with pytest.raises(ConfigurationError, match="cannot be written: File exists"):
        write_key(tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == before


async def test_behind_the_edge_the_users_id_is_nowhere_and_the_user_still_has_the_task(tmp_path: Path) -> None:
    key = written(tmp_path / "key", KEY.hex().encode())
    engine = ScriptedEngine(lambda _: allow())
    async with door(Shop().inventory, Shop().pricing, engine=engine, pseudonym_key=key) as edge:
        sent = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, sub="somebody-real")
        assert sent.status_code == 202
        await edge.bus.idle()
        priced = await edge.post("/v1/calls/pricing/quote", {"item_id": "42"}, sub="somebody-real")
        assert Price.model_validate(priced.json()).price == 7
        pseudonym = Pseudonyms(KEY).of(edge.issuer.issuer, "somebody-real")
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
