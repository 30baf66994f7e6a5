"""Every module has its own test file at the mirrored path; the few that have none are listed with the reason why.

The list may only shrink: an entry whose module is gone, or has its own test by now, fails, and so does a new one beyond
the bound.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("agents", "bus", "envelopes", "policies")

COMMANDS = "tests/integration/test_tour.py"
DEMONSTRATION = "tests/integration/test_demo.py"
WORKLOAD_API = "tests/agents/dev/workload_api/test_server.py"
FRONT = "tests/agents/edge/test_front.py"

ELSEWHERE: dict[str, str] = {
    # A command is its words and what it prints: each is run as a process of its own, with the bus that it talks to.
    "agents/cli/call.py": COMMANDS,
    "agents/cli/dev.py": COMMANDS,
    "agents/cli/doctor.py": COMMANDS,
    "agents/cli/options.py": COMMANDS,
    "agents/cli/pub.py": COMMANDS,
    "agents/cli/streams.py": COMMANDS,
    "agents/cli/edge.py": "tests/integration/test_edge.py",
    "agents/cli/demo.py": DEMONSTRATION,
    # The demonstration asserts itself: each scene has its expectation, and the test inverts one.
    "agents/demo/attackers.py": DEMONSTRATION,
    "agents/demo/changes.py": DEMONSTRATION,
    "agents/demo/door.py": DEMONSTRATION,
    "agents/demo/people.py": DEMONSTRATION,
    "agents/demo/scene.py": DEMONSTRATION,
    "agents/demo/scenes.py": DEMONSTRATION,
    "agents/demo/stage.py": DEMONSTRATION,
    # What puts real programs together means something only with them.
    "agents/dev/minting.py": "tests/integration/test_dev_idp.py",
    "agents/dev/nats_binary.py": "tests/agents/dev/test_nats_server.py",
    "bus/connection.py": "tests/integration/test_connection.py",
    "bus/pull.py": "tests/integration/test_pull.py",
    "bus/transport.py": "tests/integration/test_transport.py",
    # Parts of a server that are asked over its protocol.
    "agents/dev/idp/issuing.py": "tests/agents/dev/idp/test_grants.py",
    "agents/dev/idp/routes.py": "tests/agents/dev/idp/test_server.py",
    "agents/dev/workload_api/declared.py": WORKLOAD_API,
    "agents/dev/workload_api/servicer.py": WORKLOAD_API,
    "agents/dev/workload_api/sockets.py": WORKLOAD_API,
    "agents/dev/workload_api/server_svid.py": "tests/agents/dev/test_nats_server_changes.py",
    "agents/dev/workload_api/certificates.py": "tests/agents/dev/workload_api/test_authority.py",
    "agents/edge/app.py": FRONT,
    "agents/identity/client.py": "tests/agents/identity/test_workload_api_contract.py",
    # Identity for everything that runs in memory: each test of the gate is one of it.
    "agents/dev/memory_identity.py": "tests/bus/test_gate.py",
    # Values and protocols without behaviour of their own.
    "agents/dev/defaults.py": "tests/agents/test_settings.py",
    "agents/identity/status.py": "tests/agents/identity/test_workload.py",
    "bus/ports.py": "tests/bus/test_memory.py",
    "policies/engine.py": "tests/policies/test_engines.py",
    "policies/syntax.py": "tests/policies/test_parse_tree.py",
}
"""Module without a test file of its own, and the file that tests it."""

MOST = 35
"""Lower it when an entry goes; there is no reason to raise it."""


def modules() -> list[str]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name != "__init__.py")


def own_test(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}"


def test_there_are_modules_to_look_at() -> None:
    assert len(modules()) > 200


def test_every_module_has_a_test_file_of_its_own_or_a_reason() -> None:
    missing = [module for module in modules() if not own_test(module).is_file()]
    assert [module for module in missing if module not in ELSEWHERE] == []


def test_the_list_holds_nothing_that_is_gone_or_has_its_own_by_now() -> None:
    assert [one for one in ELSEWHERE if own_test(one).is_file() or not (ROOT / one).is_file()] == []


def test_the_list_only_shrinks() -> None:
    assert len(ELSEWHERE) == MOST


@pytest.mark.parametrize("path", sorted(set(ELSEWHERE.values())))
def test_what_tests_them_is_there(path: str) -> None:
    assert (ROOT / path).is_file()
