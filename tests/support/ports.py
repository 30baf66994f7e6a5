"""A port for a server of a test, whatever other test processes do at the same time."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Final

from sealbus.agents.dev.held_port import held_port as _held_port

__all__ = ["held_port", "held_ports_in_a_row", "let_go"]

_held: Final = ExitStack()


def held_port() -> int:
    """Return a port of loopback that the system gives to nobody else; it is held until `let_go`, or the process's end.

    A server may listen on it, stop, and listen again. While none does, a connection is refused.
    """
    return _held.enter_context(_held_port())


def held_ports_in_a_row(count: int) -> int:
    """Return the first of `count` ports that follow each other, all held as by `held_port`."""
    while True:
        with ExitStack() as row, suppress(OSError):
            first = row.enter_context(_held_port())
            for number in range(1, count):
                row.enter_context(_held_port(first + number))
            _held.enter_context(row.pop_all())
            return first


def let_go() -> None:
    """End what holds ports: called when all tests of a file have ended, with their fixtures."""
    _held.close()
