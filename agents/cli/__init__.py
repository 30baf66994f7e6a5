"""The `sealbus` command. Subcommands are imported when they are asked for, so that `--help` stays quick."""

from __future__ import annotations

from sealbus.agents.cli.main import main

__all__ = ["main"]
