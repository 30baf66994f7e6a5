"""Where a test of a policy failed: the policy and its tests are asked again with prints in them, once a test has failed."""

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
"""Of a literal that are told."""


class FailedTests:
    """Tells of tests in `modules`, which passed the form checks, over `data` at which literal each came to an end."""

    def __init__(self, modules: Sequence[Module], data: dict[str, Json]) -> None:
        self._modules = modules
        self._data = data

    def describe_failure(self, package: str, name: str) -> str:
        """Return the place and the text of the literal that did not hold, empty where that cannot be told."""
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
            # Tests may print, and what they print would be taken for ours.
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
