"""The bundle that OPA gets: signed once, told apart by its ETag, and awaited by those who have it already."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from sealbus.envelopes.keys import SigningKey
from sealbus.policies.bundle_format import Bundle
from sealbus.policies.bundle_signing import sign_bundle

__all__ = ["COMPOSED", "Served"]

COMPOSED: Final = "sealbus"
"""Name of the composed bundle, and scope of its signature."""


class Served:
    """The newest composed bundle under the signature of `key`."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._changed = asyncio.Event()
        self._stopping = False
        self.raw = b""
        self.etag = ""
        """Of the content, whoever signed it: the same at every replica. Empty before there is a bundle."""
        self.revision = ""

    def put(self, bundle: Bundle) -> None:
        """Serve `bundle` from now on, and wake up who waits for it."""
        etag = f'"{bundle.digest.hex()}"'
        if etag == self.etag:
            return
        self.raw = sign_bundle(bundle, self._key, scope=COMPOSED).raw
        self.etag, self.revision = etag, bundle.revision
        self._wake()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopping = True
        self._wake()

    async def other_than(self, etag: str, seconds: float) -> bool:
        """Wait for at most `seconds` until something else than `etag` is served; tell whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.etag == etag and not self._stopping:
                    await self._changed.wait()
        return self.etag != etag

    def _wake(self) -> None:
        # A new event for who waits next: all who wait for this one have been told.
        self._changed.set()
        self._changed = asyncio.Event()
