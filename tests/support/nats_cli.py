"""The real `nats` command line for tests: built by `make tools`, with a workload's SVID and nothing else to log in with."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.x509 import IssuedSvid, ThrowawayCa

__all__ = ["NatsCli", "Said", "find_nats_cli", "require_nats_cli"]

_BUILT = Path(__file__).parents[2] / ".tools" / "bin" / "nats"
_SECONDS = 60.0


def find_nats_cli() -> Path | None:
    """Return the executable: that of `make tools`, or on PATH; None where there is none."""
    if _BUILT.exists():
        return _BUILT
    found = shutil.which("nats")
    return Path(found) if found is not None else None


def require_nats_cli() -> Path:
    """Return the executable; without one skip the test, or fail it in CI."""
    found = find_nats_cli()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no nats: `make tools` builds it")
    pytest.skip("there is no nats: `make tools` builds it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one command came to."""

    code: int
    text: str

    @property
    def violation(self) -> bool:
        """Whether the server refused a subject."""
        return "permissions violation" in self.text.lower()


class NatsCli:
    """`nats` for one workload: its certificate, the CA of the server's, its own inbox prefix."""

    def __init__(self, url: str, folder: Path, *, ca: ThrowawayCa, svid: IssuedSvid, inbox: str) -> None:
        self._program = require_nats_cli()
        self._home = folder / f"nats-{svid.certificate.serial_number}"
        self._home.mkdir(mode=0o700)
        certificate, key, bundle = (self._home / name for name in ("svid.pem", "svid.key", "ca.pem"))
        certificate.write_bytes(svid.cert_pem)
        key.write_bytes(svid.key_pem)
        bundle.write_bytes(ca.cert_pem)
        self._flags = (
            f"--server={url}",
            f"--tlscert={certificate}",
            f"--tlskey={key}",
            f"--tlsca={bundle}",
            "--tlsfirst",
            f"--inbox-prefix={inbox.rstrip('.')}",
            "--timeout=1s",
        )

    async def run(self, *words: str, stdin: bytes = b"") -> Said:
        """Run one command to its end; one that has none is ended after `--timeout` by itself, or after 20 s by us."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *self._flags,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(self._home), "PATH": ""},
        )
        try:
            async with asyncio.timeout(_SECONDS):
                out, _ = await process.communicate(stdin)
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Said(code=process.returncode, text=out.decode(errors="replace"))
