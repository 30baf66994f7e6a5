"""Wait until the Workload API gives a user its identity: entries reach a SPIRE agent some seconds after they are made.

Usage: served.py SOCKET UID SECONDS SPIFFE_ID ...; to ask as another user than one's own takes root.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.program import output_of

__all__ = ["until_served"]

_LOOK_AGAIN = 0.2
_MARGIN = 10.0


async def until_served(address: str, spiffe_ids: Iterable[SpiffeId], *, uid: int, seconds: float = 30.0) -> None:
    """Return once the Workload API at `address` gives user `uid` an X.509-SVID of each of `spiffe_ids`.

    Raises `ConfigurationError` with its last answer if it does not within `seconds`. A process is asked by its user, so
    that a process of that user has to ask: a small one is started.
    """
    await output_of(
        [sys.executable, "-m", "stack.served", address, str(uid), str(seconds), *map(str, spiffe_ids)],
        within=seconds + _MARGIN,
        environment={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def main(arguments: Sequence[str]) -> str | None:
    """Ask until the SPIFFE IDs are all in one answer; return what was said last if they never were."""
    address, uid, seconds, wanted = arguments[0], int(arguments[1]), float(arguments[2]), frozenset(arguments[3:])
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    until = time.monotonic() + seconds
    while True:
        said = _ask(address, wanted)
        if said is None or time.monotonic() > until:
            return said
        time.sleep(_LOOK_AGAIN)


def _ask(address: str, wanted: frozenset[str]) -> str | None:
    try:
        with WorkloadApiClient(address, default_timeout=_LOOK_AGAIN * 10) as client:
            missing = wanted - {str(svid.spiffe_id) for svid in client.fetch_x509_svids()}
    except PySpiffeError as error:
        return f"the Workload API at {address} gave nothing: {' '.join(str(error).split())[:300]}"
    return f"the Workload API at {address} did not give {', '.join(sorted(missing))}" if missing else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
