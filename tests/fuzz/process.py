"""The process that fuzzes one target: `python -m fuzz.process TARGET ARGUMENTS-OF-LIBFUZZER`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

from fuzz.mutation import mutated
from fuzz.targets import target

_INSTRUMENTED: Final = ["sealbus", "h11", "joserfc", "a2a.server", "mcp.server", "nats.protocol"]
"""Our code, and the packages that read bytes from outside for us."""


def main() -> None:
    """Fuzz the target that the first argument names."""
    name, *arguments = sys.argv[1:]
    atheris: Any = import_module("atheris")  # it has no types, and not every platform has it
    with atheris.instrument_imports(include=_INSTRUMENTED):
        check = target(name)

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        return mutated(bytes(data), most, seed, lambda data, most: bytes(atheris.Mutate(data, max(most, 1))))

    # A merge starts this process again, by its first argument and a shell.
    again = f"{sys.executable} -W ignore -m fuzz.process {name}"
    atheris.Setup([again, *arguments], lambda data: check(bytes(data)), custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
