"""Fixtures for the tests of a project, from its `sealbus.toml`: `bus` in memory, `live_bus` on a real NATS server.

They are there where pytest-asyncio is installed; pytest loads this wherever sealbus is, and without it nothing happens.
The agents are those under `[dev.agents]`, the policy is `dev.policy`; who has neither defines a fixture `bus` of their own.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("pytest_asyncio") is not None:
    from sealbus.pytest_fixtures import bus, live_bus

    __all__ = ["bus", "live_bus"]
