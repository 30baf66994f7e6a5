"""Remove each acceptance check in turn: a refusing test of its step must fail (`make removal`).

Checks are found by their shape, never listed by hand: an `if` that ends in raising a refusal, an operand of its
condition, a link of a chained comparison, a predicate in such a condition, a call of a function that only refuses, an
exception that is given a code. For each, a forked process with only that check disabled runs the tests
`test_step_NN_refuses_*` of its steps until one fails. A removal that no test notices is a survivor, and a failure.

Usage: check_removal.py [--verbose] [MODULE ...]
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

from _pytest.mark.structures import ParameterSet  # noqa: E402 -- what pytest.param makes
from removals import Removal, find_removals, unseen_refusals  # noqa: E402 -- beside this file

TESTS = ("accept/test_steps", "accept/test_steps_form", "accept/test_steps_trust", "trust/test_bundles")
"""The folders of refusing tests: the step is in a test's name."""

STEPS: dict[str, tuple[int, ...]] = {
    "encoding.codec": (1, 2, 10),
    "message.wire": (1,),
    "message.header": (2,),
    "trust.spiffe_id": (2, 10),
    "trust.keys": (2, 8, 10),
    "message.subjects": (3,),
    "message.freshness": (5, 6),
    "trust.caches": (6, 13),
    "encoding.strict_json": (7,),
    "encoding.jws": (7,),
    "trust.bundles": (7,),
    "trust.credential": (7,),
    "trust.merkle": (8,),
    "trust.signature": (8,),
    "message.user_context": (10,),
    "message.chain": (11, 12),
    "accept.live": tuple(range(1, 14)),
}
"""The steps of a module's checks, if a check itself does not give its number."""

_SIGNATURE = (
    "trust.keys.PublicKey.verify: len(signature) != 64 or not 1 <= r < _ORDER or (not 1 <= s <= _HALF_ORDER) -> "
)
_OPENSSL = "OpenSSL refuses it as well; SPEC.md section 4 says it, so it stands where the other bounds do"
SURVIVORS: dict[str, str] = {
    _SIGNATURE + "len(signature) != 64 or not r < _ORDER or (not 1 <= s <= _HALF_ORDER)": _OPENSSL,
    _SIGNATURE + "len(signature) != 64 or not 1 <= r or (not 1 <= s <= _HALF_ORDER)": _OPENSSL,
    _SIGNATURE + "len(signature) != 64 or not 1 <= r < _ORDER or (not s <= _HALF_ORDER)": _OPENSSL,
    "trust.keys.PublicKey.__post_init__: type(self.raw) is not bytes or len(self.raw) != 64"
    " -> type(self.raw) is not bytes or False": "no point of another length can be loaded; this only says so sooner",
    "encoding.codec.is_text: len(text) <= limit and (not _REFUSED_IN_TEXT.search(text)) and (len(text.encode()) <= limit)"
    " -> True and (not _REFUSED_IN_TEXT.search(text)) and (len(text.encode()) <= limit)": (
        "what has too many characters has too many bytes; asked first, it saves searching long text"
    ),
    "message.user_context._typed: end > iat + _LONGEST -> False": (
        "no reader is set to more (step 10); it counts where a context is minted"
    ),
    "encoding.codec._refuse_map: raise ValueError('a map where there can be none') -> pass": (
        "the encoding of what is left differs from the bytes; it is refused as soon, before a megabyte of maps is made"
    ),
    "message.header._grants: len(items) > DEFAULT_LIMITS.text_items or not all((type(item) is str and is_grant(item)"
    " for item in items)) -> False or not all((type(item) is str and is_grant(item) for item in items))": (
        "the decoder bounds every array of a header by the same number; it counts where a header is made"
    ),
    "message.wire._proof: not isinstance(path, tuple) or len(path) > _PROOF_NODES -> not isinstance(path, tuple) or False": (
        "the decoder bounds every array of an envelope by the same number; it counts where an envelope is made"
    ),
}
"""Removals that no test can notice, as they are reported, each with the reason."""

_SECONDS = 30
"""Seconds after which a process that a removal makes run for ever counts as failed."""

Case = tuple[str, Callable[[], object]]


def load_cases() -> dict[int, list[Case]]:
    """Return every refusing test by the number of its step, with each of its parameters."""
    cases: dict[int, list[Case]] = {}
    for test in TESTS:
        path = ROOT / "tests" / "envelopes" / f"{test}.py"
        sys.path.insert(0, str(path.parent))
        for attribute, function in vars(importlib.import_module(path.stem)).items():
            found = re.match(r"test_step_(\d\d)_(?:\w+_)?refuses", attribute)
            if found and inspect.isfunction(function):
                cases.setdefault(int(found[1]), []).extend(expand(attribute, function))
    return cases


