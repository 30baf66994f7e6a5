"""Keycloak for tests: the distribution that `make keycloak-test` unpacks, as a process on loopback with a realm of its own.

::

    with keycloak(lambda: spiffe_bundle(authority)) as provider:
        token = await provider.user_token("alice")
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from support.ports import held_port
from support.workload_api import short_folder
from support.x509 import self_signed

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority

__all__ = [
    "BRIEF_WEB",
    "CRM_API",
    "EDGE_API",
    "EXIT",
    "OTHER_WEB",
    "SHOP_WEB",
    "Keycloak",
    "keycloak",
    "require_keycloak",
    "spiffe_bundle",
]

_ROOT = Path(__file__).parents[2]
_REALM = _ROOT / "deploy" / "tools" / "keycloak" / "realm.json"
_INSTALLED = _ROOT / ".tools" / "keycloak"

EDGE_API: Final = "https://edge.example/api"
"""The audience of tokens of users of `SHOP_WEB`."""
CRM_API: Final = "crm-api"
"""The audience of tokens that the exit gets."""
EXIT: Final = "agent-exit"
"""The client that authenticates by the JWT-SVID of `spiffe://example.org/agent/exit`."""
SHOP_WEB: Final = "shop-web"
BRIEF_WEB: Final = "brief-web"
"""A client whose tokens live for a second."""
OTHER_WEB: Final = "other-web"
"""A client whose tokens are for somebody else."""
_CALLBACK: Final = "https://shop.example/callback"
_PASSWORD: Final = "for-tests-only"

_READY_SECONDS: Final = 150.0
_LOOK_EVERY: Final = 0.25
_SECONDS: Final = 60.0
"""Of one request: the first ones meet a server that is still compiling itself."""
_LOG_BYTES: Final = 4_000
"""How much of the log's end is shown if it does not start."""

