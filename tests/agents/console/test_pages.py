"""The console's pages in a real browser: what each area shows, and what one can do there."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Browser, FilePayload, expect
from support.browser import DESK, PHONE, Watched, settled
from support.console_answers import ALLOWED, LEAF, MANY, MESSAGE
from support.console_server import console_site
from support.shapes import optional_fields

from sealbus.agents.console.documents import DOCUMENTS, EVENTS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

VIEWS = {
    "/": ("Live", ["30 agents", "inventory.read"]),
    "/decisions": ("Decisions", ["not_owner", "Show older"]),
    f"/decisions/{ALLOWED}": ("Allowed.", ["The rules that allowed", "Still allowed by the policy in force"]),
    f"/decisions/{MANY}": ("2 decisions about this message", ["not_owner"]),
    "/tasks": ("Tasks", ["input-required", "3 of 8 shelves counted", "✕ not verified", "1 message could not be read"]),
    f"/tasks/{MESSAGE}": ("Denied.", ["The rules that denied"]),
    "/approvals": ("Approvals", ["delete the account of customer acme"]),
    "/approvals/ap-1": ("Waiting. Refund of 240.00 EUR", ["not older than 300 s", "Why it waits", '"amount": 240']),
    "/approvals/gone": ("Approval", ["This does not wait any more."]),
    "/dead": ("Dead letters", ["handler_error", "5 dead letters"]),
    "/schedules": ("Schedules", ["0 7 * * MON", "Asked by"]),
    "/agents": ("Agents", ["delivered again", "10 agents"]),
    "/policy": ("Policy", ["platform-2026", "1f0c2d3e4a5b.platform-12"]),
    "/log": ("Log", ["1,204,500", "Verify now"]),
    "/what-if": ("What if", ["Nothing is pushed"]),
    "/nonsense": ("No such page", ["Choose an area"]),
}


MAY_BE_MISSING = frozenset[str]().union(*map(optional_fields, (*DOCUMENTS.values(), *EVENTS.values())))
"""What a page may look for in vain. What tests invent has all else (`test_documents`), so what is not there is never sent."""
REFUSED = frozenset({"message", "reasons"})
"""What a page looks for in every refusal; that of something that is not there has neither."""


@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
async def test_each_area_shows_what_it_is_told(browser: Browser, device: dict[str, object]) -> None:
    async with console_site() as site:
        context = await browser.new_context(**device)  # type: ignore[arg-type]
        found = await Watched.of(context, site.url)
        for path, (title, texts) in VIEWS.items():
            await found.open(site.url + path)
            await expect(found.page.locator("main h1")).to_contain_text(title)
            for text in texts:
                await expect(found.page.locator("main")).to_contain_text(text)
            width = await found.page.evaluate("document.documentElement.scrollWidth")
            assert width <= device["viewport"]["width"], path  # type: ignore[index]
            # The browser says of itself that what is gone was not found.
            assert [one for one in found.errors if path != "/approvals/gone" or "404 (Not Found)" not in one] == [], (
                path
            )
            found.errors.clear()
            # Nor has its refusal what others have.
            missing = await found.unsent() - (REFUSED if path == "/approvals/gone" else frozenset())
            assert missing <= MAY_BE_MISSING, path
        await context.close()


async def test_two_clicks_lead_from_the_id_in_a_403_to_rule_line_value_and_remedy(browser: Browser) -> None:
    """The first click is into the search, the second on Find; what was pasted may be the whole answer."""
    refusal = json.dumps(
        {"type": "about:blank", "status": 403, "code": "denied", "message_id": MESSAGE, "reasons": ["not_owner"]}
    )
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, site.url)
        page = found.page
        await page.get_by_role("searchbox", name="Id of a message or record").click()
        await page.keyboard.insert_text(refusal)
        await page.get_by_role("button", name="Find").click()
        await expect(page.locator("h1")).to_have_text(
            "Denied. The item belongs to somebody else, and 5,000 is over the limit of 100."
        )
        rule = page.locator(".rule").first
        await expect(rule.locator(".tag-no")).to_have_text("not_owner")
        await expect(rule.locator(".at")).to_have_text(re.compile(r"^sealbus/lib/rules\.rego:\d+$"))
        failed = rule.locator(".hit").first
        await expect(failed).to_contain_text("user.id == properties.owner")
        await expect(failed.locator(".sign")).to_have_text("✕ ")
        await expect(failed.locator(".val")).to_contain_text('"alice" is not "bob"')
        await expect(page.locator(".rule").nth(1).locator(".hit")).to_contain_text("5000 is over 100")
        await expect(rule.locator(".remedy")).to_contain_text("Let its owner ask")
        assert page.url == f"{site.url}/decisions/{MESSAGE}"
        assert await page.title() == "Denied: inventory.update · sealbus"
        assert found.errors == []
        await context.close()


async def test_the_decision_keeps_acting_agent_owner_and_approver_apart(browser: Browser) -> None:
    async with console_site() as site:
        site.answers[f"/api/decisions/{MESSAGE}"]["decisions"][0]["approver"] = [
            {"user": "mona", "verdict": "approve", "time": "2026-11-26T02:14:07.318Z"}
        ]
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/decisions/{MESSAGE}")).page
        parts = page.locator(".parts > div")
        await expect(parts.nth(0)).to_have_text(re.compile("Acting agent.*shop-web"))
        await expect(parts.nth(1)).to_have_text(re.compile("Owner of the work.*alice"))
        await expect(parts.nth(2)).to_have_text(re.compile("Approver.*mona.*approve"))
        links = page.locator(".chain .link")
        await expect(links).to_have_count(4)
        await expect(links.nth(1)).to_contain_text("user context signed, bound to shop-web")
        await expect(links.nth(3)).to_contain_text("policy: denied by 2 rules")
        assert await page.locator("mark.bad").all_text_contents() == [
            "bob (looked at, failed)",
            "alice (looked at, failed)",
        ]
        await expect(page.get_by_role("link", name="Save receipt")).to_have_attribute(
            "href", f"/api/decisions/{LEAF}/receipt"
        )
        await page.get_by_role("link", name="Try another policy").click()
        await expect(page.get_by_label("Since, UTC")).to_have_value(re.compile(r"^\d{4}-\d\d-\d\dT01:44:07"))
        await context.close()


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("redacted", "was redacted"),
        ("other_result", "decides otherwise than was recorded"),
        ("no_policy", "not in the archive"),
        ("new_word", "cannot be explained"),
    ],
)
async def test_a_decision_that_cannot_be_explained_says_why_and_still_what_would_help(
    browser: Browser, why: str, text: str
) -> None:
    async with console_site() as site:
        one = site.answers[f"/api/decisions/{MESSAGE}"]["decisions"][0]
        one |= {
            "explanation": {"explained": False, "why": why, "detail": "the field x"},
            "input": None,
            "again": None,
            "outcome": None,
            "policy": None,
        }
        one["evidence"] |= {"logged": None, "receipt": None}
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, f"{site.url}/decisions/{MESSAGE}")
        await expect(found.page.locator("main")).to_contain_text(text)
        await expect(found.page.locator(".rule .remedy").first).to_contain_text("Let its owner ask")
        await expect(found.page.get_by_role("link", name="Save receipt")).to_have_count(0)
        assert found.errors == []
        await context.close()


async def test_what_is_no_id_is_told_and_goes_nowhere(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/log")).page
        field = page.get_by_role("searchbox", name="Id of a message or record")
        await field.fill("42")
        await page.get_by_role("button", name="Find").click()
        assert "32 or 64" in await field.evaluate("field => field.validationMessage")
        assert page.url == f"{site.url}/log"
        await field.fill("a" * 32)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("No decision about this id")
        await context.close()


CANCEL = {"handle": "handle-1", "action": "inventory.update"}
"""What the console's agent refuses a cancel without (`sealbus.agents.console.agent.Cancel`)."""


