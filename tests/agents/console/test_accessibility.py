"""Every area can be used by people who see, hear and point differently: axe has no finding, targets are large on a phone."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.async_api import Browser
from support.browser import DESK, PHONE, Watched, findings, kept_picture, require_axe
from support.console_answers import ALLOWED, MANY, MESSAGE
from support.console_server import console_site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AREAS = {
    "live": "/",
    "decisions": "/decisions",
    "decision": f"/decisions/{MESSAGE}",
    "allowed": f"/decisions/{ALLOWED}",
    "several": f"/decisions/{MANY}",
    "tasks": "/tasks",
    "approvals": "/approvals",
    "approval": "/approvals/ap-1",
    "dead": "/dead",
    "schedules": "/schedules",
    "agents": "/agents",
    "policy": "/policy",
    "log": "/log",
    "what-if": "/what-if",
    "nothing": "/nonsense",
}
DEVICES = {"desk": DESK, "phone": PHONE}
SMALL = """() => [...document.querySelectorAll(
    'button, input, select, summary, nav a, .table a, .foot > a, .crumb a, .button')]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height > 0 && !one.closest('.unseen'))
  .filter((one) => one.getBoundingClientRect().height < 43.5).map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", DEVICES)
async def test_axe_finds_nothing_in_any_area(browser: Browser, device: str, scheme: Literal["light", "dark"]) -> None:
    axe = require_axe()
    async with console_site() as site:
        context = await browser.new_context(color_scheme=scheme, reduced_motion="reduce", **DEVICES[device])
        found = await Watched.of(context, site.url)
        page = found.page
        for name, path in AREAS.items():
            await found.open(site.url + path)
            if name == "live":
                await page.locator("tbody tr:not([hidden])").first.wait_for()
                await page.locator(".map g").first.wait_for()
            await kept_picture(page, f"{name}-{scheme}-{device}")
            await page.evaluate(axe)
            assert await findings(page) == [], name
            if device == "phone":
                assert await page.evaluate(SMALL) == [], name
        assert found.errors == []
        await context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_in_dialogs_results_and_refusals(
    browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    axe = require_axe()
    async with console_site() as site:
        context = await browser.new_context(color_scheme=scheme, reduced_motion="reduce", **DESK)
        found = await Watched.of(context, f"{site.url}/tasks")
        page = found.page
        await page.evaluate(axe)
        await page.get_by_role("button", name="Cancel").first.click()
        await kept_picture(page, f"dialog-{scheme}-desk")
        assert await findings(page) == []
        await found.open(f"{site.url}/what-if")
        await page.evaluate(axe)
        await page.get_by_label("Its text, changed").fill("package sealbus.authz")
        await page.get_by_role("button", name="Compare").click()
        await page.get_by_text("3 decisions would flip").wait_for()
        await kept_picture(page, f"flipped-{scheme}-desk")
        assert await findings(page) == []
        for name, status in (("refused", 403), ("unreachable", 503)):
            site.answers["/api/tasks"] = (
                status,
                {
                    "code": "x",
                    "title": "" if status == 403 else "The bus cannot be reached",
                    "detail": "",
                    "reasons": ["not_an_operator"],
                    "message": MESSAGE,
                    "remedy": [{"kind": "login", "text": "log in by mfa"}],
                },
            )
            await found.open(f"{site.url}/tasks")
            await page.evaluate(axe)
            await kept_picture(page, f"{name}-{scheme}-desk")
            assert await findings(page) == [], name
        site.answers["/api/session"] = (401, {"code": "no_login", "title": "", "detail": "", "remedy": []})
        await found.open(f"{site.url}/tasks")
        await page.evaluate(axe)
        await kept_picture(page, f"login-{scheme}-desk")
        assert await findings(page) == []
        await context.close()


async def test_the_live_view_does_not_read_out_each_row(browser: Browser) -> None:
    async with console_site(rate=100) as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, site.url)).page
        assert await page.locator("[aria-live] table, [role=status] table, [role=log]").count() == 0
        await page.wait_for_function(
            "() => document.getElementById('announcement').textContent.includes('denied in the last minute')"
        )
        await context.close()


async def test_what_is_marked_stays_marked_in_forced_colours(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(forced_colors="active", **DESK)
        page = (await Watched.of(context, f"{site.url}/decisions/{MESSAGE}")).page
        assert await page.locator(".hit").first.evaluate("hit => getComputedStyle(hit).outlineStyle") == "solid"
        assert (
            await page.locator("#tabs a[aria-current]").evaluate("tab => getComputedStyle(tab).borderBottomStyle")
            == "solid"
        )
        await context.close()


async def test_nothing_moves_for_who_wants_that(browser: Browser) -> None:
    async with console_site() as site:
        for wish, names in (("reduce", "none"), ("no-preference", "beat")):
            context = await browser.new_context(reduced_motion=wish, **DESK)  # type: ignore[arg-type]
            page = (await Watched.of(context, site.url)).page
            await page.locator("#pulse[data-state=open]").wait_for()
            assert await page.locator("#pulse i").evaluate("dot => getComputedStyle(dot).animationName") == names
            await context.close()
