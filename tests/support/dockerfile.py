"""What a Dockerfile says, done in a folder: its steps as commands, where no container engine is.

What is not as there: every absolute path is below `root` of the folder, a link to the stage that is being made, so that what
was made under a path is found under it in a later stage. An image of Python is a virtual environment of this machine's Python
at /usr/local, whichever version the Dockerfile says; any other image is a folder that is given. What else an image has, of
users and programs, is this machine's.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stack.run_as import as_user

__all__ = ["Image", "build_image"]

_ABSOLUTE: Final = re.compile(r"(?<![\w./-])/(?=[a-z])")
_SECONDS: Final = 600


@dataclass(kw_only=True)
class Image:
    """What a Dockerfile made: `root`, where it is, and with what a container of it is started."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()

    def has(self, program: str) -> bool:
        """Tell whether its PATH has `program`."""
        return shutil.which(program, path=self.environment["PATH"]) is not None

    def run(self, *arguments: str) -> str:
        """Start it with `arguments` as its user and with its environment alone; return what it printed."""
        uid, gid = map(int, self.user.split(":"))
        command = [*as_user(uid, gid), *self.entrypoint, *arguments]
        return _output(command, cwd=self.root, environment={"HOME": "/nonexistent", **self.environment})


def build_image(file: Path, context: Path, folder: Path, images: Mapping[str, Path]) -> Image:
    """Do the steps of `file` with the files of `context` that its `.dockerignore` lets through; return the last stage.

    Blocks. `images` are folders by the images' names without their tags. A step that is not known here is a KeyError,
    one that fails an AssertionError with what it said.
    """
    build = _Build(file, context, folder, images)
    steps = {
        "FROM": build.start, "WORKDIR": build.workdir, "COPY": build.copy, "RUN": build.run, "ENV": build.env,
        "USER": build.user, "ENTRYPOINT": build.entrypoint,
    }  # fmt: skip
    for word, rest in _steps(file.read_text()):
        steps[word](rest)
    return build.image


def _steps(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


class _Build:
    def __init__(self, file: Path, context: Path, folder: Path, images: Mapping[str, Path]) -> None:
        ignored = file.with_name(f"{file.name}.dockerignore").read_text().split()
        self._let = tuple(one[1:] for one in ignored if one.startswith("!"))
        assert ignored == ["*", *(f"!{one}" for one in self._let), "**/__pycache__"]
        self._context = context
        self._folder = folder
        self._images = images
        self._stages: dict[str, Path] = {}
        self._cwd = Path()
        self.image = Image(root=folder / "root")

    def start(self, rest: str) -> None:
        image, _, name = rest.partition(" AS ")
        base = image.partition(":")[0]
        self._stages[name] = stage = self._folder / (name or "last")
        stage.mkdir(mode=0o755)
        self.image.root.unlink(missing_ok=True)
        self.image.root.symlink_to(stage)
        self._cwd = self.image.root
        if base == "python":
            subprocess.run([sys.executable, "-m", "venv", self.image.root / "usr" / "local"], check=True)
        else:
            shutil.copytree(self._images[base], stage, dirs_exist_ok=True)

    def workdir(self, rest: str) -> None:
        self._cwd = Path(self._placed(rest))
        self._cwd.mkdir(parents=True)

    def copy(self, rest: str) -> None:
        *sources, target = rest.split()
        target = f"{target}/" if target == "." else target
        place = Path(self._placed(target)) if target.startswith("/") else self._cwd / target
        if sources[0].startswith("--from="):
            stage = self._stages[sources.pop(0).removeprefix("--from=")]
            found = [path for one in sources for path in stage.glob(one.lstrip("/"))]
        else:
            names = self._let if sources == ["."] else sources
            found = [path for name in names for path in self._context.glob(name)]
            assert all(any(fnmatch.fnmatch(one.name, let) for let in self._let) for one in found), "not in the context"
        assert found, f"COPY {rest}: nothing is there"
        into = target.endswith("/")
        for path in found:
            inside = place / path.name if into else place
            inside.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, inside, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, inside)

    def run(self, rest: str) -> None:
        local = self.image.root / "usr" / "local" / "bin"
        # Of ours only what says where the index is.
        outside = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http"))
        }
        path = os.pathsep.join([str(local), os.defpath.lstrip(":")])
        _output(
            ["/bin/sh", "-ec", self._placed(rest)],
            cwd=self._cwd,
            environment={"HOME": os.environ["HOME"], **outside, "PATH": path},
        )

    def env(self, rest: str) -> None:
        self.image.environment |= dict(one.split("=", 1) for one in shlex.split(self._placed(rest)))

    def user(self, rest: str) -> None:
        self.image.user = rest

    def entrypoint(self, rest: str) -> None:
        name, *arguments = (one.strip('" ') for one in rest.strip("[]").split(","))
        assert self.image.has(name), f"{name} is not on the PATH of the image"
        self.image.entrypoint = (name, *arguments)

    def _placed(self, text: str) -> str:
        return _ABSOLUTE.sub(f"{self.image.root}/", text)


def _output(command: list[str], *, cwd: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
