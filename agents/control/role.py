"""What a role of the control process is: something that runs until it is cancelled, and can say what is wrong with it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sealbus.agents.settings import Settings
    from sealbus.bus.counters import Counters

__all__ = ["Opener", "Role"]


class Role(Protocol):
    """One part of the control process, entered already."""

    @property
    def problem(self) -> str:
        """Why this role cannot do its work now, in a few words without content; empty where it can."""
        ...

    async def run(self) -> None:
        """Do the role's work until cancelled. Raises where no further try can help: the process then ends."""


class Opener(Protocol):
    """Opens a role by the settings: connections, keys and files are there once it is entered, and closed afterwards."""

    def __call__(self, settings: Settings, *, counters: Counters) -> AbstractAsyncContextManager[Role]:
        """Return the role to enter, which raises `SealbusError` with one line for what is missing."""
        ...
