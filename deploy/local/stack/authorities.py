"""The signing authorities of a SPIRE server, changed by hand: prepared, used, and taken out of the bundle again."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from stack.spire_server import SpireServer

__all__ = ["Authorities", "Kind"]


class Kind(StrEnum):
    """What an authority signs."""

    X509 = "x509"
    JWT = "jwt"


class Authorities:
    """Those of one kind, by their IDs.

    The order that nobody notices: `prepare`, wait until the bundle is everywhere, `activate`, `taint` the one before,
    wait until every SVID is a new one, `revoke` it. An agent that hears of the end without having heard of the taint
    goes on giving out the JWT-SVIDs in its cache, up to half of their life, and no reader takes them.
    """

    def __init__(self, server: SpireServer, kind: Kind) -> None:
        self.kind: Final = kind
        self._server = server

    async def active(self) -> str:
        """Return the one that signs now."""
        said = await self._server.asked("localauthority", str(self.kind), "show")
        return str(said["active"]["authority_id"])

    async def prepare(self) -> str:
        """Make the next one: the trust bundle holds both, the old one signs."""
        said = await self._server.asked("localauthority", str(self.kind), "prepare")
        return str(said["prepared_authority"]["authority_id"])

    async def activate(self, authority: str) -> str:
        """Sign with `authority` from now on, and return the one before."""
        before = await self.active()
        await self._server.asked("localauthority", str(self.kind), "activate", "-authorityID", authority)
        return before

    async def taint(self, authority: str) -> None:
        """Have agents renew at once what `authority` signed; it still counts."""
        await self._server.asked("localauthority", str(self.kind), "taint", "-authorityID", authority)

    async def revoke(self, authority: str) -> None:
        """Take a tainted authority out of the bundle: what it signed counts no more."""
        await self._server.asked("localauthority", str(self.kind), "revoke", "-authorityID", authority)
