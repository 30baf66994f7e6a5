"""The `sealbus` command. Subcommands are imported only when they are used, so that `--help` stays quick."""

from __future__ import annotations

from sealbus.agents.cli.main import main

__all__ = ["main"]
