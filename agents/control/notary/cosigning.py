"""Asks the witnesses of a policy to cosign the newest checkpoint of the log (C2SP tlog-witness), beside the notary's term.

::

    offer(checkpoint) --> each witness: old size, consistency proof, note --> cosignatures --> take() --> the folder
                               ^                    |
                               `-- 409: its size ---'

Witnesses answer while the term goes on: it signs and publishes whatever they do. A cosignature is verified before it counts.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx2

from sealbus.agents.identity.threads import in_thread
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.errors import ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.cosignature import verify_cosignatures
from sealbus.envelopes.log.note import NoteVerifier, base64_text, keep_signatures, parse_note, parse_number
from sealbus.envelopes.log.tiles import TiledTree, tile_reader
from sealbus.envelopes.log.witness_policy import PolicyWitness, WitnessPolicy, check_logs, open_cosigned

WITHIN: Final = 1.0
"""Seconds for the answers of all witnesses, as long as a checkpoint takes."""
LATEST: Final = 5.0
"""Seconds for them while there is no quorum."""
AGAIN: Final = 10.0
"""Seconds after which the witnesses are asked again about a checkpoint without a quorum."""
ANSWER_BYTES: Final = 32_768
"""Most bytes of an answer: a line of ML-DSA-44 has 3.3 kB, and a witness may cosign with several keys."""
_SIZE_BYTES: Final = 17
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "sealbus"}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_logger: Final = logging.getLogger(__name__)


class CosignedNote(NamedTuple):
    """The checkpoint's note as the log signed it, with the cosignatures that came, and whether they are a quorum."""

    signed: bytes
    cosigned: bytes
    quorum: bool


class _Refused(Exception):
    """A witness gives no cosignature. The text is for the operator's log."""


_FAILURES: Final = (
    _Refused,
    LogError,
    StateUnavailable,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    # What TLS and the client raise beside their own errors: a bad record after the handshake, for instance.
    OSError,
    ValueError,
    RuntimeError,
)
"""What a witness, or the way to it, may cause. None of it may end the notary."""


def load_policy(path: Path, origin: str, keys: tuple[NoteVerifier, ...]) -> WitnessPolicy:
    """Return the policy in the file `path`, whose logs are `keys`, which sign the log `origin`.

    Raises `ConfigurationError` for anything else, for a witness whose address is not https, or http on loopback, and for a
    quorum that the witnesses with an address cannot reach.
    """
    try:
        policy = WitnessPolicy.parse(path.read_bytes())
        check_logs(policy, origin, keys)
    except OSError as error:
        raise ConfigurationError(f"control.notary.witnesses {path}: {error.strerror}") from error
    except LogError as error:
        raise ConfigurationError(f"control.notary.witnesses {path}: {error.detail}") from error
    for witness in policy.witnesses:
        if witness.url and not _is_secure(witness.url):
            raise ConfigurationError(f"control.notary.witnesses {path}: the address of {witness.name} is not https")
    if not policy.has_quorum([witness.name for witness in policy.witnesses if witness.url]):
        raise ConfigurationError(f"control.notary.witnesses {path}: the witnesses with an address are no quorum")
    return policy


def _is_secure(address: str) -> bool:
    try:
        parts, _ = urlsplit(address), httpx2.URL(address)
        host, port = parts.hostname, parts.port
    except (httpx2.InvalidURL, ValueError):
        return False
    is_plain = parts.scheme == "http" and host in _LOOPBACK
    is_bare = parts.username is None and not parts.query and not parts.fragment
    return bool(host) and port != 0 and is_bare and (parts.scheme == "https" or is_plain)


