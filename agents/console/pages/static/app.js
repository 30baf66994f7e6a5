// The frame of the console: the logged-in person, the areas, the view of each path, the search, and the keyboard.

import { get, path, Refused } from "./api.js";
import { approvals } from "./approvals.js";
import { decision } from "./decision.js";
import { decisions } from "./decisions.js";
import { h, say } from "./dom.js";
import * as feed from "./feed.js";
import { live } from "./live.js";
import { agents, dead, schedules } from "./operations.js";
import { log, policy } from "./policy.js";
import { problem } from "./states.js";
import { tasks } from "./tasks.js";
import { name, number, when } from "./text.js";
import { whatIf } from "./what_if.js";

const AREAS = [
  ["live", "/", "Live"], ["decisions", "/decisions", "Decisions"], ["tasks", "/tasks", "Tasks"],
    ["approvals", "/approvals", "Approvals"],
  ["dead", "/dead", "Dead letters"], ["schedules", "/schedules", "Schedules"], ["agents", "/agents", "Agents"],
  ["policy", "/policy", "Policy"], ["log", "/log", "Log"], ["what-if", "/what-if", "What if"],
];
const VIEWS = { live, decisions, tasks, approvals, dead, schedules, agents, policy, log, "what-if": whatIf };
const COUNTED = 60_000;
const LOOKED = 15_000;
const ID = /\b(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b/i;

const main = document.getElementById("content");
let session = {};
let shown = null;

/** Return the view that shows a path, or null. */
const route = (where) => {
  const [, area = "", id = ""] = where.split("/");
  if (where === "/") return { area: "live", view: live };
  if (!(area in VIEWS) || area === "live") return null;
  return { area, id: unquoted(id), view: id && (area === "decisions" || area === "tasks") ? decision : VIEWS[area] };
};

const unquoted = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** Remove the view: a person who may no longer look must not see it any longer. */
const ended = (error) => {
  shown?.abort();
  document.querySelector("dialog[open]")?.close();
  main.replaceChildren(h("h1", null, "No longer shown"), problem(error, () => location.reload()));
};

/** Ask whether the person may still see the view. */
const looked = async () => {
  const found = route(location.pathname);
  if (!found || shown?.signal.aborted) return;
  const { signal } = shown;
  const area = found.view === decision ? "decision" : found.area.replace("-", "_");
  const item = found.view === decision && ID.exec(found.id ?? "")?.[0].replaceAll("-", "").toLowerCase();
  try {
    session = await get(path("/api/session", { area, item: item || "" }), signal);
    until();
  } catch (error) {
    if (!signal.aborted && (error.status === 401 || error.status === 403)) ended(error);
  }
};

const show = async (moved) => {
  shown?.abort();
  shown = new AbortController();
  const { signal } = shown;
  const found = route(location.pathname);
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.dataset.area === found?.area) {
      tab.setAttribute("aria-current", "page");
      tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.clientWidth / 2;
    } else tab.removeAttribute("aria-current");
  }
  main.className = `view-${found?.area ?? "none"}`;
  if (!found) {
    main.replaceChildren(h("h1", null, "No such page"),
      h("p", { class: "state" }, "Choose an area above, or paste an id into the search."));
  } else {
    const title = h("h1", { tabindex: "-1" }, found.view.title);
    main.replaceChildren(h("div", { class: "head" }, title));
    titled(found.view.title);
    found.view.show(main, { signal, id: found.id ?? "", query: new URLSearchParams(location.search), session, go,
      titled });
  }
  if (moved) {
    scrollTo(0, 0);
    (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  }
};

const titled = (title) => {
  document.title = `${title} · sealbus`;
};

/** Go to a path of the console. */
const go = (where, { replace = false } = {}) => {
  history[replace ? "replaceState" : "pushState"](null, "", where);
  if (!replace) show(true);
};

const header = () => {
  document.getElementById("domain").textContent = session.trust_domain ?? "";
  document.getElementById("tabs").replaceChildren(...AREAS.map(([area, href, title]) =>
    h("a", { href, "data-area": area }, title)));
  const who = document.getElementById("who");
  who.hidden = !session.user;
  who.children[0].replaceChildren(name(session.user, 24));
  who.children[1].replaceChildren(
    h("p", { class: "soft" }, "Logged in by ", name(session.idp)),
      h("p", { class: "soft", id: "until" }),
    h("button", {
      type: "button",
      onclick: async () => {
        await fetch("/logout", { method: "POST", headers: { "x-sealbus-console": "1" } }).catch(() => null);
        location.assign("/");
      },
    }, "Log out"));
  until();
};

