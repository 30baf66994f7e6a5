"""Give a target the inputs in files: `PYTHONPATH=tests python -m fuzz.once TARGET FILE...`. A finding is a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz.loop import close
from fuzz.targets import target

if __name__ == "__main__":
    check = target(sys.argv[1])
    for path in sys.argv[2:]:
        check(Path(path).read_bytes())
    close()