class Cosigning:
    """Has the witnesses of `policy` cosign what is offered, the newest alone. `get` reads the log's files.

    `run` asks while a term lasts. What it finds is taken with `take` by the term, the only writer of the log's folder.
    """

    def __init__(self, policy: WitnessPolicy, *, counters: Counters, get: Callable[[str], bytes | None]) -> None:
        self._policy = policy
        self._counters = counters
        self._get = get
        self._sizes: dict[str, int] = {}
        """The size that each witness is known to have cosigned last."""
        self._offered = asyncio.Event()
        self._newest: tuple[Checkpoint, bytes] | None = None
        self._lines: tuple[bytes, dict[str, bytes]] = b"", {}
        """A note, and what each witness has cosigned of it."""
        self._found: dict[bool, CosignedNote] = {}
        """What was found last, with a quorum and without."""
        self._since: float | None = None
        """Since when the newest checkpoint has no quorum."""
        self._operator_log = OperatorLog(_logger)
        for witness in policy.witnesses:
            for outcome in ("cosigned", "failed"):
                counters.add("sealbus_notary_witness_answers_total", 0, witness=witness.name, outcome=outcome)
        counters.gauge("sealbus_notary_without_quorum_seconds", self._without_quorum)

    def offer(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Have the stored `checkpoint` cosigned, whose `note` has the log's own signatures alone."""
        self._newest = checkpoint, note
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self._offered.set()

    def take(self) -> CosignedNote | None:
        """Return what was found since the last call, what has a quorum first."""
        return self._found.pop(max(self._found)) if self._found else None

    @property
    def problem(self) -> str:
        """That the quorum fails, in a few words; empty if it does not."""
        return (
            "the quorum of witnesses has not cosigned the newest checkpoint" if self._without_quorum() > LATEST else ""
        )

    async def run(self) -> None:
        """Ask until cancelled; the next term offers its own checkpoints."""
        try:
            await self._run()
        finally:
            self._since = self._newest = None
            self._found.clear()
            self._offered.clear()

    async def _run(self) -> None:
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=60.0)
        async with httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            headers=_HEADERS,
            timeout=LATEST,
            limits=limits,
            # No cookie is kept: one witness could have the requests to another refused.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            trust_env=False,
        ) as client:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN if self._since is not None else None):
                        await self._offered.wait()
                self._offered.clear()
                if self._newest is not None:
                    await self._ask_all(client, *self._newest)

    def _without_quorum(self) -> float:
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

    async def _ask_all(self, client: httpx2.AsyncClient, checkpoint: Checkpoint, note: bytes) -> None:
        """Ask every witness that has an address, at once, and keep what they cosign."""
        if self._lines[0] != note:
            self._lines = note, {}
        lines = self._lines[1]
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def ask(witness: PolicyWitness) -> None:
            outcome = "failed"
            try:
                lines[witness.name] = await self._ask(client, witness, checkpoint, note)
                outcome = "cosigned"
            except _FAILURES as error:
                self._operator_log.warning("witness %s: %s", witness.name, str(error) or type(error).__name__)
            finally:
                self._counters.add("sealbus_notary_witness_answers_total", witness=witness.name, outcome=outcome)

        async with asyncio.TaskGroup() as group:
            asking = {
                group.create_task(ask(one), name=f"witness-{one.name}") for one in self._policy.witnesses if one.url
            }
            while asking and (left := began + (WITHIN if self._policy.has_quorum(lines) else LATEST) - loop.time()) > 0:
                done, asking = await asyncio.wait(asking, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    self._keep(checkpoint, note, lines)
            for task in asking:
                task.cancel()
        if self._policy.has_quorum(lines):
            # A checkpoint that was offered meanwhile has none yet.
            self._since = loop.time() if self._offered.is_set() else None

    def _keep(self, checkpoint: Checkpoint, note: bytes, lines: dict[str, bytes]) -> None:
        """Keep the note with what was cosigned so far, for the term to take."""
        cosigned = note + b"".join(lines[one.name] for one in self._policy.witnesses if one.name in lines)
        try:
            # As every reader will open it: nothing that a witness answers may spoil the log's own note.
            open_cosigned(cosigned, checkpoint.origin, tuple(self._log_keys()), self._policy)
        except LogError as error:
            self._operator_log.warning("what witnesses have cosigned is no note: %s", error)
            lines.clear()
            return
        if lines:
            quorum = self._policy.has_quorum(lines)
            self._found[quorum] = CosignedNote(note, cosigned, quorum)

    async def _ask(
        self, client: httpx2.AsyncClient, witness: PolicyWitness, checkpoint: Checkpoint, note: bytes
    ) -> bytes:
        """Return the signature lines of one witness. Raises `_Refused`, `LogError`, `StateUnavailable`, `HTTPError`."""
        old = self._sizes.get(witness.name, 0)
        # Twice: the second time with the size that the witness says.
        for _ in range(2):
            if old > checkpoint.size:
                # It may have said a wrong size: the next time it is asked again.
                self._sizes.pop(witness.name, None)
                raise _Refused(f"it has cosigned {old} entries, and the log has {checkpoint.size}")
            path = await in_thread(partial(self._proof, old, checkpoint.size))
            body = b"".join([b"old %d\n" % old, *(f"{base64_text(node)}\n".encode() for node in path), b"\n", note])
            status, answer = await _post(client, witness.url, body)
            if status == 200:
                # Its own line alone: whatever else it answers is not the log's.
                head = f"{parse_note(note).text}\n".encode()
                own = keep_signatures(head + answer, [witness.verifier])
                verify_cosignatures(parse_note(own), [witness.verifier])
                self._sizes[witness.name] = checkpoint.size
                return own.removeprefix(head)
            if status != 409 or len(answer) > _SIZE_BYTES:
                raise _Refused(f"status {status}")
            old = self._sizes[witness.name] = parse_number(answer.decode("ascii", "replace").strip("\n"), "size")
        raise _Refused("it says another size each time")

    def _proof(self, old: int, size: int) -> tuple[bytes, ...]:
        return TiledTree(size, tile_reader(self._get)).consistency(old) if 0 < old < size else ()

    def _log_keys(self) -> Iterator[NoteVerifier]:
        return (log.verifier for log in self._policy.logs)


async def _post(client: httpx2.AsyncClient, url: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body of the answer to a submission; raise `_Refused` for a body that is too long."""
    answer = bytearray()
    async with client.stream("POST", f"{url.rstrip('/')}/add-checkpoint", content=body) as response:
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) > ANSWER_BYTES:
                raise _Refused("its answer is too long")
        return response.status_code, bytes(answer)
