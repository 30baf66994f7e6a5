"""Changing a document of the policy, as the scenes do."""

from __future__ import annotations

import json
from pathlib import Path

from sealbus.agents.dev.demo.backstage import change_document


def test_a_document_is_changed_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "sealbus" / "registry" / "revoked" / "data.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"users": {}, "sessions": {}}')

    def revoke(document: dict[str, object]) -> None:
        document["sessions"] = {"s-1": True}

    changed = change_document(tmp_path, "revoked", revoke)
    assert changed == {"users": {}, "sessions": {"s-1": True}}
    assert json.loads(path.read_text()) == changed
