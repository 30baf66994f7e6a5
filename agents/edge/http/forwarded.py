"""The address of a client behind proxies, from `X-Forwarded-For`: a list to which each proxy adds the address of its peer.

Only the entries that the known proxies added are believed, so entries are counted from the right. Entries left of them are
text of the client, and are ignored. `Forwarded` (RFC 7239) is not read: a proxy that writes one of the two fields passes the
client's own text in the other on.
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
"""An address, with or without a port, and without a zone, which has a meaning only on its own host."""


def client_address(headers: Headers, proxies: int) -> str:
    """Return the address from which the outermost of `proxies` (at least one) got the request; raise 400 if it is missing.

    A request without enough entries did not pass all proxies. If it counted for its peer, a client that finds a way round a
    proxy would share the limits of all people behind that proxy.
    """
    # Repeated fields are one list (RFC 9110 section 5.3). Its length is bounded with the head's.
    entries = ",".join(headers.getlist(_FIELD)).rsplit(",", proxies)[-proxies:]
    addresses = [_address(entry) for entry in entries]
    if len(addresses) < proxies or None in addresses:
        raise EdgeError(Code.MALFORMED, 400, f"X-Forwarded-For does not hold the entries of {proxies} proxies")
    return str(addresses[0])


def _address(entry: str) -> str | None:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return None
    try:
        return str(ip_address(match["v4"] or match["bare"] or match["v6"]))
    except ValueError:
        return None
