"""OPA's own compiler checks a policy before it reaches an OPA. Only it finds some problems, mainly of types.

The embedded engine accepts some of these problems (`lint.lint` has the list). So a team could push a part that every
embedded engine accepts and every OPA refuses. OPA would then refuse each later composition, and so every team's changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.lint.module import PolicyRefused, Problem

DEADLINE: Final = 30.0
_VARIABLE: Final = "SEALBUS_OPA"


def find_opa(chosen: Path | None = None, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the executable `chosen`, else that of SEALBUS_OPA, else `opa` on PATH; None if there is none."""
    environment = os.environ if environment is None else environment
    named = environment.get(_VARIABLE) or shutil.which("opa", path=environment.get("PATH"))
    return chosen or (Path(named) if named else None)


def opa_check(bundle: Bundle, opa: Path, *, deadline: float = DEADLINE) -> None:
    """Raise `PolicyRefused`, with file and line, for a bundle that the executable `opa` would not put in force.

    Blocks for a tenth of a second, at most `deadline`. Raises `ConfigurationError` for an executable that cannot be run,
    fails or does not end.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bundle.tar.gz"
        file.write_bytes(bundle.raw)
        done = run_opa(opa.absolute(), "check", "--bundle", str(file), "--format", "json", deadline=deadline)
    if done.returncode:
        raise PolicyRefused(_problems(done.stdout + done.stderr, str(opa)))


def run_opa(
    opa: Path, command: str, *arguments: str, deadline: float, folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `opa command` in `folder`; raise `ConfigurationError` if it cannot be run or does not end. Blocks."""
    try:
        # The executable is the operator's own choice; no shell reads the arguments.
        return subprocess.run(  # noqa: S603  see above
            [str(opa), command, *arguments], cwd=folder, capture_output=True, timeout=deadline, check=False
        )
    except OSError as error:
        raise ConfigurationError(f"{opa} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"opa {command} did not end within {deadline:g} s") from error


def _problems(output: bytes, opa: str) -> list[Problem]:
    try:
        report = json.loads(output)
        return [_problem(error) for error in report["errors"]] or [_problem({})]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(output.decode(errors="replace").split())[:500]
        raise ConfigurationError(f"{opa} check failed: {text}") from error


def _problem(error: Mapping[str, object]) -> Problem:
    location = error.get("location")
    place = location if isinstance(location, dict) else {}
    row, column = place.get("row"), place.get("col")
    return Problem(
        file=str(place.get("file") or "the bundle"),
        line=row if isinstance(row, int) else 0,
        column=column if isinstance(column, int) else 0,
        form="opa",
        text=str(error.get("message", "refused")),
    )