def expand(name: str, function: Callable[..., object]) -> Iterator[Case]:
    """Yield a test once for each set of its parameters, as pytest would; fixtures are not known here."""
    rows: list[list[dict[str, object]]] = []
    for mark in getattr(function, "pytestmark", []):
        names = mark.args[0]
        keys = [key.strip() for key in names.split(",")] if isinstance(names, str) else list(names)
        sets = [value.values if isinstance(value, ParameterSet) else value for value in mark.args[1]]
        whole = [isinstance(value, ParameterSet) or len(keys) > 1 for value in mark.args[1]]
        rows.append(
            [
                dict(zip(keys, values if many else (values,), strict=True))
                for values, many in zip(sets, whole, strict=True)
            ]
        )
    for number, chosen in enumerate(itertools.product(*rows)):
        arguments = {key: value for row in chosen for key, value in row.items()}
        yield f"{name}[{number}]", functools.partial(function, **arguments)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A function whose code can be replaced."""

    function: FunctionType
    forget: Callable[[], None]


def resolve(module: ModuleType, path: str) -> Target:
    """Return the function at `path`, without its decorators."""
    found: object = module
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    forget: Callable[[], None] = getattr(found, "cache_clear", lambda: None)
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    found = inspect.unwrap(found) if callable(found) else found
    if not isinstance(found, FunctionType):
        raise TypeError(f"{module.__name__}.{path} is no function")
    return Target(function=found, forget=forget)


def code_of(module: CodeType, path: str) -> CodeType:
    """Return the code of the function at `path` of a compiled module."""
    waiting = [module]
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, CodeType):
                if constant.co_qualname == path:
                    return constant
                waiting.append(constant)
    raise LookupError(path)


def first_failure(cases: Sequence[Case]) -> str | None:
    """Run `cases` until one fails, and return its name."""
    for name, case in cases:
        try:
            case()
        except BaseException:  # noqa: BLE001 -- pytest's outcomes are not Exceptions, and whatever it is, it failed
            return name
    return None


def start(removal: Removal, cases: Sequence[Case]) -> int:
    """Fork a process that removes one check and runs `cases`; it exits with 0 if one of them failed, else with 1."""
    target = resolve(importlib.import_module(f"sealbus.envelopes.{removal.module}"), removal.function)
    code = code_of(removal.code, removal.function)
    process = os.fork()
    if process == 0:
        signal.alarm(_SECONDS)
        target.function.__code__ = code
        target.forget()
        os._exit(1 if first_failure(cases) is None else 0)
    return process


def run(removals: Sequence[Removal], cases: dict[int, list[Case]]) -> list[Removal]:
    """Return the removals that no refusing test of their steps noticed."""
    survivors: list[Removal] = []
    running: dict[int, Removal] = {}
    places = os.cpu_count() or 1
    waiting = list(reversed(removals))
    while waiting or running:
        while waiting and len(running) < places:
            removal = waiting.pop()
            steps = (removal.step,) if removal.step is not None else STEPS[removal.module]
            running[start(removal, [case for step in steps for case in cases.get(step, [])])] = removal
        process, status = os.wait()
        removal = running.pop(process)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
            survivors.append(removal)
    return survivors


def main(arguments: Sequence[str]) -> int:
    """Check the modules that are named, or all; return the exit code."""
    verbose = "--verbose" in arguments
    modules = [name for name in arguments if name != "--verbose"] or list(STEPS)
    began = time.monotonic()
    cases = load_cases()
    broken = first_failure([case for listed in cases.values() for case in listed])
    if broken is not None:
        print(f"{broken} fails with nothing removed")  # noqa: T201  a command prints
        return 1
    sources = {module: (ROOT / "envelopes" / f"{module.replace('.', '/')}.py").read_text() for module in modules}
    removals = [removal for module, source in sources.items() for removal in find_removals(module, source)]
    unseen = [text for module, source in sources.items() for text in unseen_refusals(module, source)]
    if verbose:
        for removal in removals:
            print(removal)  # noqa: T201  a command prints
    survivors = {str(removal) for removal in run(removals, cases)}
    unexpected = sorted(survivors - SURVIVORS.keys())
    stale = sorted(SURVIVORS.keys() - survivors) if set(modules) == set(STEPS) else []
    for text in unseen:
        print(f"refuses in a shape that this program does not know: {text}")  # noqa: T201  a command prints
    for text in unexpected:
        print(f"no test fails without it: {text}")  # noqa: T201  a command prints
    for text in stale:
        print(f"listed as a survivor, and is none: {text}")  # noqa: T201  a command prints
    count = sum(map(len, cases.values()))
    print(  # noqa: T201  a command prints
        f"{len(removals)} removals, {len(survivors)} unnoticed, {len(SURVIVORS)} of them with a reason;"
        f" {count} refusing cases; {time.monotonic() - began:.0f} s"
    )
    return 1 if unseen or unexpected or stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
