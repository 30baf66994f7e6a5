"""Names, reasons and ids that were made to be obeyed stay text, and can be seen, in every area."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect
from support.browser import DESK, PHONE, Watched, findings, require_axe
from support.console_answers import HOSTILE, MESSAGE
from support.console_server import console_site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AREAS = [
    "/",
    "/decisions",
    f"/decisions/{MESSAGE}",
    "/tasks",
    "/approvals",
    "/approvals/ap-1",
    "/dead",
    "/schedules",
    "/agents",
    "/policy",
]


@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
async def test_hostile_texts_stay_texts(browser: Browser, device: dict[str, object]) -> None:
    axe = require_axe()
    async with console_site(hostile=True) as site:
        context = await browser.new_context(**device)  # type: ignore[arg-type]
        found = await Watched.of(context, site.url)
        page = found.page
        for area in AREAS:
            await found.open(site.url + area)
            await expect(page.locator("main")).to_contain_text("<img src=x onerror=")
            await expect(page.locator(".chip", has_text="U+202E").first).to_be_attached()
            assert await page.locator("main :is(img, script, iframe, object, embed, [onload], [onerror])").count() == 0
            assert await page.locator("a[href^='javascript' i], a[href*='<']").count() == 0
            assert (await page.title()) not in {"1", "2"}
            shown = await page.locator("body").inner_text()
            assert not {character for bad in HOSTILE[1:2] for character in bad if not character.isprintable()} & set(
                shown
            )
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= device["viewport"]["width"], area  # type: ignore[index]
            await page.evaluate(axe)
            assert await findings(page) == [], area
            assert found.errors == [], area
        await context.close()


async def test_long_texts_are_folded_and_can_be_opened(browser: Browser) -> None:
    async with console_site(hostile=True) as site:
        site.answers["/api/dead"]["letters"][0]["detail"] = max(HOSTILE, key=len)
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/dead")).page
        fold = page.locator("details.fold").first
        await expect(fold.locator("summary")).to_contain_text("10,005 characters")
        await expect(fold.locator(".whole")).to_be_hidden()
        await fold.locator("summary").click()
        await expect(fold.locator(".whole")).to_be_visible()
        assert len(await fold.locator(".whole").inner_text()) > 10_000
        await context.close()


async def test_the_browser_itself_refuses_markup(browser: Browser) -> None:
    """The policy of the page, not the care of its authors, is what holds."""
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, site.url)).page
        for attempt in (
            "() => { document.body.innerHTML = '<b>x</b>'; }",
            "() => { document.createElement('script').text = '1'; }",
            "() => { trustedTypes.createPolicy('mine', { createHTML: text => text }); }",
            "() => new SharedWorker('/static/feed.js')",
        ):
            refused = await page.evaluate(
                f"() => {{ try {{ ({attempt})(); return 'done'; }} catch (error) {{ return error.name; }} }}"
            )
            assert refused == "TypeError", attempt
        await context.close()