async def test_a_task_is_canceled_with_a_reason_after_being_asked(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, f"{site.url}/tasks")
        page = found.page
        await page.get_by_role("button", name="Cancel").first.click()
        dialog = page.get_by_role("dialog", name="Cancel this task?")
        await dialog.get_by_role("button", name="Cancel the task").click()
        assert site.posted == [], "a reason is required"
        await dialog.get_by_label("Reason").fill("ordered twice")
        site.answers["/api/tasks/cancel"] = (
            403,
            {"code": "denied", "title": "", "detail": "", "reasons": ["not_granted"], "remedy": [], "message": MESSAGE},
        )
        await dialog.get_by_role("button", name="Cancel the task").click()
        await expect(dialog).to_contain_text("Denied by policy")
        await expect(dialog).to_contain_text("not_granted")
        site.answers["/api/tasks/cancel"] = {"canceled": True, "message": MESSAGE}
        await dialog.get_by_role("button", name="Cancel the task").click()
        await expect(dialog).to_have_count(0)
        path, body, headers = site.posted[-1]
        assert (path, body) == ("/api/tasks/cancel", {**CANCEL, "reason": "ordered twice"})
        assert headers["x-sealbus-console"] == "1"
        await expect(page.locator("#announcement")).to_have_text("The task is canceled")
        await context.close()


