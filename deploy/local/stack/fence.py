"""What the demonstration's people may do at NATS on the stack, beyond what the starter policy grants them.

With the auth callout a stranger cannot connect at all, and an agent cannot even publish what its policy does not grant it.
That is a fence before the gate. The scenes are about the gate: its decisions must be the same without a fence, as in the
development environment, and behind one that somebody has climbed. So these workloads, and no others, are let through the
fence by the policy's data; the fence itself has tests of its own (tests/integration/test_callout_permissions.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from sealbus.agents.dev.demo.backstage import change_document
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.policies.bundle.library import library_files

__all__ = ["OPENED", "open_fence"]

OPENED: Final = (
    "for the scenes, the workloads stranger and pricing may publish every task and call at NATS here, and operator read "
    "streams (role attacker, stage): this policy is for no other place"
)
"""What whoever starts the stack is told."""

_CLIMBED: Final = ["task.>", "call.>"]

_READ: Final = [
    subject
    for stream in (TASKS, EVENTS)
    for subject in (
        f"$JS.API.CONSUMER.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.CREATE.{stream}.*.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
    )
]


def open_fence(policy: Path) -> None:
    """Change roles and workloads in the policy folder: who attacks may publish, and the operator may read every stream."""

    def roles(document: dict[str, object]) -> None:
        operator = json.loads(library_files()["sealbus/lib/roles/data.json"])["operator"]
        document["attacker"] = {"publish": _CLIMBED, "subscribe": []}
        document["stage"] = {**operator, "publish": [*operator["publish"], *_READ, *_CLIMBED]}

    def workloads(document: dict[str, object]) -> None:
        for name, role in {"stranger": "attacker", "pricing": "attacker", "operator": "stage"}.items():
            document[f"spiffe://example.org/agent/{name}"] = {"role": role, "tenant": "default"}

    change_document(policy, "roles", roles)
    change_document(policy, "workloads", workloads)
