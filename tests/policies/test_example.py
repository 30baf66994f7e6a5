"""The example of a project's own policy: short, tested, and decided alike by both engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.opa import require_opa

from sealbus.policies.bundle.files import EXAMPLE, build_bundle
from sealbus.policies.bundle.library import of_library
from sealbus.policies.bundle.reasons import reason_words
from sealbus.policies.opa.compiler import opa_check
from sealbus.policies.rego_tests import run_tests

RULES = Path("sealbus") / "authz" / "decision.rego"


@pytest.mark.parametrize("engine", ["embedded", pytest.param("opa", marks=pytest.mark.opa)])
def test_its_rego_tests_pass(engine: str) -> None:
    results = run_tests(EXAMPLE, opa=require_opa() if engine == "opa" else None)
    assert len([one for one in results if one.engine == engine]) == 4
    assert [one for one in results if not one.passed] == []


@pytest.mark.opa
def test_a_real_opa_accepts_its_bundle() -> None:
    opa_check(build_bundle(EXAMPLE), require_opa())


def test_its_own_text_is_what_is_special_about_it() -> None:
    bundle = build_bundle(EXAMPLE)
    assert of_library(bundle.modules)
    said = [line for line in (EXAMPLE / RULES).read_text().splitlines() if line and not line.startswith("#")]
    assert len(said) <= 15
    assert reason_words(bundle)["too_much_at_once"].remedy == "order it in several parts"


def test_without_its_own_condition_its_tests_fail(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "shop")
    rules = tmp_path / "shop" / RULES
    rules.write_text(rules.read_text().replace("\tsmall_enough(request) == true\n", ""))
    assert [one.name for one in run_tests(tmp_path / "shop") if not one.passed] == ["test_too_much_at_once"]
