"""Policy: what is asked, what is answered, the engines that answer, and the bundles they decide by.

An engine is entered once and asked about documents, many at a time::

    async with EmbeddedEngine(Path("policy/bundle.tar.gz")) as engine:
        [answer] = await engine.decide([input_document(request)])
        allowed = isinstance(answer, Decision) and answer.allow is True

`EmbeddedEngine` decides in this process, `SidecarEngine` by OPA on a unix socket, `CentralEngine` by OPAs elsewhere over
mutual TLS; all give the same answers, for what they would decide otherwise is refused before a policy is in force
(`sealbus.policies.forms`). Import what an engine needs from its module: `sealbus.policies.embedded`, `sidecar`,
`central`, `bundle`, `opa_process`, `opa_admin`.
"""

from __future__ import annotations

from sealbus.policies.decision import Decision, parse_decision
from sealbus.policies.documents import InputDocument, checked_document
from sealbus.policies.engine import Answer, EngineStatus, PolicyEngine
from sealbus.policies.problems import PolicyRefused, Problem
from sealbus.policies.request import NO_USER, Request, Resource, User, input_document

__all__ = [
    "NO_USER",
    "Answer",
    "Decision",
    "EngineStatus",
    "InputDocument",
    "PolicyEngine",
    "PolicyRefused",
    "Problem",
    "Request",
    "Resource",
    "User",
    "checked_document",
    "input_document",
    "parse_decision",
]
