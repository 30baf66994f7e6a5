"""What `sealbus.policies` offers without an engine."""

from __future__ import annotations

import subprocess
import sys

import sealbus.policies


def test_every_name_is_there() -> None:
    assert set(sealbus.policies.__all__) == {
        "NO_USER", "Answer", "Caller", "Decision", "EngineStatus", "InputDocument", "PolicyEngine", "PolicyRefused",
        "Problem", "Request", "Resource", "User", "checked_document", "input_document", "parse_decision",
    }  # fmt: skip
    assert all(hasattr(sealbus.policies, name) for name in sealbus.policies.__all__)


def test_no_engine_is_loaded() -> None:
    code = (
        "import sys, sealbus.policies\n"
        "found = {'regorus', 'aiohttp', 'opa_client'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
