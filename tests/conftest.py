"""Settings that hold for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# In CI a property test that fails must fail again when it is run again; elsewhere new examples are worth more.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
