"""What two engines say of the same tests of a policy."""

from __future__ import annotations

from collections.abc import Iterable

from sealbus.policies.rego_tests import RegoTestResult

__all__ = ["disagreements"]


def disagreements(results: Iterable[RegoTestResult]) -> tuple[str, ...]:
    """Return the tests, as `package.name`, that did not pass or fail alike on every engine in `results`."""
    verdicts: dict[str, set[bool]] = {}
    for result in results:
        verdicts.setdefault(f"{result.package}.{result.name}", set()).add(result.passed)
    return tuple(sorted(name for name, passed in verdicts.items() if len(passed) > 1))
