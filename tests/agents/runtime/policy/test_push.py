"""Pushing: judged before it is written, and numbered after what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.policies import signing_key
from support.teams import signed_platform, signed_team, team

from sealbus.agents.runtime.policy.deny_list import Denial, add, denials, forget
from sealbus.agents.runtime.policy.push import (
    change_platform,
    content_of,
    push_content,
    push_signed,
    roll_back,
    stored_parts,
)
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.lint.module import PolicyRefused

ROOT, STOCK = signing_key(), signing_key()
ANCHORS = {key_id(ROOT.public): ROOT.public}

pytestmark = pytest.mark.nats


async def test_a_refused_push_writes_nothing(store: PolicyStore) -> None:
    with pytest.raises(PolicyRefused, match="names no team"):
        await push_signed(store, ANCHORS, "stock", signed_team("stock", STOCK))
    await push_signed(store, ANCHORS, "platform", signed_platform(ROOT, {"stock": STOCK}))
    with pytest.raises(PolicyRefused, match="may not sign"):
        await push_content(store, ANCHORS, "stock", lambda serial: team("stock", serial=serial), ROOT)
    assert list(await store.current()) == ["platform"]


async def test_what_is_refused_in_the_store_still_counts_for_the_next_serial(store: PolicyStore) -> None:
    await push_signed(store, ANCHORS, "platform", signed_platform(ROOT, {"stock": STOCK}))
    await store.push("stock", signed_team("stock", ROOT, serial=5), 5, last=0)
    parts, current = await stored_parts(store, ANCHORS)
    assert "may not sign" in parts.problems["stock"]
    assert list(current) == ["platform", "stock"]
    pushed = await push_content(store, ANCHORS, "stock", lambda serial: team("stock", serial=serial), STOCK)
    assert pushed.serial == 6
    await store.push("stock", b"junk", 7, last=(await store.current())["stock"].last)
    assert (await push_content(store, ANCHORS, "stock", lambda one: team("stock", serial=one), STOCK)).serial == 8


async def test_the_platform_is_changed_in_place(store: PolicyStore) -> None:
    with pytest.raises(ConfigurationError, match="push one first"):
        await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    pushed = await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    assert pushed.serial == 2
    parts, _ = await stored_parts(store, ANCHORS)
    platform = parts.bundle("platform")
    assert platform is not None
    assert any(one.id == "eve" for one in denials(platform.data))


async def test_a_denial_ends_by_its_removal_only(store: PolicyStore) -> None:
    async def denied() -> list[str]:
        parts, _ = await stored_parts(store, ANCHORS)
        platform = parts.bundle("platform")
        assert platform is not None
        return [one.id for one in denials(platform.data)]

    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    # Neither by the folder from before, nor by what was in force before.
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    assert await denied() == ["eve"]
    assert (await roll_back(store, ANCHORS, "platform", 1, ROOT)).serial == 4
    assert await denied() == ["eve"]
    signed = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform")
    with pytest.raises(ConfigurationError, match="lacks denials that are in force"):
        await push_signed(store, ANCHORS, "platform", signed.raw)
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    assert await denied() == []
    await push_signed(store, ANCHORS, "platform", signed.raw)


async def test_a_file_that_is_not_there(store: PolicyStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await push_content(store, ANCHORS, "platform", content_of(tmp_path / "none"), ROOT)
