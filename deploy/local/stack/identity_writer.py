"""`sealbus identity write` as a process of the stack: the SVID of a server that speaks no SPIFFE."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sealbus.agents.identity import ENVIRONMENT_VARIABLE
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from stack.program import Program

__all__ = ["IdentityWriter"]


class IdentityWriter:
    """Keep the SVID of `spiffe_id` in `folder` fresh, from `async with` on; the first set is there once it is entered.

    `address` is the Workload API's. `pid_file` is the server's that is told to reload, if it has to be, `callout_health`
    the addresses of its auth callout's responders, if it has any. `also_trusted` is that of `SvidFiles`, and its warning
    holds. `uid` is the user that it runs as, by whom SPIRE knows it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str,
        spiffe_id: SpiffeId,
        pid_file: Path | None = None,
        callout_health: Sequence[str] = (),
        also_trusted: Sequence[TrustDomain] = (),
        uid: int | None = None,
    ) -> None:
        self.folder: Final = folder.absolute()
        self._uid = uid
        options = ["--id", str(spiffe_id)]
        if pid_file is not None:
            options += ["--reload", str(pid_file.absolute())]
        for url in callout_health:
            options += ["--callout-health", url]
        for domain in also_trusted:
            options += ["--also-trust", str(domain)]
        self.program: Final = Program(
            [sys.executable, "-m", "sealbus", "identity", "write", str(self.folder), *options],
            log=self.folder.parent / f"{self.folder.name}.err",
            healthy=self._written,
            environment={ENVIRONMENT_VARIABLE: address},
            uid=uid,
        )

    async def __aenter__(self) -> Self:
        """Start; raise `ConfigurationError`, one line, if there is no such identity."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._uid is not None:
            os.chown(self.folder, self._uid, self._uid)
        await self.program.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.program.stop()

    async def _written(self) -> bool:
        # Said by this process: files alone may be those of one before.
        return any(line.startswith("spiffe://") for line in self.program.said)
