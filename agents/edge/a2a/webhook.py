"""Where clients want to be told of their tasks: URLs of theirs, which must lead out, and are told no more than a state.

A name is resolved for each notification, every address that it has is judged, and the connection goes to one that was
judged. No redirect is followed: it would be a request to where nobody looked.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2
from a2a.types import TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError

from sealbus.agents.edge.http.reachable import AddressRefused, Network, Resolve, address_of, resolve
from sealbus.agents.edge.oauth.issuers import is_secure_url

_logger: Final = logging.getLogger(__name__)

_URL_CHARACTERS: Final = 2_048
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_TOKEN: Final = re.compile(r"[!-~]{0,1024}")
_SCHEME: Final = re.compile(r"[A-Za-z0-9-]{1,32}")
_CREDENTIALS: Final = re.compile(r"[!-~](?:[ -~]{0,4094}[!-~])?")
_SECONDS: Final = 10.0
"""For one notification, name and all."""


def check_config(config: TaskPushNotificationConfig) -> None:
    """Raise `InvalidParamsError` for what cannot be a webhook, whatever its addresses are: its parts become header fields."""
    credentials = config.authentication
    if len(config.url) > _URL_CHARACTERS or not is_secure_url(config.url):
        raise InvalidParamsError("url must be an https URL without credentials and fragment")
    if not _ID.fullmatch(config.id):
        raise InvalidParamsError("id must be 1 to 64 letters, digits, and ._~-")
    if not _TOKEN.fullmatch(config.token):
        raise InvalidParamsError("token must be at most 1024 visible characters")
    if config.HasField("authentication") and not (
        _SCHEME.fullmatch(credentials.scheme) and _CREDENTIALS.fullmatch(credentials.credentials)
    ):
        raise InvalidParamsError("authentication needs a scheme and its credentials")


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """How webhooks are reached: at public addresses, or only in `networks` if there are any; `tls` verifies their servers."""

    networks: Sequence[Network] = ()
    tls: ssl.SSLContext
    resolving: Resolve = resolve

    async def check(self, url: str) -> None:
        """Raise `InvalidParamsError` if this is no address to be told at now."""
        try:
            async with asyncio.timeout(_SECONDS):
                await self._address(url)
        except (AddressRefused, TimeoutError) as error:
            raise InvalidParamsError("url: its host has no address that may be told") from error

    async def tell(self, config: TaskPushNotificationConfig, body: bytes) -> bool:
        """Send `body` and return whether it was taken, with a status of 2xx. What fails is logged without the URL."""
        try:
            async with asyncio.timeout(_SECONDS):
                status = await self._posted(config, body)
        except (AddressRefused, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            # The texts of these hold what the client said.
            _logger.warning("a webhook was not told: %s", type(error).__name__)
            return False
        if not httpx2.codes.is_success(status):
            _logger.warning("a webhook was not told: it answered %d", status)
            return False
        return True

    async def _address(self, url: str) -> tuple[str, int]:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return await address_of(parts.hostname or "", port, self.networks, resolving=self.resolving), port

    async def _posted(self, config: TaskPushNotificationConfig, body: bytes) -> int:
        parts = urlsplit(config.url)
        address, port = await self._address(config.url)
        at = f"[{address}]" if ":" in address else address
        fields = {
            "host": parts.netloc,
            "connection": "close",
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "sealbus",
        }
        if config.token:
            fields["x-a2a-notification-token"] = config.token
        if config.HasField("authentication"):
            fields["authorization"] = f"{config.authentication.scheme} {config.authentication.credentials}"
        request = httpx2.Request(
            "POST",
            f"{parts.scheme}://{at}:{port}{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}",
            headers=fields,
            content=body,
            # By the name, not the address, the certificate is verified.
            extensions={"sni_hostname": parts.hostname, "timeout": httpx2.Timeout(_SECONDS).as_dict()},
        )
        # One for each: to a pool, two hosts at one address are one.
        async with httpx2.AsyncHTTPTransport(verify=self.tls, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            await response.aclose()
            return response.status_code
