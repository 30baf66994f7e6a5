"""The Rego tests of a policy folder run on the embedded engine and on OPA. Both must give the same results.

A test is a rule `test_...` of any Rego file in the folder. It passes if it is `true`, as with `opa test`. The policy under
test is the bundle that `build_bundle` makes of the folder, with the library. Test files (`*_test.rego`) are added for the
tests, and never become part of a bundle. OPA gets the same files in a folder of their own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.printable import printable
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import MANIFEST, Bundle
from sealbus.policies.bundle.library import carries_library, library_modules, with_library_root
from sealbus.policies.decision.documents import canonical
from sealbus.policies.explain.rewriting import Rewritten, rewrite
from sealbus.policies.explain.trace import read_prints
from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import TEST_SUFFIX, Module, PolicyRefused, Problem
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.lint.syntax import File, Rule, Variable, leading_names
from sealbus.policies.opa.compiler import run_opa

EMBEDDED: Final = "embedded"
OPA: Final = "opa"
DEADLINE: Final = 60.0
"""Seconds that `opa test` may take for a folder."""
CHARACTERS = 200
"""Most characters of a literal in a description."""

_PREFIX: Final = "test_"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RegoTestResult:
    """The result of one test on one engine (`embedded` or `opa`).

    `package` is without `data.`. `error` says why it did not pass, if that is known. `file` is relative to the policy
    folder. `line` counts from 1.
    """

    package: str
    name: str
    engine: str
    passed: bool
    error: str = ""
    file: str
    line: int


def run_tests(
    folder: Path, *, opa: Path | None = None, deadline: float = DEADLINE, part: bool = False
) -> tuple[RegoTestResult, ...]:
    """Return the results of all tests of `folder`, by package, name and engine.

    Without the executable `opa` only the embedded engine runs. With it, a test that one engine did not run has a failed
    result there. So if all tests passed, the engines agree. `opa test` treats the error of a builtin as undefined, and the
    embedded engine fails. Under `not` this is a disagreement, and is reported.

    A `part` belongs to a platform or a team and has no entry points. Its tests are in packages inside its roots.

    Blocks. Raises `PolicyRefused`, with file and line, for a policy that an engine cannot load, and for forms that the two
    would decide differently. Raises `ConfigurationError` for a missing folder or executable, and if OPA takes longer than
    `deadline` seconds.
    """
    bundle = build_bundle(folder, part=part)
    carries = carries_library(bundle.roots)
    modules = [*bundle.modules, *(() if carries else library_modules()), *_tests(folder)]
    files, problems = parse_all(modules)
    problems.extend(refused_forms(files))
    if problems:
        raise PolicyRefused(problems)
    failed = FailedTests(modules, bundle.data)
    results = _run_embedded(Interpreter(modules, canonical(bundle.data)), files, failed)
    if opa is not None:
        with tempfile.TemporaryDirectory(prefix="sealbus-") as name:
            laid_out = Path(name) / folder.absolute().name
            _lay_out(laid_out, modules, bundle)
            by_opa = _run_opa(laid_out, opa, deadline)
        results = [*results, *by_opa, *_missing(results, by_opa, OPA), *_missing(by_opa, results, EMBEDDED)]
    return tuple(sorted(results))


def _tests(folder: Path) -> Iterable[Module]:
    for path in sorted(folder.rglob(f"*{TEST_SUFFIX}")):
        name = path.relative_to(folder).as_posix()
        try:
            yield Module(path=name, text=path.read_text("utf-8"))
        except ValueError as error:
            raise PolicyRefused([Problem.of_whole(name, "encoding", str(error))]) from error


def _run_embedded(interpreter: Interpreter, files: Iterable[File], failed: FailedTests) -> list[RegoTestResult]:
    results: dict[tuple[str, str], RegoTestResult] = {}
    for file in files:
        package = ".".join(file.package)
        for rule in file.rules:
            name = leading_names(rule.head)[0]
            if not name.startswith(_PREFIX):
                continue
            if (package, name) in results:
                passed, error = False, "defined twice: both definitions would be one test"
            else:
                passed, error = _evaluate(interpreter, rule, f"data.{package}.{name}")
                error = error if passed or error else failed.describe_failure(package, name)
            results[package, name] = RegoTestResult(
                package=package,
                name=name,
                engine=EMBEDDED,
                passed=passed,
                error=error,
                file=file.path,
                line=rule.place.line,
            )
    return list(results.values())


def _evaluate(interpreter: Interpreter, rule: Rule, path: str) -> tuple[bool, str]:
    if rule.kind != "complete" or not isinstance(rule.head, Variable):
        return False, "a test is a rule without arguments, keys or members"
    try:
        return interpreter.evaluate(path, b"{}") is True, ""
    except PolicyFailed as error:
        return False, error.detail


def _lay_out(folder: Path, modules: Iterable[Module], bundle: Bundle) -> None:
    roots: list[Json] = list(with_library_root(bundle.roots))
    manifest = canonical({"roots": roots, "rego_version": 1})
    files = {module.path: module.text.encode() for module in modules}
    for path, content in {**files, "data.json": canonical(bundle.data), MANIFEST: manifest}.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _run_opa(folder: Path, opa: Path, deadline: float) -> list[RegoTestResult]:
    # Resolved first, because a relative path depends on the working directory.
    executable = Path(shutil.which(opa) or opa).absolute()
    done = run_opa(executable, "test", "--bundle", "--format=json", ".", deadline=deadline, folder=folder)
    if done.returncode not in (0, 2):
        text = " ".join(done.stderr.decode(errors="replace").split())
        raise PolicyRefused([Problem.of_whole(folder.name, "opa", text)])
    results = json.loads(done.stdout)
    return [
        RegoTestResult(
            package=result["package"].removeprefix("data."),
            name=result["name"],
            engine=OPA,
            passed=not result.get("fail", False) and "error" not in result,
            error=result["error"][0]["message"] if "error" in result else "",
            file=result["location"]["file"],
            line=result["location"]["row"],
        )
        for result in results
        if not result.get("skip", False)
    ]


def _missing(ran_there: Iterable[RegoTestResult], here: Iterable[RegoTestResult], engine: str) -> list[RegoTestResult]:
    ran = {(result.package, result.name) for result in here}
    return [
        replace(result, engine=engine, passed=False, error=f"not run: only {result.engine} reads it as a test")
        for result in ran_there
        if (result.package, result.name) not in ran
    ]


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
