"""`python -m bench.audit_verify EXPORT ROOT`: verify in this process alone, and print its time and memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.export.trust_root import Root


def main() -> None:
    """Verify once, and assert that it passes, because a failing verification would be another measurement."""
    files, root = FolderFiles(Path(sys.argv[1])), Root.parse(Path(sys.argv[2]).read_bytes())
    started = time.process_time()
    report = verify_export(files, root, processes=1)
    seconds = time.process_time() - started
    assert report.passed, report.findings[:3]
    print(json.dumps({"seconds": seconds, "megabytes": _most_resident()}))


def _most_resident() -> float:
    """Return the largest resident size so far; `ru_maxrss` would be at least that of the parent process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


main()
