"""The address of a client behind proxies, from `X-Forwarded-For`: a list to which each proxy adds whom it was asked by.

Only what the known proxies added is believed, so it is counted from the right; what stands left of it is the client's own
text, and not looked at. `Forwarded` (RFC 7239) is not read: a proxy that writes one of the two passes on what a client says
in the other.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import Code

_FIELD: Final = "x-forwarded-for"
_ENTRY: Final = re.compile(
    r"[ \t]*(?:(?P<v4>[0-9.]{7,15})(?::[0-9]{1,5})?|(?P<bare>[0-9A-Fa-f:.]{2,45})"
    r"|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?)[ \t]*"
)
"""An address, with or without a port; without a zone, which means nothing to anybody else."""


def client_address(headers: Headers, proxies: int) -> str:
    """Return the address that the outermost of `proxies` was asked by, at least one; raise 400 if they do not say.

    Such a request did not come through all of them. Were it taken as coming from its peer, a client that finds a way round a
    proxy would be counted as all the people behind it are, or they as one.
    """
    # Repeated fields are one list (RFC 9110 section 5.3). Its length is bounded with the head's.
    entries = ",".join(headers.getlist(_FIELD)).rsplit(",", proxies)[-proxies:]
    addresses = [_address(entry) for entry in entries]
    if len(addresses) < proxies or None in addresses:
        raise EdgeError(Code.MALFORMED, 400, f"X-Forwarded-For does not say what {proxies} proxies add to it")
    return str(addresses[0])


def _address(entry: str) -> str | None:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return None
    try:
        return str(ip_address(match["v4"] or match["bare"] or match["v6"]))
    except ValueError:
        return None
