"""Where a process has its policy from, and the revocations that come with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from support.lab import Lab
from support.policies import bundle, put, signing_key
from support.settings import changed
from support.teams import signed_platform

from sealbus.agents.runtime.open import open_engine
from sealbus.agents.runtime.policy.source import anchors_of, file_verifier, open_source, open_sync
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.lint.module import PolicyRefused

KEY = signing_key()
PRICING = SpiffeId("spiffe://example.org/agent/pricing")
NOWHERE = cast("Connection", object())
PLAIN = PolicyTable(engine="embedded", bundle=None, opa=(), deadline=1.0)


async def test_a_signed_file_is_verified(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(public_pem(KEY.public), encoding="ascii")
    file = tmp_path / "bundle.tar.gz"
    policy = changed(PLAIN, bundle=str(file), keys=(tmp_path / "key.pem",))
    put(bundle(serial=1).raw, file)
    with pytest.raises(PolicyRefused, match="not signed"):
        async with open_source("a", policy, NOWHERE):
            pass
    put(sign_bundle(bundle(serial=1), KEY, scope="platform").raw, file)
    async with open_source("a", policy, NOWHERE) as source:
        assert source.in_force.bundle is not None
    assert file_verifier(PLAIN) is None


def test_keys_are_named_by_themselves(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    with pytest.raises(ConfigurationError, match=r"policy\.keys: .*key\.pem cannot be read"):
        anchors_of(changed(PLAIN, keys=(file,)))
    file.write_text("junk", encoding="ascii")
    with pytest.raises(ConfigurationError, match=r"policy\.keys: .*key\.pem: not a public key"):
        anchors_of(changed(PLAIN, keys=(file,)))
    file.write_text(public_pem(KEY.public), encoding="ascii")
    assert anchors_of(changed(PLAIN, keys=(file,))) == {key_id(KEY.public): KEY.public}


@pytest.mark.nats
async def test_what_a_bucket_needs_is_said_in_one_line(lab: Lab, tmp_path: Path) -> None:
    async with lab.connection("a") as connection:
        for policy, says in (
            (PLAIN, "not a bucket"),
            (changed(PLAIN, bundle="nats://policies"), r"policy\.cache is not set"),
            (changed(PLAIN, bundle="nats://policies", cache=tmp_path), r"policy\.keys is not set"),
        ):
            with pytest.raises(ConfigurationError, match=says):
                async with open_sync("a", policy, connection):
                    pass


@pytest.mark.nats
async def test_what_is_pushed_decides_and_revokes_in_one_turn_of_the_loop(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path) -> bytes:
        raise ConfigurationError(f"{file} was read again")

    (tmp_path / "key.pem").write_text(public_pem(KEY.public), encoding="ascii")
    policy = changed(PLAIN, bundle="nats://policies", cache=tmp_path / "cache", keys=(tmp_path / "key.pem",))
    async with lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        await store.push("platform", signed_platform(KEY, {}), 1, last=0)
        async with (
            open_source("pricing", policy, connection) as source,
            open_engine(policy, in_force=source.in_force) as engine,
        ):
            assert (tmp_path / "cache" / "pricing" / "parts" / "platform.tar.gz").exists()
            assert source.problem() == ""

            async def seen() -> tuple[str, Mapping[SpiffeId, int]]:
                return (await engine.status()).revision.partition(".")[2], source.in_force.revoked_before

            assert await seen() == ("platform-1", {})
            # In memory: what is composed is not read back from where it is kept.
            monkeypatch.setattr("sealbus.policies.bundle.files.read_file", refuse)
            found = await store.read("platform")
            assert found is not None
            raw = sign_bundle(
                bundle(data={"sealbus": {"registry": {"issued_before": {str(PRICING): 7}}}}, serial=2),
                KEY,
                scope="platform",
            ).raw
            await store.push("platform", raw, 2, last=found.last)
            async with asyncio.timeout(60):
                while (now := await seen()) == ("platform-1", {}):  # noqa: ASYNC110  every turn is looked at
                    await asyncio.sleep(0)
            assert now == ("platform-2", {PRICING: 7})


@pytest.mark.nats
async def test_each_process_has_a_folder_of_its_own(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_text(public_pem(KEY.public), encoding="ascii")
    policy = changed(PLAIN, bundle="nats://policies", cache=tmp_path / "cache", keys=(tmp_path / "key.pem",))
    monkeypatch.setattr("sealbus.agents.runtime.policy.source.REPLICAS", 2)
    async with lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        await store.push("platform", signed_platform(KEY, {}), 1, last=0)
        async with open_sync("a", policy, connection) as first, open_sync("a", policy, connection) as second:
            assert first.bundle.parent.parent == tmp_path / "cache" / "a"
            assert second.bundle.parent.parent == tmp_path / "cache" / "a-2"
            with pytest.raises(ConfigurationError, match="2 processes of a have all folders"):
                async with open_sync("a", policy, connection):
                    pass
        async with open_sync("a", policy, connection) as again:
            assert again.bundle == first.bundle
    (tmp_path / "file").write_bytes(b"")
    async with lab.connection("a") as connection:
        with pytest.raises(ConfigurationError, match=r"policy\.cache: .* cannot be written"):
            async with open_sync("a", changed(policy, cache=tmp_path / "file"), connection):
                pass


async def test_without_a_bundle_there_are_no_revocations() -> None:
    async with open_source("a", PLAIN, NOWHERE) as source:
        assert (source.in_force.bundle, source.in_force.revoked_before, source.problem()) == (None, {}, "")
