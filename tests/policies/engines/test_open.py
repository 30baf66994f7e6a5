"""A policy opened out of turn, from a folder or a file, on either engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.opa import require_opa
from support.policies import SCRIPTED, bundle, document, folder, signing_key
from support.teams import owner, platform, team

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.composition import compose
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.open import open_policy
from sealbus.policies.lint.module import PolicyRefused


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    answer: Json = {"allow": True, "reasons": [], "obligations": [], "policy": "scripted"}
    return folder(tmp_path / "policy", {"authz.rego": SCRIPTED, "answers/data.json": {"yes": answer}})


@pytest.mark.parametrize("opa", [False, pytest.param(True, marks=pytest.mark.opa)])
async def test_a_folder_is_opened_as_it_is_now(policy: Path, opa: bool) -> None:
    async with open_policy(policy, opa=require_opa() if opa else None) as engine:
        [answer] = await engine.decide([document("yes")])
        assert isinstance(answer, Decision)
        assert answer.allow
        assert engine.name == ("sidecar" if opa else "embedded")


async def test_a_bundle_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(bundle(revision="r7").raw)
    async with open_policy(tmp_path / "b.tar.gz") as engine:
        assert (await engine.status()).revision == "r7"


@pytest.mark.opa
async def test_both_engines_report_the_revision_of_one_composed_bundle(tmp_path: Path) -> None:
    # A log names policies by it: what OPA's provenance says must lead to the bundle that the embedded engine has.
    composed = compose(
        platform({"stock": owner(signing_key(), ["inventory"])}, serial=12), {"stock": team("stock", serial=3)}
    )
    (tmp_path / "b.tar.gz").write_bytes(composed.raw)
    revisions = set()
    for opa in (None, require_opa()):
        async with open_policy(tmp_path / "b.tar.gz", opa=opa) as engine:
            [answer] = await engine.decide([document("inventory.update")])
            assert isinstance(answer, Decision)
            revisions |= {answer.revision, (await engine.status()).revision}
    assert revisions == {composed.revision}
    assert composed.revision.endswith(".platform-12.stock-3")


async def test_what_may_not_be_in_force_is_refused(policy: Path, tmp_path: Path) -> None:
    (policy / "more.rego").write_text("package other\n\nx := http.send({})\n")
    with pytest.raises(PolicyRefused):
        async with open_policy(policy):
            pass
    with pytest.raises(ConfigurationError, match="cannot be read"):
        async with open_policy(tmp_path / "missing.tar.gz"):
            pass
