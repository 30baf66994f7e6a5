"""Who asks, as a handler of the A2A server knows them: the request, its verified token, and what they were refused."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from starlette.requests import Request

from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.call_routes import connected
from sealbus.envelopes.errors import SealbusError

__all__ = ["DOOR_NAME", "VERSION_FIELD", "Principal", "principal_of"]

DOOR_NAME: Final = "a2a"
VERSION_FIELD: Final = "a2a-version"


@dataclass(eq=False)
class Principal(User):
    """One request. `refused` is why it was not done, where that is more than an error of A2A can say.

    `watched` says that a client that goes away has to be looked for: gRPC cancels by itself.
    """

    request: Request
    token: AccessToken = field(repr=False)
    watched: bool = True
    refused: SealbusError | None = None

    @property
    def is_authenticated(self) -> bool:
        """Whether the token was verified: it always was."""
        return True

    @property
    def user_name(self) -> str:
        """The user is known by issuer and subject, and by nothing that could be shown to others."""
        return ""

    @property
    def request_id(self) -> str:
        """The id of the request, as its answer tells it."""
        number: bytes = self.request.scope[REQUEST_ID]
        return number.hex()

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Return a block that ends once the client has gone away."""
        return connected(self.request) if self.watched else nullcontext()

    def context(self) -> ServerCallContext:
        """Return what the package is told of the request: the version that its client speaks, and no token."""
        version = self.request.headers.get(VERSION_FIELD, "")
        return ServerCallContext(user=self, state={"headers": {VERSION_FIELD: version}})


def principal_of(context: ServerCallContext) -> Principal:
    """Return who asks; raise `TypeError` for a request that did not come through our endpoint."""
    if not isinstance(context.user, Principal):
        raise TypeError("not a request of ours")
    return context.user
