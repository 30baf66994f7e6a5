"""NATS on top of the connection: the JetStream API, publishing, pull consumers, acknowledgements, readers, subscriptions.

The package `nats` imports aiohttp for WebSockets, which are not spoken here, and goes without where there is none. So it gets
none: with aiohttp a command would take a quarter longer to start.
"""

from __future__ import annotations

import importlib
import sys

if "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # how Python says that a module is not there
    try:
        importlib.import_module("nats.aio.transport")
    finally:
        del sys.modules["aiohttp"]
