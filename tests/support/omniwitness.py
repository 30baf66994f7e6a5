"""transparency-dev's omniwitness for tests: on a free port, with its memory in the process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from stack.tools import find_tool
from support.ports import held_port

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.cosignature import CosignatureSigner

__all__ = ["running_omniwitness"]

_WITHIN = 60.0


def _require_omniwitness() -> Path:
    """Return the program; without it skip the test, or fail it in CI."""
    try:
        return find_tool("omniwitness")
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@asynccontextmanager
async def running_omniwitness(
    folder: Path, logs: Mapping[str, str], signers: Sequence[CosignatureSigner]
) -> AsyncIterator[httpx2.AsyncClient]:
    """Run a witness of `logs`, their verifier keys by origin, that cosigns with `signers`; yield a client of it."""
    program, port, arguments = _require_omniwitness(), held_port(), list[str]()
    for number, signer in enumerate(signers):
        file = folder / f"omniwitness-{number}.key"
        file.write_text(signer.secret_text())
        arguments.append(f"--private_key_path={file}")
    entries = [
        f'  - Origin: "{origin}"\n    URL: "http://127.0.0.1:1/{number}"\n    PublicKey: "{key}"\n    Feeder: none\n'
        for number, (origin, key) in enumerate(logs.items())
    ]
    (folder / "logs.yaml").write_text(f"Logs:\n{''.join(entries)}")
    output = (folder / "omniwitness.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        program,
        f"--listen=127.0.0.1:{port}",
        "--metrics_listen=",
        f"--additional_logs={folder / 'logs.yaml'}",
        *arguments,
        stdout=output,
        stderr=output,
    )
    output.close()
    try:
        async with (
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_WITHIN, trust_env=False) as client,
            asyncio.timeout(_WITHIN),
        ):
            while True:
                try:
                    await client.get("/")
                    break
                except httpx2.TransportError:
                    assert process.returncode is None, (folder / "omniwitness.log").read_text()
                    await asyncio.sleep(0.05)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_WITHIN, trust_env=False) as client:
            yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
