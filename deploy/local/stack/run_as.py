"""Processes of another user of the machine, which end when the one that started them does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from sealbus.envelopes.errors import ConfigurationError
from stack.roster import Workload

__all__ = ["run_as"]


def run_as(workload: Workload, command: Sequence[str]) -> list[str]:
    """Return what runs `command` as the user of `workload`; nothing but root can do so.

    The wish to be killed with one's parent is lost with a change of the user, and is made again after it.
    """
    if not workload.uid:
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError("there is no setpriv (util-linux), which runs each process of the stack as its user")
    user = [f"--reuid={workload.uid}", f"--regid={workload.gid}", "--clear-groups", "--pdeathsig=KILL"]
    return [setpriv, *user, "--", *command]
