"""A short run of the fuzzer: the parsers of messages have no finding in it, and a fault that is planted is one."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzz.run import ROOT, fuzz, repeat
from fuzz.targets import CORPUS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("atheris") is None, reason="there is no atheris: `make setup` installs it on Linux"),
]

SECONDS = 1


@pytest.mark.parametrize("name", ["messages.signed_header", "records.signed_body"])
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, SECONDS, cache=tmp_path)
    assert outcome.finding is None
    assert outcome.executions > len(list((CORPUS / name).iterdir()))
    assert outcome.after >= outcome.before > 100


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    seeds = tmp_path / "corpus" / "planted.header"
    seeds.mkdir(parents=True)
    for path in (CORPUS / "messages.header").iterdir():
        (seeds / path.name).write_bytes(path.read_bytes())
    outcome = fuzz("planted.header", 60, cache=tmp_path)
    assert outcome.finding is not None
    assert outcome.finding.is_file()
    command = repeat("planted.header", outcome.finding)
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "IndexError: planted" in done.stderr
