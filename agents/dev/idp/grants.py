"""Two grants of the development IdP: code with PKCE, over authlib's own, and the one for scripts."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, Final, cast

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # authlib has no types
    InvalidRequestError,
    TokenEndpointMixin,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc7636.challenge import compare_s256_code_challenge  # type: ignore[import-untyped]  # authlib has no types

from sealbus.agents.dev.idp.clients import SCRIPTS, DevClient, valid_scope
from sealbus.agents.dev.idp.issuing import Issuing, checked_resource
from sealbus.agents.dev.idp.login import IssuedCode, Login

if TYPE_CHECKING:
    from sealbus.agents.dev.idp.oauth import TokenReply

__all__ = ["CodeGrant", "S256Only", "ScriptGrant"]

_TEXT: Final = re.compile(r"[\x21-\x7e]{1,128}")
_SECONDS: Final = re.compile(r"-?[0-9]{1,5}")


class S256Only(CodeChallenge):  # type: ignore[misc]  # authlib is not typed
    """PKCE by S256 for everybody: without a challenge, or with `plain`, there is no page and no code (RFC 9700)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS = {"S256": compare_s256_code_challenge}  # noqa: RUF012  authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Refuse an authorization request without a challenge by S256."""
        super().validate_code_challenge(grant, redirect_uri)
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("code_challenge with code_challenge_method=S256 is required")
        checked_resource(data)


class CodeGrant(Issuing, AuthorizationCodeGrant):  # type: ignore[misc]  # authlib is not typed
    """The authorization code flow of public clients."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    IDENTITY = True

    def generate_authorization_code(self) -> str:
        """Return 256 random bits."""
        return secrets.token_urlsafe(32)

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Keep what the code stands for."""
        data = request.payload.data
        self.server.codes.put(
            code,
            IssuedCode(
                login=cast("Login", request.user),
                redirect_uri=data["redirect_uri"],
                code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
            ),
        )

    def query_authorization_code(self, code: str, client: DevClient) -> IssuedCode | None:
        """Take the code: whoever shows it, rightly or wrongly, was the last one who could."""
        issued = self.server.codes.take(code)
        return issued if issued is not None and issued.login.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: IssuedCode) -> None:
        """Do nothing: it is gone since it was looked up."""

    def authenticate_user(self, authorization_code: IssuedCode) -> Login:
        """Return the login behind the code."""
        return authorization_code.login


class ScriptGrant(Issuing, TokenEndpointMixin):  # type: ignore[misc]  # authlib is not typed
    """A token of any user, for whoever holds the secret of the state folder: `sealbus token`."""

    GRANT_TYPE = SCRIPTS
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

    def validate_token_request(self) -> None:
        """Check the secret and what the token is to say."""
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError
        data: dict[str, str] = self.request.payload.data
        user = self.server.users.get(data.get("user", ""))
        if user is None:
            raise InvalidRequestError("there is no such user")
        texts = {name: data.get(name, "") for name in ("client", "session")}
        if any(value and not _TEXT.fullmatch(value) for value in texts.values()) or not valid_scope(
            data.get("scope", "")
        ):
            raise InvalidRequestError("client, session or scope is malformed")
        expires_in = data.get("expires_in", "900")
        if not _SECONDS.fullmatch(expires_in):
            raise InvalidRequestError("expires_in must be seconds")
        self.request.client = client
        self.request.user = self.server.login(
            user,
            client_id=texts["client"] or "dev",
            scope=data.get("scope", ""),
            audience=checked_resource(data),
            session=texts["session"],
            expires_in=int(expires_in),
        )

    def create_token_response(self) -> tuple[int, TokenReply, Any]:
        """Return the token."""
        return 200, self.generate_token(user=self.request.user), self.TOKEN_RESPONSE_HEADER
