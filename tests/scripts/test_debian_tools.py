"""What tests need of the distribution: got where it can be had, and named where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "debian_tools.sh"


def test_what_cannot_be_had_is_named(tmp_path: Path) -> None:
    """Here neither program is found, and the package manager can get nothing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mkdir", "id", "rm", "cp"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    (programs / "apt-get").write_text('#!/bin/sh\necho "$@" >> "$0.asked"\nexit 1\n')
    (programs / "apt-get").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), str(tmp_path / "tools")],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "tools" / "debian" / "missing").read_text().split() == ["prometheus", "chromium"]
    assert done.stderr.count("cannot be had here") == 2
    assert "prometheus" in (programs / "apt-get.asked").read_text()