async def test_filters_are_in_the_address_and_reach_the_server(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/tasks")).page
        await page.get_by_label("Agent").fill("inventory")
        async with page.expect_request(lambda request: "/api/tasks?" in request.url) as asked:
            await page.get_by_label("State").select_option("failed")
        assert "agent=inventory&state=failed&limit=50" in (await asked.value).url
        assert page.url == f"{site.url}/tasks?agent=inventory&state=failed"
        await page.go_back()
        await settled(page)
        await expect(page.get_by_label("Agent")).to_have_value("")
        await context.close()


async def test_older_decisions_come_page_by_page(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/decisions")).page
        await expect(page.locator("tbody tr")).to_have_count(100)
        await page.get_by_role("button", name="Show older").click()
        await expect(page.locator("tbody tr")).to_have_count(200)
        sequences = await page.locator("tbody tr time").evaluate_all("all => all.map(one => one.dateTime)")
        assert sequences == sorted(sequences, reverse=True)
        await page.get_by_label("Since, UTC").fill("2026-11-26 02:00")
        async with page.expect_request(lambda request: "since=" in request.url) as asked:
            await page.get_by_role("button", name="Apply").click()
        assert "since=2026-11-26T02%3A00%3A00Z" in (await asked.value).url
        await context.close()


async def test_a_verdict_is_given_with_a_note_and_another_login_is_offered_where_it_is_needed(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/approvals/ap-1")).page
        site.answers["/api/approvals/ap-1"] = (
            403,
            {
                "code": "denied",
                "title": "",
                "detail": "",
                "reasons": ["login_too_old"],
                "remedy": [{"kind": "login", "text": "log in again by mfa", "acr": ["mfa"], "max_age": 300}],
            },
        )
        await page.get_by_role("button", name="Approve").click()
        dialog = page.get_by_role("dialog", name="Approve this?")
        await dialog.get_by_label("Note").fill("seen the order")
        await dialog.get_by_role("button", name="Approve").click()
        again = dialog.get_by_role("link", name="Log in again")
        await expect(again).to_have_attribute("href", "/login?to=%2Fapprovals%2Fap-1&acr=mfa&max_age=300")
        site.answers["/api/approvals/ap-1"] = {}
        await dialog.get_by_role("button", name="Approve").click()
        await page.wait_for_url("**/approvals")
        assert site.posted[-1][1] == {"decision": LEAF, "verdict": "approve", "note": "seen the order"}
        await context.close()


async def test_what_if_sends_the_files_and_lists_what_flips(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(
            context, f"{site.url}/what-if?since=2026-11-26T01:44:07.318Z&until=2026-11-26T02:44:07.318Z"
        )
        page = found.page
        # The file that decides is there already, to be changed; another takes its place while nothing is.
        await expect(page.get_by_label("Its text, changed")).to_have_value(
            "package sealbus.authz\n\ndecision := decide(input)\n"
        )
        await page.get_by_label("File of the policy in force").select_option("approval/decision.rego")
        await expect(page.get_by_label("Its text, changed")).to_have_value("package sealbus.approval\n")
        await page.get_by_label("File of the policy in force").select_option("authz/decision.rego")
        await expect(page.locator("fieldset")).to_have_count(1)
        await page.get_by_label("Its text, changed").fill("package sealbus.authz")
        await page.locator("#upload").set_input_files(
            FilePayload(name="limits.rego", mimeType="text/plain", buffer=b"package shop")
        )
        await expect(page.locator("fieldset")).to_have_count(2)
        await page.get_by_role("button", name="Compare").click()
        await expect(page.locator("main")).to_contain_text(
            "3 decisions would flip of 4,210 that were made again. 1 to denied, 2 to allowed."
        )
        body = site.posted[-1][1]
        assert body == {
            "since": "2026-11-26T01:44:07.318Z",
            "until": "2026-11-26T02:44:07.318Z",
            "files": {"authz/decision.rego": "package sealbus.authz", "authz/limits.rego": "package shop"},
        }
        site.answers["/api/what-if"] = (
            400,
            {
                "code": "policy_refused",
                "title": "This policy is refused",
                "detail": "decision.rego:3: no such function",
                "remedy": [],
            },
        )
        await page.get_by_role("button", name="Compare").click()
        await expect(page.get_by_role("alert")).to_contain_text("decision.rego:3: no such function")
        await context.close()


async def test_the_log_is_verified_on_demand(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = (await Watched.of(context, f"{site.url}/log")).page
        await page.get_by_role("button", name="Verify now").click()
        await expect(page.get_by_role("status").filter(has_text="Verified")).to_contain_text("1,204,500 entries")
        site.answers["/api/log/verify"] = {"passed": False, "findings": 2, "size": 10, "seconds": 0.1}
        await page.get_by_role("button", name="Verify now").click()
        await expect(page.locator(".note.bad")).to_contain_text("2 findings in 10 entries")
        site.answers["/api/log"] = {"log": None}
        await page.reload()
        await expect(page.locator("main")).to_contain_text("This deployment has no log.")
        await context.close()


@pytest.mark.parametrize(
    ("waiting", "mark", "text"),
    [
        (0, "ok", "every record is under it"),
        (2.4, "ok", "wait for 2 s"),
        (60.0, "ok", "wait for 60 s"),
        (61, "no", "records have waited for 61 s"),
        (86_400 * 9, "no", "records have waited for 9 d"),
        (None, "wait", "it is not known whether records wait"),
        ("NaN", "wait", "it is not known whether records wait"),
    ],
)
async def test_the_log_warns_where_records_wait_for_a_checkpoint(
    browser: Browser, waiting: object, mark: str, text: str
) -> None:
    async with console_site() as site:
        site.answers["/api/log"]["log"]["waiting_s"] = waiting
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, f"{site.url}/log")
        await expect(found.page.locator(f"main .mark-{mark}")).to_contain_text(text)
        await expect(found.page.locator("main .mark-ok")).to_have_count(1 if mark == "ok" else 0)
        await expect(found.page.get_by_text("is the notary running?")).to_have_count(1 if mark == "no" else 0)
        assert "NaN" not in await found.page.locator("main").inner_text()
        assert found.errors == []
        await context.close()


async def test_a_log_that_was_well_when_it_was_opened_warns_later(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        page = await context.new_page()
        await page.clock.install()
        await page.goto(f"{site.url}/log")
        await settled(page)
        await expect(page.locator("main .mark-ok")).to_have_count(1)
        site.answers["/api/log"]["log"]["waiting_s"] = 90
        await page.clock.run_for(16_000)
        await expect(page.get_by_role("alert")).to_contain_text("is the notary running?")
        site.answers["/api/log"] = (
            503,
            {"code": "bus_unavailable", "title": "The bus is away", "detail": "", "remedy": []},
        )
        await page.clock.run_for(16_000)
        await expect(page.get_by_role("alert")).to_contain_text("The bus is away")
        await expect(page.locator("main .mark-ok")).to_have_count(0)
        await context.close()


async def test_the_live_view_says_what_did_not_verify_and_that_nothing_comes(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, site.url)
        site.news = {"unverified": 2, "problem": "stream AUDIT does not exist"}
        main = found.page.locator("main")
        await expect(main).to_contain_text("2 messages not verified")
        await expect(main).to_contain_text("The stream cannot be read now: stream AUDIT does not exist")
        await context.close()


EMPTY = {
    "/decisions/" + "0" * 32: (f"/api/decisions/{'0' * 32}", {"decisions": []}, "No decision about this id"),
    "/tasks": ("/api/tasks", {"tasks": [], "unreadable": 0}, "No task fits."),
    "/approvals": ("/api/approvals", {"approvals": [], "queues": []}, "Nothing waits for you."),
    "/dead": ("/api/dead", {"letters": []}, "No dead letters."),
    "/agents": ("/api/agents", {"agents": []}, "No agent is known."),
    "/schedules": ("/api/schedules", {"schedules": []}, "No schedules."),
    "/policy": (
        "/api/policy",
        {"engine": "sidecar", "revision": "r", "problem": "", "parts": []},
        "one file of the deployment",
    ),
}


async def test_what_is_empty_refused_or_out_of_reach_says_what_to_do_next(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, site.url)
        for path, (asked, body, text) in EMPTY.items():
            kept, site.answers[asked] = site.answers.get(asked), body
            await found.open(site.url + path)
            await expect(found.page.locator("main")).to_contain_text(text)
            assert found.errors == [], path
            site.answers[asked] = (
                503,
                {"code": "bus_unavailable", "title": "The bus cannot be reached", "detail": "", "remedy": []},
            )
            await found.page.reload()
            await expect(found.page.get_by_role("alert")).to_contain_text("The bus cannot be reached")
            site.answers[asked] = (
                403,
                {
                    "code": "denied",
                    "title": "",
                    "detail": "",
                    "reasons": ["not_an_operator"],
                    "message": MESSAGE,
                    "remedy": [{"kind": "ask", "text": "ask an administrator for the role"}],
                },
            )
            await found.page.get_by_role("button", name="Try again").click()
            alert = found.page.get_by_role("alert")
            await expect(alert).to_contain_text("Denied by policy")
            await expect(alert).to_contain_text("not_an_operator")
            await expect(alert).to_contain_text("ask an administrator for the role")
            await expect(alert.get_by_role("link")).to_have_attribute("href", f"/decisions/{MESSAGE}")
            site.answers[asked] = kept
            found.errors.clear()
        await context.close()


async def test_an_answer_of_another_version_is_told_instead_of_loading_for_ever(browser: Browser) -> None:
    async with console_site() as site:
        site.answers["/api/agents"] = {"workers": []}
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, f"{site.url}/agents")
        await expect(found.page.get_by_role("alert")).to_contain_text("reload the page")
        assert len(found.errors) == 1, "who looks for the cause finds it"
        await found.open(f"{site.url}/decisions/%zz")
        await expect(found.page.locator("h1")).to_have_text("No decision about this id")
        await context.close()


async def test_who_is_not_logged_in_is_sent_to_log_in_and_comes_back(browser: Browser) -> None:
    async with console_site() as site:
        site.answers["/api/session"] = (401, {"code": "no_login", "title": "", "detail": "", "remedy": []})
        context = await browser.new_context(**PHONE)
        page = (await Watched.of(context, f"{site.url}/decisions/{MESSAGE}?x=1")).page
        await expect(page.get_by_role("link", name="Log in")).to_have_attribute(
            "href", f"/login?to=%2Fdecisions%2F{MESSAGE}%3Fx%3D1"
        )
        await expect(page.locator("#tabs a")).to_have_count(10)
        await context.close()


async def test_all_of_it_can_be_done_by_keyboard(browser: Browser) -> None:
    async with console_site() as site:
        context = await browser.new_context(**DESK)
        found = await Watched.of(context, site.url)
        page = found.page
        await expect(page.locator("tbody tr:not([hidden])").first).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await page.keyboard.press("/")
        await expect(page.locator("[data-filter]")).to_be_focused()
        await page.keyboard.type("allowed/")
        await expect(page.locator("[data-filter]")).to_have_value("allowed/")
        await page.locator("[data-filter]").fill("")
        await expect(page.locator("tbody tr:not([hidden])").first).to_be_visible()
        await page.keyboard.press("ArrowDown")
        first = page.locator(".stream tbody a").nth(0)
        await expect(first).to_be_focused()
        await expect(page.locator("#stream-state")).to_contain_text("Held")
        await page.keyboard.press("ArrowDown")
        second = page.locator(".stream tbody a").nth(1)
        await expect(second).to_be_focused()
        await page.keyboard.press("ArrowUp")
        await expect(first).to_be_focused()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/decisions/*")
        await expect(page.locator("main h1")).to_be_focused()
        await page.locator("#tabs a", has_text="Tasks").focus()
        await page.keyboard.press("Enter")
        await settled(page)
        await expect(page.locator("main h1")).to_be_focused()
        await page.get_by_role("button", name="Cancel").first.focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Reason")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await context.close()
