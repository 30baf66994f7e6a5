"""Log people in with a browser: authorization code with PKCE at the provider of the settings, for a token for the edge.

There are two cookies. The provider's redirect must carry the cookie of a login, which lasts minutes (Lax). No other site can
make a browser send the cookie of a session (Strict).
"""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sealbus.agents.console.pages.page_files import PAGE_HEADERS
from sealbus.agents.console.pages.sessions import (
    LOGIN,
    PENDING_LIFE,
    SESSION,
    LoginSeal,
    PendingLogin,
    Session,
    Sessions,
    cookie,
    cookie_value,
)
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.login.code_flow import authorization_page, new_secrets, tokens_for
from sealbus.agents.login.kept_login import FRESH, refreshed_tokens, revoke_tokens
from sealbus.agents.login.provider import LoginFailed, open_provider
from sealbus.agents.login.public_client import PublicClient
from sealbus.bus.ports import Clock
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND

MARK: Final = "x-sealbus-console"
"""A header field that every request for a change has. Pages of other sites cannot send it."""

_TO: Final = re.compile(r"/(?:[A-Za-z0-9_~-][A-Za-z0-9._~/-]{0,200})?")
"""The paths of the console to which a login may lead, without a query."""
RENEW_EVERY: Final = 5 * SECOND
"""Time between two tries to renew a session, for short-lived tokens and for a provider that is away."""
_ACR: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}(?: [\x21\x23-\x5b\x5d-\x7e]{1,256}){0,7}")
_AGE: Final = re.compile("[0-9]{1,9}")
_ENTERED: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Logged in</title>'
    '<meta http-equiv="refresh" content="0; url={to}"></head><body><p><a href="{to}">Go on</a></p></body></html>'
)


def check_own_page(request: Request) -> None:
    """Raise `EdgeError` (403) for a request for a change that does not come from a page of the console."""
    if MARK not in request.headers or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise EdgeError(Code.DENIED, 403, "this does not come from a page of the console")


class BrowserLogin:
    """The routes of a login. `origin` is the console's own, as browsers write it."""

    def __init__(
        self,
        client: PublicClient,
        sessions: Sessions,
        *,
        origin: str,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._client = client
        self._sessions = sessions
        self._seal = LoginSeal()
        self._redirect_uri = f"{origin}/callback"
        self._secure = origin.startswith("https:")
        self._clock = clock
        # Made once: loading the authorities takes longer than everything else in `GET /login`, which strangers may send.
        self._tls = tls or ssl.create_default_context()

    async def session(self, request: Request) -> Session:
        """Return the session of `request`, renewed if it is about to end. Raises `EdgeError` (401) without a session."""
        value = cookie_value(request.headers.get("cookie", ""), SESSION, secure=self._secure)
        session = self._sessions.of(value, now=self._clock()) if value else None
        if session is None:
            raise EdgeError(Code.LOGIN_REQUIRED, 401, "log in first")
        await self.renew(session)
        return session

    async def renew(self, session: Session) -> None:
        """Renew the tokens of `session` if they end soon and the provider issues new ones.

        Raises `EdgeError` (401) once the session has ended. If the provider cannot be reached, the session lasts as long as
        its access token.
        """
        async with session.renewing:
            token, now = session.tokens.refresh_token, self._clock()
            due = session.tokens.expires <= now + FRESH and session.renew_after <= now
            if due and token is not None and not session.ended:
                session.renew_after = now + RENEW_EVERY
                with suppress(LoginFailed):
                    scope = session.tokens.scope
                    tokens = await refreshed_tokens(self._client, scope, token, tls=self._tls, clock=self._clock)
                    if tokens is None:
                        session.ended = True
                    else:
                        session.tokens = tokens
        if not session.lives(self._clock()):
            raise EdgeError(Code.LOGIN_REQUIRED, 401, "the login has ended")

    async def begin(self, request: Request) -> Response:
        """`GET /login?to=/path`: send the browser to the provider; `acr` and `max_age` ask for another login (RFC 9470)."""
        query = request.query_params
        to, acr, age = query.get("to", "/"), query.get("acr"), query.get("max_age")
        if not _TO.fullmatch(to) or (acr and not _ACR.fullmatch(acr)) or (age and not _AGE.fullmatch(age)):
            raise EdgeError(Code.MALFORMED, 400, "to must be a path of the console, acr and max_age as in RFC 9470")
        client = replace(self._client, acr=acr or None, max_age=int(age) if age else None)
        verifier, state = new_secrets()
        async with open_provider(client, tls=self._tls) as provider:
            page = authorization_page(provider, redirect_uri=self._redirect_uri, state=state, verifier=verifier)
        value = self._seal.seal(PendingLogin(to=to, verifier=verifier, state=state, begun=self._clock()))
        seconds = PENDING_LIFE // SECOND
        answer = RedirectResponse(page, 303, headers=dict(PAGE_HEADERS))
        answer.headers.append("set-cookie", cookie(LOGIN, value, secure=self._secure, same_site="Lax", seconds=seconds))
        return answer

    async def end(self, request: Request) -> Response:
        """`GET /callback`: take the provider's answer, begin a session, and go to the page that the login began for."""
        value = cookie_value(request.headers.get("cookie", ""), LOGIN, secure=self._secure)
        login = self._seal.open(value, request.query_params.get("state", ""), now=self._clock())
        if login is None:
            raise EdgeError(Code.LOGIN_FAILED, 400, "this answer belongs to no login of this browser: log in again")
        async with open_provider(self._client, tls=self._tls) as provider:
            tokens = await tokens_for(
                provider,
                request.url.query,
                redirect_uri=self._redirect_uri,
                state=login.state,
                verifier=login.verifier,
                clock=self._clock,
            )
        former = cookie_value(request.headers.get("cookie", ""), SESSION, secure=self._secure)
        if former:
            self._sessions.end(former)
        session = self._sessions.begin(Session(tokens))
        # No redirect: a browser takes that as part of the provider's request, and would not send the new cookie.
        answer = Response(_ENTERED.format(to=login.to), 200, dict(PAGE_HEADERS), "text/html; charset=utf-8")
        answer.headers.append("set-cookie", cookie(SESSION, session, secure=self._secure, same_site="Strict"))
        answer.headers.append("set-cookie", cookie(LOGIN, "", secure=self._secure, same_site="Lax", seconds=0))
        return answer

    async def leave(self, request: Request) -> Response:
        """`POST /logout`: forget the session, and ask the provider to revoke its tokens.

        Raises `EdgeError` (403) as `check_own_page` does.
        """
        check_own_page(request)
        value = cookie_value(request.headers.get("cookie", ""), SESSION, secure=self._secure)
        session = self._sessions.end(value) if value else None
        if session is not None:
            with suppress(LoginFailed):
                async with open_provider(self._client, tls=self._tls) as provider:
                    await revoke_tokens(provider, session.tokens)
        answer = Response(b"{}", 200, dict(PAGE_HEADERS), "application/json")
        answer.headers.append("set-cookie", cookie(SESSION, "", secure=self._secure, same_site="Strict", seconds=0))
        return answer
