"""Processes of another user of the machine, which end when the one that started them does."""

from __future__ import annotations

import os
import shutil

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["as_user"]


def as_user(uid: int | None, gid: int | None = None) -> tuple[str, ...]:
    """Return what goes before a command that is to run as user `uid` in group `gid`, which is `uid` unless said.

    Nothing for no user, or our own. All else takes root.
    """
    if uid is None or (uid == os.geteuid() and gid in (None, os.getegid())):
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError("there is no setpriv, which is part of util-linux, to run a program as another user")
    group = uid if gid is None else gid
    # The kernel forgets the wish to be killed with one's parent when the user changes, hence once more.
    return (setpriv, f"--reuid={uid}", f"--regid={group}", "--clear-groups", "--pdeathsig", "TERM", "--")
