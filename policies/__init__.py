"""Policies: requests, decisions, the engines that decide, and the bundles by which they decide.

An engine is entered once, and decides on many documents at a time::

    async with EmbeddedEngine(Path("policy/bundle.tar.gz")) as engine:
        [answer] = await engine.decide([input_document(request)])
        allowed = isinstance(answer, Decision) and answer.allow is True

`EmbeddedEngine` decides in this process, `SidecarEngine` asks an OPA on a unix socket, and `CentralEngine` asks remote OPAs
over mutual TLS. All give the same answers, because forms that they would decide differently are refused before a policy is in
force (`sealbus.policies.lint.lint`). Import an engine from its module: `sealbus.policies.engines.embedded`,
`engines.sidecar`, `engines.central`, `bundle.files`, `opa.process`, `opa.admin`.
"""

from __future__ import annotations

from sealbus.policies.decision.decision import Decision, parse_decision
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.engine import Answer, EngineStatus, PolicyEngine
from sealbus.policies.decision.request import NO_USER, Caller, Request, Resource, User, input_document
from sealbus.policies.lint.module import PolicyRefused, Problem

__all__ = [
    "NO_USER",
    "Answer",
    "Caller",
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
