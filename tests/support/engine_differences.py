"""Generated policies, decided by the embedded engines and by a real OPA: what is admitted must be answered alike.

`python -m support.engine_differences --seconds 3600` in the folder tests, or `make policies-hour`. A seed that is printed
makes its policy, data and questions again: `--seed N --policies 1 --show`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from support.native_wheel import evaluated, has_wheel
from support.opa import OpaServer, require_opa
from support.policy_grammar import documents, policy, world

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.check import BATCH, DECISION, check_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.decision import parse_decision
from sealbus.policies.decision.documents import InputDocument, canonical
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

__all__ = ["Comparison", "compare"]

DOCUMENTS = 12
TOLD = 100
"""Policies after which the differences that they showed are printed."""
WORLDS = 40
"""Policies of neighbouring seeds that share their data."""

Said: TypeAlias = "tuple[bool, tuple[str, ...], str] | str"
"""A decision, or the word `none`: an error, nothing, or no decision. All of these deny."""


@dataclass(slots=True)
class Comparison:
    """What was found. `differences` hold seed, what differs, and what each engine said."""

    made: int = 0
    admitted: int = 0
    asked: int = 0
    allowed: int = 0
    none: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    differences: list[tuple[int, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of policies that are admitted."""
        return self.admitted / max(self.made, 1)


def compare(
    opa: OpaServer,
    seeds: Iterable[int],
    *,
    until: float = float("inf"),
    most: int = 20,
    found: Comparison | None = None,
) -> Comparison:
    """Compare the policies of `seeds` until the monotonic clock says `until`, or `most` differences are found.

    What is found is added to `found`, where one is given.
    """
    found = found or Comparison()
    shared: dict[int, dict[str, object]] = {}
    for seed in seeds:
        if time.monotonic() > until or len(found.differences) >= most:
            break
        found.made += 1
        data = world(seed // WORLDS)
        try:
            bundle = read_bundle(
                pack_bundle(
                    {"authz.rego": policy(seed).encode()},
                    {"world": data},
                    Manifest(revision="generated", roots=("sealbus", "world")),
                )
            )
            check_bundle(bundle)
        except PolicyRefused as refused:
            found.refusals.update({problem.form for problem in refused.problems})
            continue
        found.admitted += 1
        if shared.get(0) != bundle.data:
            opa.put_data(bundle.data)
            shared[0] = dict(bundle.data)
        _ask(found, opa, seed, bundle)
    return found


def _ask(found: Comparison, opa: OpaServer, seed: int, bundle: Bundle) -> None:
    asked = documents(seed, DOCUMENTS)
    found.asked += len(asked)
    here, together = _embedded(bundle, asked)
    native = _native(bundle, asked) if has_wheel() else here
    refused = opa.put_policy("generated", bundle.modules[0].text)
    if refused:
        found.differences.append((seed, f"OPA does not compile it: {refused}"))
        return
    there = _opa(opa, asked)
    for document, one, batched, own, other in zip(asked, here, together, native, there, strict=True):
        found.allowed += one != "none" and one[0] is True
        found.none += one == "none"
        if not one == batched == own == other:
            text = f"embedded {one}, in a batch {batched}, native {own}, OPA {other}, asked {document.decode()}"
            found.differences.append((seed, text))
            return


def _said(answer: object) -> Said:
    try:
        decision = parse_decision(answer, revision="", engine="", micros=0)
    except PolicyFailed:
        return "none"
    obligations = json.dumps([dict(one) for one in decision.obligations], sort_keys=True)
    return decision.allow, decision.reasons, obligations


def _embedded(bundle: Bundle, asked: Sequence[InputDocument]) -> tuple[list[Said], list[Said]]:
    interpreter = Interpreter(bundle.modules, canonical(bundle.data))

    def evaluate(rule: str, document: bytes) -> object:
        nonlocal interpreter
        try:
            return interpreter.evaluate(rule, document)
        except PolicyFailed as error:
            if interpreter.broken:
                interpreter = Interpreter(bundle.modules, canonical(bundle.data))
            return f"failed: {error.detail}"

    alone = [_said(evaluate(DECISION, document)) for document in asked]
    answers = evaluate(BATCH, b'{"batch":[' + b",".join(asked) + b"]}")
    # A batch that fails is asked again one by one.
    together = [_said(one) for one in answers] if isinstance(answers, list) and len(answers) == len(asked) else alone
    return alone, together


def _native(bundle: Bundle, asked: Sequence[InputDocument]) -> list[Said]:
    answers = evaluated(bundle.modules, canonical(bundle.data), DECISION, asked, batch=BATCH)
    return [_said(answer) for answer in answers]


def _opa(opa: OpaServer, asked: Sequence[InputDocument]) -> list[Said]:
    values = [json.loads(document) for document in asked]
    answers = opa.evaluate("sealbus.authz.batch", {"batch": values})
    if len(answers.get("value", ())) == len(values):
        return [_said(one) for one in answers["value"]]
    return [_said(opa.evaluate("sealbus.authz.decision", value).get("value")) for value in values]


def main(arguments: Sequence[str]) -> int:
    """Compare for some time and print what was found; 1 where anything differs or too little is admitted."""
    parser = argparse.ArgumentParser(prog="engine_differences", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--policies", type=int, default=1_000_000)
    parser.add_argument("--show", action="store_true", help="print the policies")
    given = parser.parse_args(arguments)
    version = subprocess.run([require_opa(), "version"], capture_output=True, check=True, text=True)
    _say(version.stdout.splitlines()[0].replace("Version:", "OPA"))
    _say("with the native engine" if has_wheel() else "without the native engine, which is not installed")
    started = time.monotonic()
    found = Comparison()
    end = given.seed + given.policies
    with OpaServer() as opa:
        while (seed := given.seed + found.made) < end and time.monotonic() < started + given.seconds:
            known = len(found.differences)
            compare(opa, range(seed, min(seed + TOLD, end)), until=started + given.seconds, most=1_000, found=found)
            for differing, text in found.differences[known:]:
                _say(f"seed {differing}: {text}")
    took = time.monotonic() - started
    if given.show:
        for seed in range(given.seed, given.seed + found.made):
            _say(f"# seed {seed}\n{policy(seed)}\n\n{json.dumps(world(seed // WORLDS), ensure_ascii=False)}\n")
    last = given.seed + found.made - 1
    _say(f"seeds {given.seed} to {last}, {took:.0f} s, {found.made / took:.1f} policies a second")
    _say(f"policies {found.made}, admitted {found.admitted} ({found.share:.0%}), refused for {dict(found.refusals)}")
    _say(f"questions {found.asked}, allowed {found.allowed}, without a decision {found.none}")
    _say(f"differences {len(found.differences)}")
    return 1 if found.differences or found.share < 0.5 else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
