"""What the console's pages cost a browser, and its server the bus: `python -m bench.console`, with Chromium.

A server of canned answers sends 1,000 decisions a second, in messages of 50 ms as the console does, and the map twice a
second. The page counts its own frames and how late the newest row is when a frame shows it; the memory is that of the
renderer, of which an empty page has 40 to 60 MB.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page
from support.browser import DESK, FLAGS, chromium, process_tree, require_chromium
from support.console_server import ConsoleSite, console_site

from bench import console_server
from bench.report import Figure

__all__ = ["figures"]

RATE = 1_000
SECONDS = 20
STARTS = 7
LIMIT_START = 1_000.0
LIMIT_FRAMES = 30.0
LIMIT_LATE = 100.0
LIMIT_MEMORY = 150.0
SLOWER = 4

_FIRST = """const look = () => document.querySelector('.stream tbody tr:not([hidden])') ? (window.first = performance.now())
  : requestAnimationFrame(look); look();"""
_WATCH = """(seconds) => new Promise((done) => {
  const frames = [], late = [];
  const first = document.querySelector(".stream tbody tr .time");
  const day = new Date().toISOString().slice(0, 11);
  let shown = "", before = performance.now();
  const end = before + seconds * 1000;
  const frame = (now) => {
    frames.push(now - before);
    before = now;
    const text = first.textContent;
    if (text !== shown && text) late.push(Date.now() - Date.parse(`${day}${text}Z`));
    shown = text;
    if (now < end) requestAnimationFrame(frame);
    else done({ frames: frames.slice(1), late: late.slice(1) });
  };
  requestAnimationFrame(frame);
})"""


def _memory(mark: str) -> float:
    """Return the PSS of the largest renderer in MB."""
    found = [0.0]
    for process in process_tree(mark):
        folder = Path("/proc") / str(process)
        if b"--type=renderer" in (folder / "cmdline").read_bytes():
            told = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
            found.append(int(told[1]) / 1024 if told else 0.0)
    return max(found)


def _high(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def _opened(context: BrowserContext, site: ConsoleSite) -> tuple[Page, float]:
    """Open the live view, and return the page and the milliseconds until its first row stood."""
    page = await context.new_page()
    await page.add_init_script(_FIRST)
    await page.goto(site.url)
    await page.wait_for_function("() => window.first")
    return page, await page.evaluate("() => window.first")


async def _memory_of_a_plain_browser(site: ConsoleSite) -> float:
    """Return the memory after `SECONDS` in a browser that nobody drives: one that is driven keeps what the stream sent."""
    mark = "--sealbus-test=memory"
    # Processes of the browser may still write there, when it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = await asyncio.create_subprocess_exec(
            require_chromium(),
            *FLAGS,
            "--headless",
            "--window-size=1320,860",
            f"--user-data-dir={folder}",
            mark,
            site.url,
            stderr=DEVNULL,
        )
        try:
            await asyncio.sleep(SECONDS)
            return _memory(mark) if site.streams else 0.0
        finally:
            browser.terminate()
            await browser.wait()


async def figures() -> AsyncIterator[Figure]:
    """Measure in a browser, then beside a deployment."""
    try:
        async for figure in _in_a_browser():
            yield figure
    except pytest.skip.Exception as none:
        print(f"no figures of the console's pages: {none}", file=sys.stderr)
    async for figure in console_server.figures():
        yield figure


async def _in_a_browser() -> AsyncIterator[Figure]:
    async with chromium() as (browser, _), console_site(rate=RATE) as site:
        site.timed = True
        starts = []
        for _ in range(STARTS):
            context = await browser.new_context(**DESK)
            page, start = await _opened(context, site)
            starts.append(start)
            await context.close()
        yield Figure(
            name="console: first row stands after, median",
            value=statistics.median(starts),
            unit="ms",
            goal=LIMIT_START,
        )
        context = await browser.new_context(**DESK)
        page, _ = await _opened(context, site)
        session = await context.new_cdp_session(page)
        for slower in (1, SLOWER):
            await session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
            told = await page.evaluate(_WATCH, SECONDS)
            note = "" if slower == 1 else f", processor {slower} times slower"
            limit = LIMIT_FRAMES if slower == 1 else None
            per_second = 1_000 * len(told["frames"]) / sum(told["frames"])
            yield Figure(
                name=f"console: frames at {RATE} decisions/s{note}",
                value=per_second,
                unit="1/s",
                goal=limit,
                at_least=True,
                beside=f"longest of 100 {_high(told['frames'], 0.99):.0f} ms",
            )
            yield Figure(
                name=f"console: sent until in a frame, median{note}",
                value=statistics.median(told["late"]),
                unit="ms",
                goal=LIMIT_LATE if slower == 1 else None,
                beside=f"99 of 100 {_high(told['late'], 0.99):.0f} ms",
            )
        await context.close()
        yield Figure(
            name="console: memory of the renderer (PSS)",
            value=await _memory_of_a_plain_browser(site),
            unit="MB",
            guard=LIMIT_MEMORY,
        )