/** Show the end of a login that nothing renews. */
const until = () =>
  document.getElementById("until")?.replaceChildren(...(session.until ? ["until ", when(session.until, true), " UTC"] : []));

const waiting = async () => {
  const found = await get("/api/approvals").catch(() => null);
  const tab = document.querySelector("#tabs a[data-area=approvals]");
  const open = found?.approvals?.length ?? 0;
  tab?.replaceChildren("Approvals", ...(open ? [h("b", null, number(open), h("span", { class: "unseen" }, " waiting"))]
    : []));
};

const pulse = () => {
  const place = document.getElementById("pulse");
  const words = { connecting: "connecting", open: "live", lost: "out of touch, trying again", over: "ended" };
  const showState = (state) => {
    place.dataset.state = state;
    place.lastElementChild.textContent = words[state];
    if (state === "lost" || state === "over") say(`Live view: ${words[state]}`);
  };
  showState(feed.state);
  feed.on("state", showState);
  feed.on("map", ({ decided }) => {
    if (feed.state === "open") place.lastElementChild.textContent = `${number(Math.round(decided))} a second`;
  });
};

const search = () => {
  const field = document.getElementById("find-id");
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = ID.exec(field.value);
    field.setCustomValidity(id ? ""
      : "An id has 32 or 64 digits from 0 to f: the field message_id of a refusal, for instance.");
    if (!id) return field.reportValidity();
    field.value = "";
    go(`/decisions/${id[0].replaceAll("-", "").toLowerCase()}`);
  });
  field.addEventListener("input", () => field.setCustomValidity(""));
};

const rowsBy = (link, step) => {
  const links = [...link.closest("tbody")
    .querySelectorAll("tr:not([hidden]) td a, tr:not([hidden]) th a")].filter((link, index, all) =>
    link.href && all.findIndex((other) => other.closest("tr") === link.closest("tr")) === index);
  const row = link.closest("tr");
  return links[links.findIndex((link) => link.closest("tr") === row) + step];
};

const keyboard = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    (main.querySelector("[data-filter]") ?? document.getElementById("find-id")).focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const link = event.target.closest?.("tbody a");
    const next = link ? rowsBy(link, event.key === "ArrowDown" ? 1 : -1)
      : event.key === "ArrowDown" && event.target.matches("[data-filter]")
        && main.querySelector("tbody tr:not([hidden]) a[href]");
    if (!next) return;
    event.preventDefault();
    next.focus();
  } else if (event.key === "Escape" && event.target.matches("[data-filter]")) event.target.blur();
};

const follows = (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey
    || event.altKey) return;
  if (link.origin !== location.origin || link.hasAttribute("download") || link.target
    || /^\/(login|api|static)\b/.test(link.pathname)) return;
  event.preventDefault();
  if (link.classList.contains("skip")) return main.focus();
  go(link.pathname + link.search);
};

const begin = async () => {
  addEventListener("popstate", () => show(true));
  document.addEventListener("click", follows);
  document.addEventListener("keydown", keyboard);
  document.addEventListener("click", (event) => {
    const who = document.getElementById("who");
    if (who.open && !who.contains(event.target)) who.open = false;
  });
  search();
  try {
    session = await get("/api/session");
  } catch (error) {
    if (error.status === undefined) throw error;
    header();
    main.replaceChildren(h("h1", { class: "unseen" }, "sealbus console"), problem(error, () => location.reload()));
    return;
  }
  header();
  pulse();
  feed.follow();
  show(false);
  waiting();
  addEventListener("verdict", waiting);
  setInterval(() => document.hidden || waiting(), COUNTED);
  setInterval(() => document.hidden || looked(), LOOKED);
  document.addEventListener("visibilitychange", () => document.hidden || looked());
  feed.on("over", async ({ code, detail, status }) => {
    // A new login, which an approval may need, replaces the login of the stream.
    if (code === "login_required" && await get("/api/session").then(() => true, () => false)) return feed.again();
    ended(new Refused(status ?? (code === "denied" ? 403 : 401), { code, detail }));
  });
};

begin();
