"""The three keys of a responder, in private files; made once per deployment by `sealbus control keygen`.

::

    issuer.seed   SA...   signs answers and user JWTs; the server's `auth_callout.issuer` is its public key
    xkey.seed     SX...   opens the server's requests; the server's `auth_callout.xkey`
    user.seed     SU...   how responders log in; the server's `auth_callout.auth_users`
    public.env            the three public keys, as variables for the server's configuration

Responders of one deployment share them. The holder of the issuer's seed can admit any connection with any permissions.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sealbus.agents.control.callout.nkeys import CurveKey, NkeyError, Prefix, SigningKey
from sealbus.agents.files import PRIVATE, PUBLIC, create_file, file_errors
from sealbus.envelopes.errors import ConfigurationError

ISSUER: Final = "issuer.seed"
XKEY: Final = "xkey.seed"
USER: Final = "user.seed"
PUBLIC_ENV: Final = "public.env"

_SEED_BYTES: Final = 256
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

K = TypeVar("K", SigningKey, CurveKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutKeys:
    """An account's signing key, a curve key and a user's signing key."""

    issuer: SigningKey
    xkey: CurveKey
    user: SigningKey

    def public(self) -> dict[str, str]:
        """Return the public keys by the names of the variables in the server's configuration."""
        return {
            "CALLOUT_ISSUER": self.issuer.public,
            "CALLOUT_USER": self.user.public,
            "CALLOUT_XKEY": self.xkey.public,
        }


def write_keys(folder: Path) -> CalloutKeys:
    """Make new keys and write them into `folder`, which is made with mode 0700; seeds have mode 0600.

    Raises `ConfigurationError` if one of the files exists or the folder is open to others: keys are never overwritten.
    """
    keys = CalloutKeys(
        issuer=SigningKey.generate(Prefix.ACCOUNT), xkey=CurveKey.generate(), user=SigningKey.generate(Prefix.USER)
    )
    lines = "".join(f"{name}={value}\n" for name, value in keys.public().items())
    with file_errors(f"{folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & _OTHERS:
            raise ConfigurationError(f"{folder} is open to others: chmod 700, or name a new folder")
        there = [name for name in (ISSUER, XKEY, USER, PUBLIC_ENV) if (folder / name).exists()]
        if there:
            raise ConfigurationError(f"{folder} holds {', '.join(there)} already: keys are never overwritten")
        create_file(folder / ISSUER, f"{keys.issuer.seed()}\n".encode(), mode=PRIVATE)
        create_file(folder / XKEY, f"{keys.xkey.seed()}\n".encode(), mode=PRIVATE)
        create_file(folder / USER, f"{keys.user.seed()}\n".encode(), mode=PRIVATE)
        create_file(folder / PUBLIC_ENV, lines.encode(), mode=PUBLIC)
    return keys


def load_keys(*, issuer: Path, xkey: Path, user: Path) -> CalloutKeys:
    """Read the seeds. Raises `ConfigurationError` for a file that is missing, open to others, or not such a seed."""
    return CalloutKeys(
        issuer=_load(issuer, lambda text: SigningKey.from_seed(text, Prefix.ACCOUNT)),
        xkey=_load(xkey, CurveKey.from_seed),
        user=_load(user, lambda text: SigningKey.from_seed(text, Prefix.USER)),
    )


def load_folder(folder: Path) -> CalloutKeys:
    """Read the seeds of a folder that `write_keys` has made. Raises as `load_keys` does."""
    return load_keys(issuer=folder / ISSUER, xkey=folder / XKEY, user=folder / USER)


def _load(path: Path, parse: Callable[[str], K]) -> K:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_SEED_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; `sealbus control keygen` makes the keys") from error
    if mode & _OTHERS:
        raise ConfigurationError(f"{path} is open to others: chmod 600")
    try:
        return parse(raw.decode("ascii").strip())
    except (NkeyError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error if isinstance(error, NkeyError) else 'not a seed'}") from None
