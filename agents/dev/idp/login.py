"""A login: its user, its client, its lifetime; and the pages to log in on (pure).

Pages are plain HTML, every value escaped, no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final
from urllib.parse import urlsplit

from sealbus.agents.dev.idp.registry import DemoUser

LONGEST_RESOURCE: Final = 256

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#1d2330}"
    "button,input{font:inherit;padding:.5rem .75rem;margin:.2rem 0;border:1px solid #8a93a6;border-radius:.4rem}"
    "button{display:block;width:100%;text-align:left;background:#f4f6fa;cursor:pointer}"
    "button:hover,button:focus{background:#e2e8f4}small{color:#5a6376}"
    ".warn{border-left:.3rem solid #c96a00;padding-left:.75rem}code{font-size:1.1em}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def valid_resource(resource: str) -> bool:
    """Return whether `resource` may be an audience: an absolute URI without a fragment (RFC 8707 section 2)."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        return False
    return (
        bool(parts.scheme and (parts.netloc or parts.path))
        and "#" not in resource
        and len(resource) <= LONGEST_RESOURCE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One login. Times are seconds since the Unix epoch; `expires_in` is the lifetime of its tokens."""

    user: DemoUser
    client_id: str
    scope: str
    audience: str
    session: str
    auth_time: int
    expires_in: int
    nonce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCode:
    """The login behind an authorization code; implements authlib's `AuthorizationCodeMixin`."""

    login: Login
    redirect_uri: str
    code_challenge: str = field(repr=False)
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        """Return the URI that the code was sent to."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """Return the requested scope."""
        return self.login.scope


@dataclass(slots=True, kw_only=True)
class DeviceLogin:
    """A device that waits for its user (RFC 8628). `login` is the user's login; `denied` is set if the user refused."""

    client_id: str
    user_code: str
    scope: str
    audience: str
    expires: int
    """In microseconds since the Unix epoch."""
    interval: int
    """Seconds required between two polls; grows by 5 with each early poll."""
    polled: int | None = None
    """The time of the last poll, in microseconds."""
    login: Login | None = None
    denied: bool = False

    @property
    def decided(self) -> bool:
        """Whether the user has answered, which happens once."""
        return self.denied or self.login is not None


def content_security_policy(*forms_lead_to: str) -> str:
    """Return the policy of a page: it loads and runs nothing, no frame may show it, its form leads only to these origins.

    Browsers also check a redirect after the form against `form-action`, so the client's own origin is needed.
    """
    targets = " ".join(("'self'", *forms_lead_to))
    return (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )


def users_page(
    *, action: str, hidden: Mapping[str, str], client: str, users: Iterable[DemoUser], device_code: str = ""
) -> str:
    """Return the page to choose a user on, for `client`; `device_code` is the code shown by a device."""
    fields = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in hidden.items())
    buttons = "".join(
        f'<button name="user" value="{escape(user.identifier)}">{escape(user.name)} '
        f"<small>{escape(user.identifier)}</small></button>"
        for user in users
    )
    check = (
        f"<p>Go on only if your device shows the code <code>{escape(device_code)}</code>.</p>" if device_code else ""
    )
    return _page(
        "Who are you today?",
        f"<p><b>{escape(client)}</b> asks who you are.</p>{check}"
        f'<form method="post" action="{escape(action)}">{fields}{buttons}'
        '<button name="deny" value="yes">Nobody: refuse</button></form>',
    )


def code_page(*, action: str, wrong: bool = False) -> str:
    """Return the page on which a person types the code that a device shows."""
    complaint = "<p><b>No device waits with this code.</b> It may have expired.</p>" if wrong else ""
    return _page(
        "Connect a device",
        f'{complaint}<form method="get" action="{escape(action)}">'
        '<label>The code that your device shows: <input name="user_code" autocomplete="off" required></label>'
        "<button>Go on</button></form>",
    )


def message_page(title: str, text: str) -> str:
    """Return a page with one message."""
    return _page(title, f"<p>{escape(text)}</p>")


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{body}"
        '<p class="warn"><small>This is the development identity provider of <code>sealbus dev</code>: there are no '
        "passwords, and its tokens are worth nothing elsewhere.</small></p></body></html>"
    )
