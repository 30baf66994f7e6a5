"""`python -m bench.audit_verify EXPORT ROOT`: verify in this process alone, and print its own time and memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verification import verify_export
from sealbus.envelopes.export.root import Root


def main() -> None:
    """Verify once; that it passes is asserted, since what does not is not what is measured."""
    files, root = FolderFiles(Path(sys.argv[1])), Root.parse(Path(sys.argv[2]).read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    report = verify_export(files, root, processes=1)
    seconds = time.process_time() - started
    assert report.passed, report.findings[:3]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "megabytes": after / 1024, "grown": (after - before) / 1024}))


main()
