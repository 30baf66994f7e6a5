"""The literal at which a test of a policy failed. After a failure, the policy and its tests run again with added prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.printable import printable
from sealbus.policies.decision.documents import canonical
from sealbus.policies.explain.rewriting import Rewritten, rewrite
from sealbus.policies.explain.trace import read_prints
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

CHARACTERS = 200
"""Most characters of a literal in a description."""


class FailedTests:
    """Describes the literal at which a test failed. The tests are in `modules`, which passed the form checks, over `data`."""

    def __init__(self, modules: Sequence[Module], data: dict[str, Json]) -> None:
        self._modules = modules
        self._data = data

    def describe_failure(self, package: str, name: str) -> str:
        """Return the place and the text of the literal that did not hold; empty if it is not known."""
        if self._printing is None:
            return ""
        written, interpreter = self._printing
        try:
            interpreter.evaluate(f"data.{package}.{name}", b"{}")
        except PolicyFailed:
            return ""
        finally:
            prints = interpreter.prints()
        rule = (*package.split("."), name)
        for body in read_prints(prints, written):
            if written.bodies[body.body].rule == rule:
                return _shown(written, (literal.site for literal in body.literals if literal.failed))
        return ""

    @cached_property
    def _printing(self) -> tuple[Rewritten, Interpreter] | None:
        try:
            written = rewrite(self._modules, self._data.keys())
            # Tests may print, and their texts would look like ours.
            if written.untraced:
                return None
            return written, Interpreter(written.modules, canonical(self._data), gather=True)
        except PolicyRefused:
            return None


def _shown(written: Rewritten, failed: Iterable[int]) -> str:
    for number in failed:
        site = written.sites[number]
        text = " ".join(site.written.split())
        cut = f"{text[:CHARACTERS]} ..." if len(text) > CHARACTERS else text
        return printable(f"line {site.line} does not hold: {cut}")
    return ""
