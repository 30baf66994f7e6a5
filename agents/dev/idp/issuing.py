"""What all grants share: the check of a request's resource, and the token response of a login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc6749 import BaseGrant  # type: ignore[import-untyped]  # authlib has no types

from sealbus.agents.dev.idp.login import Login, valid_resource

if TYPE_CHECKING:
    from sealbus.agents.dev.idp.oauth import OAuthServer, TokenReply

__all__ = ["Issuing", "checked_resource"]


def checked_resource(data: dict[str, str]) -> str:
    """Return the resource that a request names, empty if none; raises authlib's error for what no audience can be."""
    resource = data.get("resource", "")
    if resource and not valid_resource(resource):
        raise OAuth2Error("resource must be an absolute URI without a fragment", error="invalid_target")
    return resource


class Issuing(BaseGrant):  # type: ignore[misc]  # authlib is not typed
    """Makes the token response of a login; `request.user` is one."""

    IDENTITY = False
    server: OAuthServer

    def generate_token(
        self,
        user: Login | None = None,
        scope: str | None = None,
        grant_type: str | None = None,
        expires_in: int | None = None,
        include_refresh_token: bool = False,
    ) -> TokenReply:
        """Return the token response of the login `user`; raise authlib's error if the request names another resource."""
        assert user is not None  # noqa: S101  authlib has asked `authenticate_user`
        asked = checked_resource(self.request.payload.data)
        if asked and asked != user.audience:
            raise OAuth2Error("resource is not the one that was asked for at first", error="invalid_target")
        return self.server.issue(user, identity=self.IDENTITY)
