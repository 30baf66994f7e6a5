"""A real Chromium for tests of pages, and axe, which looks for what people cannot reach."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from support.debian import require_program

__all__ = [
    "DESK",
    "FLAGS",
    "PHONE",
    "Watched",
    "asleep",
    "chromium",
    "findings",
    "kept_picture",
    "process_tree",
    "require_axe",
    "require_chromium",
    "settled",
]

_AXE = Path(__file__).parents[2] / ".tools" / "axe-core" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK: dict[str, Any] = {"viewport": {"width": 1320, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}
# Five seconds are the default.
expect.set_options(timeout=60_000)

_PICTURES = Path(os.environ["SEALBUS_SCREENSHOTS"]) if "SEALBUS_SCREENSHOTS" in os.environ else None


def _missing(what: str, how: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"there is no {what}: {how}")
    pytest.skip(f"there is no {what}: {how}")


def require_chromium() -> str:
    """Return the path of chromium; without it skip the test (`require_program`)."""
    return str(require_program("chromium"))


def require_axe() -> str:
    """Return the text of axe; without it skip the test, or fail it in CI."""
    if not _AXE.exists():
        _missing("axe-core", "`make tools` installs it")
    return _AXE.read_text(encoding="utf-8")


@asynccontextmanager
async def chromium() -> AsyncGenerator[tuple[Browser, str]]:
    """Run a browser, and yield it with a flag that only its processes were started with."""
    mark = f"--sealbus-test={secrets.token_hex(8)}"
    program = require_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=[*FLAGS, mark])
        try:
            yield browser, mark
        finally:
            await browser.close()


_UNSENT = """(() => {
  const missing = window.sealbusUnsent = new Set();
  const kept = new WeakMap();
  const seen = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (!kept.has(value)) kept.set(value, new Proxy(value, {
      get: (target, key, receiver) => {
        if (typeof key === "string" && !(key in target) && /^[A-Za-z_][A-Za-z_0-9]*$/.test(key)
          && key !== "then" && key !== "toJSON") missing.add(key);
        return seen(Reflect.get(target, key, receiver));
      },
    }));
    return kept.get(value);
  };
  const json = Response.prototype.json, parse = JSON.parse;
  Response.prototype.json = async function () { return seen(await json.call(this)); };
  JSON.parse = (...given) => seen(parse(...given));
})()"""
"""Notes in each page the names of fields that it reads of an answer, or of an event, and that are not there."""


class Watched:
    """A page of which nothing in the console, no dialog and no uncaught error is missed."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type in {"error", "warning"} else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))

    async def unsent(self) -> set[str]:
        """Return the fields that the page has read since it was opened, and that nobody had sent."""
        return set(await self.page.evaluate("() => [...window.sealbusUnsent]"))

    @classmethod
    async def of(cls, context: BrowserContext, url: str) -> Watched:
        """Open `url` in a new page, and wait until the view stands."""
        await context.add_init_script(_UNSENT)
        found = cls(await context.new_page())
        await found.open(url)
        return found

    async def open(self, url: str) -> None:
        """Go to `url`, and wait until the view stands."""
        await self.page.goto(url, timeout=60_000)
        await settled(self.page)


async def settled(page: Page) -> None:
    """Wait until the view of a page has got its answers."""
    await page.wait_for_function(
        "() => document.querySelector('main h1, main [role=alert]') && !document.querySelector('main [aria-busy]')"
    )


async def findings(page: Page) -> list[str]:
    """Return what axe, which was put into the page, finds that people cannot use."""
    found = await page.evaluate(
        "() => axe.run(document, { resultTypes: ['violations'] }).then((told) => told.violations)"
    )
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


async def kept_picture(page: Page, name: str) -> None:
    """Keep a picture of the page in the folder `SEALBUS_SCREENSHOTS`, if that is set."""
    if _PICTURES:
        await page.screenshot(path=_PICTURES / f"{name}.png", full_page=True)


def process_tree(mark: str) -> list[int]:
    """Return the processes of the browser with this flag: the one that has it and all below it."""
    parents: dict[int, int] = {}
    first: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ProcessLookupError):
            continue
        if mark.encode() in words:
            first.add(int(folder.name))
    found = set(first)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def asleep(mark: str, *, awake: bool = False) -> None:
    """Stop all processes of a browser, as a closed lid does, or let them go on."""
    for process in process_tree(mark):
        os.kill(process, signal.SIGCONT if awake else signal.SIGSTOP)
