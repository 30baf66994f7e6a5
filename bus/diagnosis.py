"""Says in one line why a connection to NATS could not be made, and what to do about it."""

from __future__ import annotations

import socket
import ssl

from nats.errors import Error as NatsError

from sealbus.bus.tls import WrongPeer

__all__ = ["explain"]


def explain(url: str, own_id: str, error: BaseException) -> str:
    """Return one line for the operator: the server's address, what was wrong, what to look at."""
    return f"{url}: {_cause(own_id, error)}"


def _cause(own_id: str, error: BaseException) -> str:
    match error:
        case WrongPeer():
            return f"{_one_line(error.args[-1])}: is this the right server?"
        case ssl.SSLCertVerificationError():
            return (
                f"the server's certificate was not issued under the X.509 bundle of its trust domain, or has expired "
                f"({_one_line(getattr(error, 'verify_message', error))})"
            )
        case ssl.SSLError() if _is_clear_text(error):
            return 'the server does not start with TLS: it needs tls { handshake_first: true, min_version: "1.3" }'
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            return f"the server refused the certificate of {own_id} ({_one_line(error.reason)})"
        case ssl.SSLError():
            return f"TLS failed ({_one_line(error.reason or error)})"
        case ConnectionRefusedError():
            return "connection refused: is nats-server running there?"
        case socket.gaierror():
            return f"no such host ({_one_line(error.strerror)})"
        case TimeoutError():
            return "no answer in time"
        case NatsError() if "authorization" in str(error).lower():
            # The server says the same to whom it does not list, whom its auth callout refuses, and where that is silent.
            return (
                f"the server does not let {own_id} in: it lists no such user, or its auth callout refused it (see control's "
                "log) or did not answer (does `sealbus control run` with the role callout run?)"
            )
        case ConnectionResetError() | BrokenPipeError():
            return f"the server ended the connection: does it accept the certificate of {own_id}?"
        case OSError():
            return _one_line(error.strerror or error)
        case NatsError() if "empty response" in str(error):
            return f"the server ended the connection at once: does it accept the certificate of {own_id}?"
        case _:
            return _one_line(error)


def _is_clear_text(error: ssl.SSLError) -> bool:
    reason = error.reason or ""
    return any(hint in reason for hint in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET"))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
