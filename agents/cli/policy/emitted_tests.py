"""Write the Rego tests of `sealbus policy backtest --emit-tests`, from the decisions that a backtest reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.backtest.recorded import Recorded
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.documents import InputDocument, canonical
from sealbus.policies.engines.open import bundle_of
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.past.rego_text import rego_files
from sealbus.policies.past.ways import Evaluate, Evaluation, Ways
from sealbus.policies.past.writing import is_writable, past_tests


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedTests:
    """The written tests: their folder, files and number, the decisions that they stand for, and those that they do not.

    `left_out` has numbers of decisions by reason. `unwritable` ways of deciding have no test, because no Rego file holds it.
    """

    folder: Path
    files: tuple[str, ...]
    tests: int
    decisions: int
    unwritable: int
    left_out: Mapping[str, int]


class Emitter:
    """Collects the ways in which the policy of `bundle` decides as recorded, and writes a test for each into `folder`.

    It belongs to the thread that made it, like its interpreter.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self._folder = folder
        self._evaluate = _asking(Interpreter(bundle.modules, canonical(bundle.data), cover=True))
        self._ways = Ways(self._evaluate)

    @classmethod
    async def open(cls, policy: Path, folder: Path) -> Self:
        """Return an emitter for `policy`, a policy folder or a bundle file.

        Raises `ConfigurationError` if `folder` is neither new nor empty, and what `bundle_of` raises.
        """
        bundle = await asyncio.to_thread(_bundle_for, policy, folder)
        return cls(bundle, folder)

    async def collect(self, decisions: AsyncIterable[Recorded]) -> AsyncIterator[Recorded]:
        """Yield `decisions` as they are, and collect how they are decided."""
        async for recorded in decisions:
            self._ways.add(recorded)
            yield recorded

    def write(self) -> EmittedTests:
        """Write the tests; raise `ConfigurationError` if that fails. Blocks."""
        tests = list(past_tests(self._ways, self._evaluate))
        writable = [test for test in tests if is_writable(test)]
        modules = tuple(rego_files(writable))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for module in modules:
                (self._folder / module.path).write_text(module.text, "utf-8")
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be written: {error.strerror}") from error
        left_out: Counter[str] = self._ways.left_out
        return EmittedTests(
            folder=self._folder,
            files=tuple(module.path for module in modules),
            tests=len(writable),
            decisions=self._ways.counts.total(),
            unwritable=len(tests) - len(writable),
            left_out={str(why): left_out[why] for why in sorted(left_out)},
        )


def _asking(interpreter: Interpreter) -> Evaluate:
    """Return what asks `interpreter`. It refers to nothing else: in a cycle, another thread might collect the interpreter."""

    def evaluate(rule: str, document: InputDocument) -> Evaluation:
        # Lines of an evaluation that failed are still there.
        interpreter.covered_lines()
        answer = interpreter.evaluate(rule, document)
        return Evaluation(answer, interpreter.covered_lines())

    return evaluate


def _bundle_for(policy: Path, folder: Path) -> Bundle:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: tests are written into a new folder")
    return bundle_of(policy)
