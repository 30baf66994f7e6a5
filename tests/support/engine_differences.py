"""Generated policies, decided by the embedded engines and by a real OPA: what is admitted must be answered alike.

Two generators take turns: whole policies (`policy_grammar`), and calls of everything that is admitted with values at the
edges (`edge_policies`). What the native engine decided is also decided again, as `audit verify` does. A decision that an
export holds must follow from its input and policy, on a machine without the wheel.

`python -m support.engine_differences --seconds 3600` in the folder tests, or `make policies-hour`. A seed that is printed
makes its policy, data and questions again: `--seed N --policies 1 --show`, with `--only` and the generator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from support.edge_policies import edge_documents, edge_policy
from support.native_wheel import evaluated, has_wheel
from support.opa import OpaServer, require_opa
from support.policy_grammar import documents, policy, world

from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.backtest import reproduce
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.check import BATCH, DECISION, check_bundle
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.decision import Decision, obligations_json, parse_decision
from sealbus.policies.decision.documents import InputDocument, canonical
from sealbus.policies.engines.open import open_policy
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

__all__ = ["Comparison", "compare", "compare_edges"]

DOCUMENTS = 12
TOLD = 20
"""Policies of one generator before the other has its turn, and before the differences are printed."""
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
    verified: int = 0
    """Decisions of the native engine that were decided again as `audit verify` does."""
    refusals: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    """Admitted calls at the edges, by builtin or operator; `refused_calls` are the others."""
    refused_calls: Counter[str] = field(default_factory=Counter)
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
        _ask(found, opa, seed, bundle, documents(seed, DOCUMENTS))
    return found


def compare_edges(
    opa: OpaServer,
    seeds: Iterable[int],
    *,
    until: float = float("inf"),
    most: int = 20,
    found: Comparison | None = None,
) -> Comparison:
    """Compare as `compare` does the policies that call everything at the edges; a call that is refused is left out."""
    found = found or Comparison()
    opa.put_data({})
    for seed in seeds:
        if time.monotonic() > until or len(found.differences) >= most:
            break
        found.made += 1
        policy = edge_policy(seed)
        bundle = None
        while bundle is None and policy.calls:
            packed = pack_bundle(
                {"authz.rego": policy.text().encode()}, {}, Manifest(revision="generated", roots=("sealbus",))
            )
            try:
                check_bundle(read_bundle(packed))
                bundle = read_bundle(packed)
            except PolicyRefused as refused:
                found.refusals.update({problem.form for problem in refused.problems})
                if not policy.without(refused.problems):
                    raise
        found.refused_calls.update(policy.refused)
        if bundle is not None:
            found.admitted += 1
            found.calls.update(name for name, _ in policy.calls.values())
            _ask(found, opa, seed, bundle, edge_documents(seed, policy))
    return found


def _ask(found: Comparison, opa: OpaServer, seed: int, bundle: Bundle, asked: Sequence[InputDocument]) -> None:
    found.asked += len(asked)
    here, together = _embedded(bundle, asked)
    native = _native(bundle, asked) if has_wheel() else here
    refused = opa.put_policy("generated", bundle.modules[0].text)
    if refused:
        found.differences.append((seed, f"OPA does not compile it: {refused}"))
        return
    there = _opa(opa, asked)
    contradicted = asyncio.run(_decided_again(bundle, asked, native))
    found.verified += len(asked)
    answers = zip(asked, *(map(_said, each) for each in (here, together, native, there)), strict=True)
    for number, (document, one, batched, own, other) in enumerate(answers):
        found.allowed += one != "none" and one[0] is True
        found.none += one == "none"
        if not one == batched == own == other or number in contradicted:
            text = f"embedded {one}, in a batch {batched}, native {own}, OPA {other}, asked {document.decode()}"
            if number in contradicted:
                text = f"{text}; decided again: {contradicted[number]}"
            found.differences.append((seed, text))
            return


async def _decided_again(
    bundle: Bundle, asked: Sequence[InputDocument], answers: Sequence[Decision | None]
) -> dict[int, str]:
    """Return which decisions `audit verify` would call contradicted, each with why: it asks the policy that is archived."""
    contradicted: dict[int, str] = {}

    async def recorded() -> AsyncGenerator[RecordedDecision, None]:
        for number, (document, answer) in enumerate(zip(asked, answers, strict=True)):
            yield RecordedDecision(
                sequence=number,
                time=0,
                leaf=b"",
                recorder="",
                caller="",
                action="edges.ask",
                code=Code.POLICY_ERROR if answer is None else None if answer.allow else Code.DENIED,
                input=document,
                redacted=False,
                reasons=() if answer is None else answer.reasons,
                obligations=obligations_json(answer),
                revision=bundle.revision,
                engine="native",
                micros=None,
            )

    def contradicts(one: RecordedDecision, why: Sequence[str]) -> None:
        contradicted[one.sequence] = ", ".join(why)

    with tempfile.TemporaryDirectory(prefix="again-") as folder:
        write_bundle(bundle, Path(folder) / "bundle.tar.gz")
        async with (
            ArchivedPolicies(Path(folder), open_engine=open_policy) as policies,
            aclosing(recorded()) as decisions,
        ):
            report = await reproduce(decisions, policies, on_contradiction=contradicts)
    assert report.compared == len(asked)
    return contradicted


def _said(decision: Decision | None) -> Said:
    if decision is None:
        return "none"
    obligations = json.dumps([dict(one) for one in decision.obligations], sort_keys=True)
    return decision.allow, decision.reasons, obligations


def _parsed(answer: object) -> Decision | None:
    try:
        return parse_decision(answer, revision="", engine="", micros=0)
    except PolicyFailed:
        return None


def _embedded(bundle: Bundle, asked: Sequence[InputDocument]) -> tuple[list[Decision | None], list[Decision | None]]:
    interpreter = Interpreter(bundle.modules, canonical(bundle.data))

    def evaluate(rule: str, document: bytes) -> object:
        nonlocal interpreter
        try:
            return interpreter.evaluate(rule, document)
        except PolicyFailed as error:
            if interpreter.broken:
                interpreter = Interpreter(bundle.modules, canonical(bundle.data))
            return f"failed: {error.detail}"

    alone = [_parsed(evaluate(DECISION, document)) for document in asked]
    answers = evaluate(BATCH, b'{"batch":[' + b",".join(asked) + b"]}")
    # A batch that fails is asked again one by one.
    together = [_parsed(one) for one in answers] if isinstance(answers, list) and len(answers) == len(asked) else alone
    return alone, together


def _native(bundle: Bundle, asked: Sequence[InputDocument]) -> list[Decision | None]:
    answers = evaluated(bundle.modules, canonical(bundle.data), DECISION, asked, batch=BATCH)
    return [_parsed(answer) for answer in answers]


def _opa(opa: OpaServer, asked: Sequence[InputDocument]) -> list[Decision | None]:
    values = [json.loads(document) for document in asked]
    answers = opa.evaluate("sealbus.authz.batch", {"batch": values})
    if len(answers.get("value", ())) == len(values):
        return [_parsed(one) for one in answers["value"]]
    return [_parsed(opa.evaluate("sealbus.authz.decision", value).get("value")) for value in values]


_GENERATORS: Final = {"policies": compare, "edges": compare_edges}


def main(arguments: Sequence[str]) -> int:
    """Compare for some time and print what was found; 1 where anything differs or too little is admitted."""
    parser = argparse.ArgumentParser(prog="engine_differences", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--policies", type=int, default=1_000_000, help="how many of each generator")
    parser.add_argument("--only", choices=_GENERATORS, help="one generator")
    parser.add_argument("--show", action="store_true", help="print the policies")
    given = parser.parse_args(arguments)
    version = subprocess.run([require_opa(), "version"], capture_output=True, check=True, text=True)
    _say(version.stdout.splitlines()[0].replace("Version:", "OPA"))
    _say("with the native engine" if has_wheel() else "without the native engine, which is not installed")
    started = time.monotonic()
    names = [given.only] if given.only else list(_GENERATORS)
    all_found = {name: Comparison() for name in names}
    end = given.seed + given.policies
    with OpaServer() as opa:
        while time.monotonic() < started + given.seconds and given.seed + all_found[names[-1]].made < end:
            for name, found in all_found.items():
                seed, known = given.seed + found.made, len(found.differences)
                seeds = range(seed, min(seed + TOLD, end))
                _GENERATORS[name](opa, seeds, until=started + given.seconds, most=1_000, found=found)
                for differing, text in found.differences[known:]:
                    _say(f"{name}, seed {differing}: {text}")
    _say(f"{time.monotonic() - started:.0f} s")
    for name, found in all_found.items():
        if given.show:
            _show(name, range(given.seed, given.seed + found.made))
        _say(f"{name}: seeds {given.seed} to {given.seed + found.made - 1}")
        _say(
            f"policies {found.made}, admitted {found.admitted} ({found.share:.0%}), refused for {dict(found.refusals)}"
        )
        if found.calls:
            _say(f"calls {found.calls.total()}, refused {found.refused_calls.total()}: {dict(found.refused_calls)}")
        _say(f"questions {found.asked}, allowed {found.allowed}, without a decision {found.none}")
        _say(f"decided again {found.verified}")
    differences = sum(len(found.differences) for found in all_found.values())
    _say(f"differences {differences}")
    return 1 if differences or min(found.share for found in all_found.values()) < 0.5 else 0


def _show(name: str, seeds: Iterable[int]) -> None:
    for seed in seeds:
        if name == "edges":
            _say(f"# {name}, seed {seed}\n{edge_policy(seed).text()}\n")
        else:
            data = json.dumps(world(seed // WORLDS), ensure_ascii=False)
            _say(f"# {name}, seed {seed}\n{policy(seed)}\n\n{data}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
