"""Options that many commands have, worded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["as_option", "config_option", "json_option"]

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add `--config FILE`."""
    return click.option(
        "--config",
        default=None,
        metavar="FILE",
        help="Settings file; otherwise those of a running `sealbus dev`, or ./sealbus.toml.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(function)


def as_option(default: str) -> Callable[[F], F]:
    """Add `--as NAME`, the name of the workload whose Workload API socket is used."""
    return click.option(
        "--as",
        "as_name",
        default=default,
        show_default=True,
        metavar="NAME",
        help="Whose identity to use, where the settings' Workload API socket is one per name.",
    )