_QUARKUS: Final = "io.quarkus.bootstrap"
# As bin/kc.sh has them, but for the second compiler, which costs more than it brings in a minute.
_JAVA: Final = (
    *("-Xms64m", "-Xmx512m", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"),
    *("--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED"),
    *("--add-opens=java.base/java.security=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"),
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Dpicocli.disable.closures=true",
    f"-Djava.util.concurrent.ForkJoinPool.common.threadFactory={_QUARKUS}.forkjoin.QuarkusForkJoinWorkerThreadFactory",
)


def require_keycloak() -> tuple[str, Path]:
    """Return java and the folder of Keycloak; without them skip the test, and name what is missing."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("there is no java, with which Keycloak runs")
    if not (_INSTALLED / ".ready").exists():
        missing = "Keycloak: `make keycloak-test` fetches it" if shutil.which("mvn") else "mvn, which fetches Keycloak"
        pytest.skip(f"there is no {missing}")
    (folder,) = _INSTALLED.glob("keycloak-*/")
    return java, folder


class Keycloak:
    """The running realm `shop` with alice, bob and carol, whose ids are their names."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.issuer = f"{origin}/realms/shop"
        self.token_endpoint = f"{self.issuer}/protocol/openid-connect/token"

    async def user_token(self, user: str, client: str = SHOP_WEB) -> str:
        """Log `user` in as a browser would: authorization code with PKCE, through the page of passwords."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
            page = await http.get(
                f"{self.issuer}/protocol/openid-connect/auth",
                params={
                    "client_id": client, "response_type": "code", "redirect_uri": _CALLBACK, "scope": "openid",
                    "state": "state-1", "code_challenge": challenge, "code_challenge_method": "S256",
                },
            )  # fmt: skip
            form = re.search(r'<form[^>]* action="([^"]+)"', page.text)
            assert form is not None, page.text
            # Its cookies are `Secure`, which browsers send to loopback also without TLS, and Python's jar does not.
            cookies = "; ".join(one.partition(";")[0] for one in page.headers.get_list("set-cookie"))
            answer = await http.post(
                unescape(form[1]), data={"username": user, "password": _PASSWORD}, headers={"Cookie": cookies}
            )
            assert answer.is_redirect, answer.text
            where = answer.headers["location"]
            assert where.startswith(_CALLBACK)
            said = await self.ask(
                {
                    "grant_type": "authorization_code", "code": parse_qs(urlsplit(where).query)["code"][0],
                    "client_id": client, "redirect_uri": _CALLBACK, "code_verifier": verifier,
                }
            )  # fmt: skip
        assert said.status_code == 200, said.text
        token: str = said.json()["access_token"]
        return token

    async def revoke(self, token: str, client: str) -> None:
        """Revoke a token of `client` (RFC 7009)."""
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
            url = f"{self.issuer}/protocol/openid-connect/revoke"
            answer = await http.post(url, data={"token": token, "client_id": client})
        assert answer.status_code == 200, answer.text

    async def ask(self, form: Mapping[str, str]) -> httpx2.Response:
        """Ask the token endpoint."""
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
            return await http.post(self.token_endpoint, data=dict(form))


def spiffe_bundle(authority: DevelopmentAuthority) -> bytes:
    """Return the JWT keys of an authority as a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4.2)."""
    keys = [{**one, "use": "jwt-svid"} for one in json.loads(authority.jwt_bundle())["keys"]]
    return json.dumps({"keys": keys}).encode()


@contextmanager
def keycloak(bundle: Callable[[], bytes]) -> Iterator[Keycloak]:
    """Run Keycloak; it finds the bundle of the trust domain example.org, whenever it looks, by `bundle`.

    It holds its data in memory and writes nothing into its installation, so that several may run at once.
    """
    java, installed = require_keycloak()
    with short_folder() as home, _bundle_endpoint(bundle, home / "endpoint.pem") as endpoint:
        realm = json.loads(_REALM.read_text())
        realm["identityProviders"][0]["config"]["bundleEndpoint"] = endpoint
        (home / "data" / "import").mkdir(parents=True)
        (home / "data" / "import" / "shop-realm.json").write_text(json.dumps(realm))
        (home / "lib").symlink_to(installed / "lib")
        shutil.copytree(installed / "conf", home / "conf")
        port = held_port()
        origin = f"http://127.0.0.1:{port}"
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    java, *_JAVA, f"-Dkc.home.dir={home}", f"-Djboss.server.config.dir={home / 'conf'}",
                    *("-cp", str(home / "lib" / "quarkus-run.jar"), f"{_QUARKUS}.runner.QuarkusEntryPoint"),
                    *("start", "--optimized", "--import-realm", "--cache=local", "--http-enabled=true"),
                    *("--http-host=127.0.0.1", f"--http-port={port}", f"--hostname={origin}"),
                    f"--truststore-paths={home / 'endpoint.pem'}",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            running = Keycloak(origin)
            _wait_for(process, running, home / "log")
            yield running
        finally:
            # Nothing of it is kept, so that it need not stop in good order, which takes seconds.
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], running: Keycloak, log: Path) -> None:
    """Return when the realm's metadata can be read."""
    deadline = time.monotonic() + _READY_SECONDS
    with httpx2.Client(timeout=_SECONDS, trust_env=False) as http:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if http.get(f"{running.issuer}/.well-known/openid-configuration").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(_LOOK_EVERY)
    raise AssertionError(f"Keycloak did not start: {log.read_bytes()[-_LOG_BYTES:].decode(errors='replace')}")


@contextmanager
def _bundle_endpoint(bundle: Callable[[], bytes], certificate: Path) -> Iterator[str]:
    """Serve the bundle over TLS (profile https_web), from a thread; its certificate is written to a file."""
    served, _ = self_signed()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bundle()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = served.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, name="bundle-endpoint", daemon=True)
        serving.start()
        try:
            port = int(server.server_address[1])
            certificate.write_text(ssl.get_server_certificate(("127.0.0.1", port), timeout=_SECONDS))
            yield f"https://127.0.0.1:{port}"
        finally:
            server.shutdown()
            serving.join()
