"""The file of stored logins: private, replaced as a whole, with one writer at a time among all processes of a user."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealbus.agents.files import PRIVATE, file_errors, replace_file
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens, is_token
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import ConfigurationError

_VERSION: Final = 1
_BYTES: Final = 4 << 20
_MOST: Final = 64
"""Logins in one file; each has two tokens of 16 KiB at most."""
_LOCK_SECONDS: Final = 30.0
"""Longer than a refresh, which holds the lock, can take."""
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLogin:
    """One login: its client, the resource of its tokens (`None`: chosen by the issuer), and its tokens."""

    issuer: str
    client_id: str
    resource: str | None
    tokens: Tokens

    @property
    def key(self) -> tuple[str, str, str | None]:
        """The key of the login: a new login with the same key replaces it."""
        return self.issuer, self.client_id, self.resource


def default_file(environment: Mapping[str, str]) -> Path:
    """Return `sealbus/logins.json` in the user's state folder: `XDG_STATE_HOME`, or `~/.local/state`."""
    named = Path(environment.get("XDG_STATE_HOME", ""))
    # A relative path is ignored (XDG Base Directory Specification).
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "sealbus" / "logins.json"


class LoginFile:
    """The logins in `path`. Raises `ConfigurationError` unless it is a private file of this user; links are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[KeptLogin, ...]:
        """Return the logins, none if there is no file. Blocks."""
        try:
            # A symbolic link is refused, and a FIFO does not block.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            self._check(descriptor)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(_BYTES + 1)
        finally:
            os.close(descriptor)
        logins = _logins(content) if len(content) <= _BYTES else None
        if logins is None:
            raise ConfigurationError(
                f"{self.path} is damaged, or of another version of sealbus: remove it, and log in again"
            )
        return logins

    def write(self, logins: Iterable[KeptLogin], *, now: int) -> None:
        """Replace the file by `logins`, without those that have ended by `now`; call it under `locked`. Blocks."""
        kept = [login for login in logins if login.tokens.refresh_token is not None or login.tokens.expires > now]
        if len(kept) > _MOST:
            raise ConfigurationError(f"{self.path} holds {_MOST} logins: end some by `sealbus logout`")
        document = {"v": _VERSION, "logins": [_entry(login) for login in kept]}
        with file_errors(f"{self.path} cannot be written"):
            # Durably: a rotated refresh token has no second copy.
            replace_file(self.path, json.dumps(document).encode("ascii"), mode=PRIVATE)

    @asynccontextmanager
    async def locked(self, within: float = _LOCK_SECONDS) -> AsyncGenerator[None, None]:
        """Hold the lock, which keeps other processes from writing; a missing folder is made with mode 0700.

        Raises `ConfigurationError` if another process holds the lock for longer than `within` seconds.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with file_errors(f"{lock} cannot be opened"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(lock, flags, 0o600)
        try:
            self._check(descriptor)
            await self._take(descriptor, within)
            yield
        finally:
            os.close(descriptor)

    async def _take(self, descriptor: int, within: float) -> None:
        end = asyncio.get_running_loop().time() + within
        # The kernel reports a free lock only to a call that blocks, and such a call has no timeout.
        while not _taken(descriptor):
            if asyncio.get_running_loop().time() >= end:
                raise ConfigurationError(f"{self.path} has been in use by another process for {within:g} s")
            await asyncio.sleep(_LOOK_SECONDS)

    def _check(self, descriptor: int) -> None:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ConfigurationError(f"{self.path} is not a regular file: remove it, or name another by client.logins")
        if about.st_uid != os.geteuid():
            raise ConfigurationError(f"{self.path} belongs to another user: name another by client.logins")
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise ConfigurationError(
                f"{self.path} can be read by others, who may have your tokens: end that login at the provider, and remove it"
            )


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _entry(login: KeptLogin) -> dict[str, object]:
    tokens = login.tokens
    return {
        "issuer": login.issuer,
        "client_id": login.client_id,
        "resource": login.resource,
        "scope": tokens.scope,
        "expires": tokens.expires,
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
    }


def _logins(content: bytes) -> tuple[KeptLogin, ...] | None:
    """Return the logins in a file's content; `None` for content that `LoginFile.write` does not write."""
    try:
        document = parse_object(content, depth=3)
    except ValueError:
        return None
    entries = document.get("logins")
    if document.keys() != {"v", "logins"} or document["v"] != _VERSION or type(entries) is not list:
        return None
    logins = [_login(entry) for entry in entries]
    good = tuple(login for login in logins if login is not None)
    return good if len(good) == len(logins) == len({login.key for login in good}) else None


def _login(entry: Json) -> KeptLogin | None:
    if type(entry) is not dict or entry.keys() != _KEYS:
        return None
    issuer, client_id, resource = entry["issuer"], entry["client_id"], entry["resource"]
    scope, expires = entry["scope"], entry["expires"]
    access, refresh = entry["access_token"], entry["refresh_token"]
    if type(issuer) is not str or type(client_id) is not str or not (resource is None or type(resource) is str):
        return None
    if type(scope) is not str or type(expires) is not int:
        return None
    if not is_token(access) or not (refresh is None or is_token(refresh)):
        return None
    try:
        PublicClient(issuer=issuer, client_id=client_id, resource=resource)
    except ConfigurationError:
        return None
    tokens = Tokens(access_token=access, refresh_token=refresh, scope=scope, expires=expires)
    return KeptLogin(issuer=issuer, client_id=client_id, resource=resource, tokens=tokens)


_KEYS: Final = frozenset({"issuer", "client_id", "resource", "scope", "expires", "access_token", "refresh_token"})
