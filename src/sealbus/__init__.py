"""Secure agent-to-agent messaging over NATS: who acts, for whom, whether it is allowed, and the evidence.

::

    from sealbus import Agent, Client, Context, Resource

The names are imported when they are first used, so that `sealbus --help` does not wait for them.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.agent import Agent
    from sealbus.agents.sdk.context import Context
    from sealbus.agents.sdk.gather import Gathered, gather
    from sealbus.agents.sdk.resource import Resource
    from sealbus.agents.sdk.task_handle import TaskHandle
    from sealbus.bus.routing.retry import Reject, Retry, RetryPolicy
    from sealbus.bus.sending.answer import CallExpired, RemoteError
    from sealbus.envelopes.errors import Denied, ResourceNotFound, SealbusError
    from sealbus.envelopes.message.declaration import Declaration

__all__ = [
    "Agent",
    "CallExpired",
    "Client",
    "Context",
    "Declaration",
    "Denied",
    "Gathered",
    "Reject",
    "RemoteError",
    "Resource",
    "ResourceNotFound",
    "Retry",
    "RetryPolicy",
    "SealbusError",
    "TaskHandle",
    "gather",
]

_HOMES = MappingProxyType(
    {
        "Agent": "sealbus.agents.sdk.agent",
        "CallExpired": "sealbus.bus.sending.answer",
        "Client": "sealbus.agents.runtime.client",
        "Context": "sealbus.agents.sdk.context",
        "Declaration": "sealbus.envelopes.message.declaration",
        "Denied": "sealbus.envelopes.errors",
        "Gathered": "sealbus.agents.sdk.gather",
        "Reject": "sealbus.bus.routing.retry",
        "RemoteError": "sealbus.bus.sending.answer",
        "Resource": "sealbus.agents.sdk.resource",
        "ResourceNotFound": "sealbus.envelopes.errors",
        "Retry": "sealbus.bus.routing.retry",
        "RetryPolicy": "sealbus.bus.routing.retry",
        "SealbusError": "sealbus.envelopes.errors",
        "TaskHandle": "sealbus.agents.sdk.task_handle",
        "gather": "sealbus.agents.sdk.gather",
    }
)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sealbus' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
