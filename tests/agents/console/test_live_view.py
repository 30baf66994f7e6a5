"""The live view: one stream for all tabs, filters, and what a page that could not follow, or may not, is shown."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect
from support.browser import DESK, Watched, asleep, settled
from support.console_answers import MESSAGE
from support.console_server import ConsoleSite, console_site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

TABS = 7
"""One more than the connections that a browser gives an origin."""


_ALL_ARE = """([cell, value]) => [...document.querySelectorAll(`.stream tbody tr:not([hidden]) ${cell}`)]
  .every((one) => one.textContent === value)"""
_HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

_LET_GO = """async () => {
  while ((await navigator.locks.query()).held.length) await new Promise(requestAnimationFrame);
}"""


async def live(context: BrowserContext, site: ConsoleSite, path: str = "/") -> Page:
    page = (await Watched.of(context, site.url + path)).page
    await page.locator("#pulse[data-state=open]").wait_for()
    return page


async def newest(page: Page, site: ConsoleSite) -> None:
    """Wait until the page shows the newest row that the site has sent."""
    await expect(page.locator(f".stream a[href='/decisions/{site.sequence:032x}']")).to_be_visible()


async def test_rows_come_newest_first_into_a_fixed_set_of_rows(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        many = await page.locator(".stream tbody tr").count()
        site.decide(1_234)
        await newest(page, site)
        assert await page.locator(".stream tbody tr").count() == many
        links = await page.locator(".stream tbody a").evaluate_all(
            "all => all.map(one => one.getAttribute('href')).filter(Boolean)"
        )
        assert links == sorted(links, reverse=True)
        await expect(page.locator(".stream .denied").first).to_contain_text("✕ ")
        await expect(page.locator(".stream tbody")).to_contain_text("allowed, 3.2 ms")
        await context.close()


async def test_seven_tabs_share_one_stream_and_another_goes_on_when_one_is_closed(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        pages = [await live(context, site) for _ in range(TABS)]
        site.decide(50)
        for page in pages:
            await newest(page, site)
        assert site.streams == 1
        assert len(site.resumed) == 1
        last = site.sequence
        await pages[0].close()
        await site.until(lambda: len(site.resumed) == 2)
        assert site.resumed[1] == str(last), "it begins where the other left off"
        site.decide(50)
        for page in pages[1:]:
            await newest(page, site)
        await context.close()


async def test_a_browser_that_slept_is_told_how_much_was_left_out_and_goes_on(started: tuple[Browser, str]) -> None:
    browser, mark = started
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        asleep(mark)
        try:
            async with asyncio.timeout(60):
                while site.left_out < 5_000:
                    site.decide(500)
                    await asyncio.sleep(0)
        finally:
            asleep(mark, awake=True)
        await expect(page.locator(".note")).to_contain_text("left out here, because this page could not follow")
        site.decide(10)
        await newest(page, site)
        await context.close()


async def test_a_server_that_starts_again_is_found_again_and_asked_for_what_is_missing(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        site.decide(7)
        await newest(page, site)
        last = site.sequence
        site.answers["/api/live"] = (503, {"code": "bus_unavailable", "title": "", "detail": "", "remedy": []})
        site.cut()
        await page.locator("#pulse[data-state=lost]").wait_for()
        await expect(page.locator("#announcement")).to_contain_text("out of touch")
        del site.answers["/api/live"]
        await page.locator("#pulse[data-state=open]").wait_for()
        assert site.resumed[-1] == str(last)
        await context.close()


async def test_a_right_that_ends_ends_the_view_in_every_tab(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        pages = [await live(context, site), await live(context, site)]
        tabs = len(pages)
        site.over = {"code": "denied", "detail": "you may no longer look at this"}
        site.cut()
        for page in pages:
            await expect(page.get_by_role("alert")).to_contain_text("you may no longer look at this")
            await expect(page.locator("#pulse")).to_contain_text("ended")
            await expect(page.locator(".stream")).to_have_count(0)
        assert len(site.resumed) <= tabs, "each asks at most once"
        await context.close()


@pytest.mark.parametrize("place", ["/tasks", f"/decisions/{MESSAGE}", "/log"])
async def test_a_right_that_ends_takes_away_what_is_shown_anywhere(browser: Browser, place: str) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}{place}")).page
        shown = page.locator("#content :is(table, section, .pane, dl)").first
        await expect(shown).to_be_visible()
        site.answers["/api/session"] = (403, {"code": "denied", "title": "", "detail": "no more", "remedy": []})
        # As somebody who comes back to this tab; who looks at it asks every 15 seconds.
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await expect(page.get_by_role("alert")).to_contain_text("no more")
        await expect(page.locator("#content :is(table, section, .pane, dl)")).to_have_count(0)
        await context.close()


async def test_the_end_of_the_stream_takes_away_what_is_shown_beside_it(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/tasks")).page
        await expect(page.locator("#content table")).to_be_visible()
        await site.until(lambda: site.streams == 1)
        site.over = {"code": "denied", "detail": "you may no longer look at this"}
        site.cut()
        await expect(page.get_by_role("alert")).to_contain_text("you may no longer look at this")
        await expect(page.locator("#content table")).to_have_count(0)
        await context.close()


async def test_another_login_takes_the_place_of_the_one_that_ended(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/tasks")).page
        await site.until(lambda: site.streams == 1)
        site.over = {"code": "login_required", "detail": "the login has ended"}
        site.cut()
        await site.until(lambda: len(site.resumed) == 2 and site.streams == 1)
        await expect(page.locator("#pulse[data-state=open]")).to_be_attached()
        await expect(page.locator("#content table")).to_be_visible()
        await context.close()


async def test_a_login_that_ended_asks_for_another(browser: Browser) -> None:
    async with console_site() as site:
        site.answers["/api/live"] = (401, {"code": "no_login", "title": "", "detail": "", "remedy": []})
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, site.url)).page
        await expect(page.get_by_role("link", name="Log in")).to_have_attribute("href", "/login?to=%2F")
        await context.close()


async def test_filters_look_at_one_field_or_all(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        site.decide(200)
        await newest(page, site)
        rows = page.locator(".stream tbody tr:not([hidden])")
        for text, cell, value in (
            ("user:maría", ".for", "maría"),
            ("ACTION:ledger", "td:nth-child(2)", "ledger.post"),
            ("agent:planner billing", ".from", "planner"),
        ):
            await page.locator("[data-filter]").fill(text.lower())
            await page.wait_for_function(
                _ALL_ARE,
                arg=[cell, value],
            )
            assert await rows.count() > 0, text
        await page.locator("[data-filter]").fill("")
        await page.get_by_role("button", name="Denied").click()
        await expect(rows.first).to_have_class("denied")
        assert await page.locator(".stream tbody tr:not([hidden]):not(.denied)").count() == 0
        assert page.url == f"{site.url}/?decision=deny"
        await page.locator("[data-filter]").fill("nobody")
        await expect(page.locator(".rows .state")).to_contain_text("No decision of the last 2,000 fits.")
        await context.close()


async def test_pause_holds_the_rows_and_counts_what_comes(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        site.decide(10)
        await newest(page, site)
        await page.get_by_role("button", name="Pause").click()
        before = await page.locator(".stream tbody").inner_text()
        site.decide(30)
        await expect(page.locator("#stream-state")).to_have_text("Paused, 30 since")
        assert await page.locator(".stream tbody").inner_text() == before
        await page.get_by_role("button", name="Resume").click()
        await newest(page, site)
        await context.close()


async def test_the_map_shows_who_asks_whom_and_chooses_an_agent(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await live(context, site)
        await expect(page.locator(".map > g:not(.pill)")).to_have_count(30)
        await expect(page.locator(".map path.bad")).to_have_count(2)
        await expect(page.locator(".map .hot")).to_have_count(2)
        await page.locator(".map g", has_text="inventory").click()
        await expect(page.locator("[data-filter]")).to_have_value("agent:inventory")
        await page.get_by_text("The map as a table").click()
        await expect(page.locator(".map-table tr.denied")).to_have_count(2)
        await context.close()


async def test_a_tab_that_is_hidden_for_long_lets_go_of_the_stream(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await context.new_page()
        await page.clock.install()
        await page.goto(site.url)
        await settled(page)
        await page.locator("#pulse[data-state=open]").wait_for()
        await page.evaluate(_HIDE, True)
        await page.clock.fast_forward(31_000)
        async with asyncio.timeout(60):
            await page.evaluate(_LET_GO)
        await site.until(lambda: site.streams == 0)
        site.resumed.clear()
        await page.evaluate(_HIDE, False)
        await site.until(lambda: len(site.resumed) == 1)
        site.decide(1)
        await newest(page, site)
        await context.close()
