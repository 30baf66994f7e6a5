"""What a handler of the MCP server knows of who asks: the HTTP request, its verified token, what the client can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from sealbus.agents.edge.oauth.tokens.access_token import AccessToken

TOKEN: Final = "sealbus.mcp.token"
"""Key of the request's scope that holds the contents of its access token."""
TASKS: Final = "io.modelcontextprotocol/tasks"
"""The extension by which a call comes back as a task."""

Context = ServerRequestContext[Any, Any]


class Caller(NamedTuple):
    """One request. `modern` is of the protocol without sessions, where questions to the person are results."""

    request: Request
    token: AccessToken
    modern: bool
    tasks: bool
    form: bool
    """Whether the client can ask its person a question."""
    url: bool
    """Whether it can send them to a page."""

    @classmethod
    def of(cls, context: Context) -> Caller:
        """Return what is known of a request that came through our endpoint."""
        request = context.request
        if not isinstance(request, Request):  # every message comes in a request of its own
            raise TypeError("no HTTP request")
        capabilities = context.session.client_capabilities
        extensions: Mapping[str, Any] = (capabilities.extensions if capabilities is not None else None) or {}
        elicitation = capabilities.elicitation if capabilities is not None else None
        url = elicitation is not None and elicitation.url is not None
        return cls(
            request=request,
            token=request.scope[TOKEN],
            modern=context.protocol_version in MODERN_PROTOCOL_VERSIONS,
            tasks=TASKS in extensions,
            # One that names no mode means forms, as clients did before there were others.
            form=elicitation is not None and (elicitation.form is not None or not url),
            url=url,
        )
