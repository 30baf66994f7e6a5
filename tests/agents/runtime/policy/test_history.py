"""What was composed in the past is composed again, from the former parts in a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lab import running
from support.policies import signing_key
from support.policy_bus import pushed
from support.teams import signed_platform, signed_team, team_policy

from sealbus.agents.runtime.policy.history import former_policy, parts_of
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.composition import FORMER_DIGITS, REVISION_DIGITS, PartSet
from sealbus.policies.bundle.denials import DENIAL, pack_denial
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument

ROOT, STOCK = signing_key(), signing_key()
ANCHORS = {key_id(ROOT.public): ROOT.public}


def test_the_parts_of_a_revision() -> None:
    for head in ("0123456789ab", "0123456789abcdef" * 4):
        assert parts_of(f"{head}.platform-12.a_b-3") == {"platform": 12, "a_b": 3}
    for other in (
        "", "r1", "0123456789ab...", "0123456789ab.stock-1", "0123456789ab.platform-0", "0123456789ab.platform-1.",
        "0123456789ab.platform-1.platform-2", "0123456789ab.platform-1..", "0123456789ab.platform-1.stock-1/x",
        *(f"{'0' * digits}.platform-1" for digits in (11, 13, 63, 65)), "0123456789AB.platform-1",
        "0123456789ab.platform-1\n",
    ):  # fmt: skip
        assert parts_of(other) == {}


@pytest.mark.nats
@pytest.mark.parametrize("digits", [REVISION_DIGITS, FORMER_DIGITS])
async def test_every_combination_that_a_process_can_have_had(tmp_path: Path, digits: int) -> None:
    platforms = {serial: signed_platform(ROOT, {"stock": STOCK}, serial=serial) for serial in (1, 2)}
    stocks = {
        serial: signed_team("stock", STOCK, team_policy("stock", allow=f"request.v == {serial}"), serial=serial)
        for serial in (1, 2)
    }
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        for serial in (1, 2):
            await pushed(store, "stock", stocks[serial], serial)
            await pushed(store, "platform", platforms[serial], serial)
        revision = ""
        for one, other in ((1, 1), (1, 2), (2, 1), (2, 2)):
            parts = PartSet(ANCHORS, digits=digits)
            parts.offer("platform", platforms[one])
            parts.offer("stock", stocks[other])
            composed = parts.composed
            assert composed is not None
            revision = composed.revision
            found = await former_policy(store, ANCHORS, revision)
            assert found is not None
            assert found.raw == composed.raw
        # Not kept, of other contents, signed by nobody who counts, and no revision at all.
        for asked, anchors in [
            (revision.replace("stock-2", "stock-3"), ANCHORS), ("0" * digits + revision[digits:], ANCHORS), (revision, {}),
            ("r1", ANCHORS),
        ]:  # fmt: skip
            assert await former_policy(store, anchors, asked) is None


@pytest.mark.nats
@pytest.mark.parametrize("digits", [REVISION_DIGITS, FORMER_DIGITS])
async def test_a_policy_with_denials_is_composed_again(tmp_path: Path, digits: int) -> None:
    """By the denials up to its serial, on the bundle that was in force, though a later one was pushed by halves."""
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        await pushed(store, "platform", signed_platform(ROOT, {}, serial=1), 1)
        parts, bundles = PartSet(ANCHORS, digits=digits), []
        parts.offer("platform", signed_platform(ROOT, {}, serial=1))
        for serial in (2, 3, 5):
            if serial == 5:
                await store.objects.put("platform@4", signed_platform(ROOT, {"stock": STOCK}, serial=4), last=0)
            data: DataDocument = {"sealbus": {"registry": {"revoked": {"users": {f"user-{serial}": {}}}}}}
            raw = sign_bundle(pack_denial(data, serial), ROOT, scope=DENIAL).raw
            assert await store.deny(raw, serial)
            parts.offer(DENIAL, raw)
            assert parts.composed is not None
            bundles.append(parts.composed)
        for bundle in bundles:
            found = await former_policy(store, ANCHORS, bundle.revision)
            assert found is not None
            assert found.raw == bundle.raw
        assert await former_policy(store, ANCHORS, f"{'0' * digits}.platform-5") is None
        assert await former_policy(store, {}, bundles[0].revision) is None
