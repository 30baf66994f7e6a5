"""Notaries as processes of their own, to be killed: `python notary_process.py SETTINGS`, then one line of any text each.

Each line starts one more notary as a fork of this process, which has loaded everything and connected to nothing; its
process id is answered. Starting one takes a twentieth of what a new interpreter takes, so that many can be killed.
When its input ends, it ends, after the notaries that still run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

# What a notary needs, loaded before it is forked.
from sealbus.agents.control.notary import open_notary
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.bus.nats.transport import NatsTransport

__all__: list[str] = []

LOADED = (WorkloadIdentity, NatsTransport)


async def keep(settings: Path) -> None:
    async with open_notary(load_settings(settings)) as notary:
        await notary.run()


def serve(settings: Path) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
                asyncio.run(keep(settings))
            except BaseException as error:  # noqa: BLE001  a fork must not return into what it was forked from
                sys.stderr.write(f"{error!r}\n")
            finally:
                os._exit(status)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"ended {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
