"""Bundles that may not be put in force, at every place where one can be slipped in: the old one goes on serving."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.policies import eventually, signing_key
from support.policy_bus import ANCHORS, COMPOSER, pushed
from support.policy_engines import MONEY, STOCK, deployment, two_teams
from support.teams import signed_team

from sealbus.agents.runtime.policy.push import push_signed
from sealbus.policies.bundle.archive import pack_archive, unpack_archive
from sealbus.policies.bundle.signing import sign_bundle

pytestmark = [pytest.mark.nats, pytest.mark.opa]


async def test_what_may_not_be_put_in_force_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await push_signed(running_.store, ANCHORS, "stock", signed_team("stock", STOCK, serial=5))
        await running_.until("platform-1.money-1.stock-5")
        genuine = unpack_archive(signed_team("stock", STOCK, serial=9))
        genuine["policy.rego"] += b"\nx := 1\n"
        everything = f"package sealbus.authz\n\ndecide(request) := {json.dumps({'allow': True})} if request.v\n"
        for number, (raw, why) in enumerate(
            (
                (pack_archive(genuine), "differs from the signed file"),
                (signed_team("stock", MONEY, serial=9), "may not sign"),
                (signed_team("stock", STOCK, serial=4), "not after 5"),
                (signed_team("stock", STOCK, everything, serial=9), "policy.rego:1:1: the package is outside"),
            )
        ):
            await pushed(running_.store, "stock", raw, 100 + number)
            await running_.refused("stock", why)
            assert running_.server.problem
            assert await running_.revisions() == ["platform-1.money-1.stock-5"] * 2
            assert await running_.decided("inventory.read") == (True, ())
        await push_signed(running_.store, ANCHORS, "money", signed_team("money", MONEY, serial=2))
        await running_.until("platform-1.money-2.stock-5")


async def test_opa_itself_refuses_what_the_policy_server_did_not_sign(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        served, composed = running_.server.served, running_.sync.in_force.bundle
        assert composed is not None
        tampered = unpack_archive(served.raw)
        tampered["stock/policy.rego"] += b"\nx := 1\n"
        for number, (raw, why) in enumerate(
            (
                (pack_archive(tampered), "digest mismatch"),
                (sign_bundle(composed, signing_key(), scope="sealbus").raw, "verify"),
                (sign_bundle(composed, COMPOSER, scope="other").raw, "scope mismatch"),
                (composed.raw, "signature"),
            )
        ):
            served.raw, served.etag = raw, f'"forged-{number}"'
            served._wake()
            found: dict[str, Any] = {}

            async def told(why: str = why, found: dict[str, Any] = found) -> bool:
                _, body = await asyncio.to_thread(running_.opa.request, "GET", "/v1/status")
                found.update(json.loads(body)["result"]["bundles"]["sealbus"])
                return why in str(found.get("message")) + str(found.get("errors"))

            await eventually(told)
            assert found["code"] == "bundle_error"
            assert found["active_revision"] == composed.revision
            assert await running_.decided("inventory.read") == (True, ())
