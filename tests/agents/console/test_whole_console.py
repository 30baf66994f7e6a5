"""Server and pages together, on a whole environment and in a real browser: from a 403 to its reason, for who logs in."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, expect
from support.browser import DESK, Watched, settled

from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.dev.users import dev_token
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.background import Background

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.nats, pytest.mark.asyncio(loop_scope="module")]


async def test_my_task_was_denied_last_night(browser: Browser, tmp_path: Path) -> None:
    options = DevOptions(folder=tmp_path, agents=("inventory", "pricing"), port=0, notary=True, console_port=0)
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(open_environment(options))
        group, stop = await stack.enter_async_context(Background()), asyncio.Event()
        for agent in (inventory.agent, pricing.agent):
            node = await stack.enter_async_context(open_node(agent.name, shop.settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        token = await asyncio.to_thread(dev_token, shop.settings, "carol")
        async with httpx2.AsyncClient(base_url=shop.edge.front.resource, timeout=60) as edge:
            refused = await edge.post(
                "/v1/calls/inventory/read", json={"item_id": "42"}, headers={"authorization": f"Bearer {token}"}
            )
        assert refused.status_code == 403
        context = await browser.new_context(**DESK)
        found = Watched(await context.new_page())
        page = found.page
        await page.goto(f"{shop.console}/login?to=/")
        await page.get_by_text("Olga").click()
        await page.wait_for_url(f"{shop.console}/")
        await settled(page)
        await page.get_by_role("searchbox", name="Id of a message or record").click()
        await page.keyboard.insert_text(refused.headers["x-request-id"])
        await page.get_by_role("button", name="Find").click()
        main = page.locator("main")
        await expect(main.locator("h1")).to_contain_text("Denied.")
        for text in ("not_owner", "user.id == properties.owner", '"carol"', '"alice"', "Let its owner ask"):
            await expect(main).to_contain_text(text)
        # What is decided now comes by itself.
        await page.get_by_role("link", name="Live", exact=True).click()
        await settled(page)
        async with httpx2.AsyncClient(base_url=shop.edge.front.resource, timeout=60) as edge:
            token = await asyncio.to_thread(dev_token, shop.settings, "alice")
            await edge.post(
                "/v1/tasks/inventory/update", json={"item_id": "42", "quantity": 5000},
                headers={"authorization": f"Bearer {token}"},
            )  # fmt: skip
        await expect(main).to_contain_text("over_limit")
        # Of these pages nothing was refused by the browser, and nothing failed.
        assert found.errors == []
        await context.close()
        stop.set()
