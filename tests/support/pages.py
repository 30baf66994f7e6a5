"""Examples of a page of docs/, by the name that stands before each: `<!-- example: NAME -->`."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

from sealbus.agents.runtime.settings.schema import EdgeTable
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.bundle.files import STARTER

__all__ = ["Page"]

_DOCS = Path(__file__).parents[2] / "docs"


class Page:
    """The page `name`, whose examples tests run."""

    def __init__(self, name: str) -> None:
        self._text = (_DOCS / name).read_text(encoding="utf-8")

    def example(self, name: str) -> str:
        """Return the block of an example."""
        block = rf"^<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)^```$"
        [found] = re.findall(block, self._text, re.MULTILINE | re.DOTALL)
        return str(found)

    def edge(self, name: str, **issuers: str) -> EdgeTable:
        """Return the settings of an example for an edge on loopback, with the issuers that stand there replaced by ours.

        Their tokens are signed with ES256, whatever the real ones do.
        """
        table = tomllib.loads(self.example(name))["edge"]
        for row in table["issuers"]:
            row["issuer"] = issuers[row["issuer"].partition("://")[2].replace(".", "_").replace("-", "_")]
            row["algorithms"] = ["ES256"]
        listeners = {"address": "127.0.0.1:0"} | ({"token_service": "127.0.0.1:0"} if "token_service" in table else {})
        return EdgeTable.model_validate({"actions": ["inventory.*"], **table, **listeners})

    def policy(self, folder: Path, document: str, name: str) -> Path:
        """Return the starter policy in a new `folder`, with the example added to a document of its registry."""
        shutil.copytree(STARTER, folder)
        file = folder / "sealbus" / "registry" / document / "data.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | json.loads(self.example(name))))
        return folder

    def is_record_of(self, name: str, record: DecisionRecord, *, issuer: str) -> bool:
        """Return whether the user of a decision is the one of an example, but for `issuer` and the transaction."""
        assert record.input is not None
        user: dict[str, Any] = json.loads(record.input)["context"]["user"]
        expected = json.loads(self.example(name))
        del user["txn"]
        assert list(user) == list(expected), "another order"
        return bool(user == expected | {"idp": issuer})
