"""Access of scripts to the development IdP: a file in the state folder that only its owner can read."""

from __future__ import annotations

import base64
import http.client
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from sealbus.agents.dev.idp.registry import SCRIPTS
from sealbus.envelopes.errors import ConfigurationError

_SECONDS: Final = 5.0
_MOST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptAccess:
    """The IdP's address, and the secret for its script grant."""

    issuer: str
    secret: str = field(repr=False)


def write_access(path: Path, access: ScriptAccess) -> None:
    """Write `access` to `path`, which has mode 0600 from the start."""
    from sealbus.agents.files import PRIVATE, replace_file

    document = {"issuer": access.issuer, "secret": access.secret}
    replace_file(path, json.dumps(document).encode(), mode=PRIVATE)


def read_access(path: Path) -> ScriptAccess:
    """Read the file of `write_access`; raise `ConfigurationError` if it is missing, readable by others, or malformed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise ConfigurationError(f"{path}: it must be yours and readable for you only")
            document = json.loads(file.read(_MOST_BYTES))
        access = ScriptAccess(issuer=document["issuer"], secret=document["secret"])
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; is `sealbus dev` running?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path}: not a file of `sealbus dev`") from error
    parts = urlsplit(access.issuer)
    if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "::1"}:
        raise ConfigurationError(f"{path}: the issuer is not on loopback")
    return access


def fetch_token(access: ScriptAccess, parameters: Mapping[str, str]) -> dict[str, object]:
    """Request a token with `parameters`; return the IdP's answer, or raise `ConfigurationError` with its reason.

    Blocks for a few seconds at most. No proxy is used: the secret must not leave this machine.
    """
    parts = urlsplit(access.issuer)
    credentials = f"sealbus-token:{quote(access.secret, safe='')}"
    headers = {
        "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        body = urlencode({"grant_type": SCRIPTS, **{name: value for name, value in parameters.items() if value}})
        connection.request("POST", f"{parts.path}/token", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConfigurationError(
            f"the development IdP at {access.issuer} does not answer; is `sealbus dev` running?"
        ) from error
    finally:
        connection.close()
    if response.status != http.client.OK or not isinstance(answer, dict):
        why = answer.get("error_description") or answer.get("error") if isinstance(answer, dict) else ""
        raise ConfigurationError(f"the development IdP gives no token: {why or response.status}")
    return answer
