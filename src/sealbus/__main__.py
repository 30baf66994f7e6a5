"""`python -m sealbus` is the `sealbus` command."""

from __future__ import annotations

from sealbus.agents.cli import main

main()
