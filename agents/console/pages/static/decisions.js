// Older decisions, page by page, as the stream keeps them.

import { get, path } from "./api.js";
import { h } from "./dom.js";
import { empty, filled, problem } from "./states.js";
import { counted, DECISIONS, filters, rowOf, table } from "./tables.js";

const PAGE = 100;
const KEPT = 5_000;
const FIELDS = [
  { key: "agent", label: "Agent" }, { key: "user", label: "User" }, { key: "action", label: "Action" },
    { key: "reason", label: "Reason" },
  { key: "decision", label: "Decision", options: [["", "all"], ["deny", "denied"], ["allow", "allowed"]] },
  { key: "since", label: "Since, UTC", hint: "2026-11-26T02:00" },
    { key: "until", label: "Until, UTC", hint: "2026-11-26T03:00" },
];

/** Write a typed time as RFC 3339. A text that is no time is left as it is, and the server refuses it. */
export const typed = (text) => {
  const read = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?Z?$/.exec(text.trim());
  return read ? `${read[1]}T${read[2] ?? "00:00"}${read[3] ?? ":00"}Z` : text.trim();
};

const show = (main, { signal, query, go }) => {
  const place = h("div");
  const asked = Object.fromEntries(FIELDS.map(({ key }) => [key, query.get(key) ?? ""]));
  const page = (before) => get(path("/api/decisions",
    { ...asked, since: asked.since && typed(asked.since), until: asked.until && typed(asked.until), before,
    limit: PAGE }), signal);
  main.append(h("section", { class: "card", "aria-label": "Decisions" },
    filters(FIELDS, query, (values) => go(path("/decisions", values))), place));

  filled(place, signal, async () => {
    let { rows, before } = await page("");
    const list = rows.length ? table("Decisions, newest first", DECISIONS, rows, { denied: (row) => !row.allow })
      : null;
    const foot = h("div");
    const body = list?.querySelector("tbody");
    let shown = rows.length;
    const settled = () => foot.replaceChildren(counted(shown, "decision"), before && shown < KEPT
      ? h("p", { class: "foot" }, h("button", { type: "button", onclick: more },
        shown ? "Show older" : "Look further back"))
      : h("p", { class: "soft foot" }, before ? "More are there: narrow the filters to see them."
        : "That is all that the stream holds."));
    const more = async (event) => {
      event.target.disabled = true;
      try {
        ({ rows, before } = await page(before));
      } catch (error) {
        if (!signal.aborted) foot.replaceChildren(problem(error, settled));
        return;
      }
      if (!body && rows.length) return show(clear(main), { signal, query, go });
      shown += rows.length;
      body?.append(...rows.map((row) => rowOf(DECISIONS, row, !row.allow)));
      settled();
      foot.querySelector("button")?.focus();
    };
    settled();
    if (list) return [list, foot];
    return [empty("No decision fits.",
      before ? "The newest part of the stream holds none. Look further back, or change the filters."
      : "Change the filters: agent, user and action are compared whole."), foot];
  }, "Reading the stream");
};

const clear = (main) => {
  main.lastChild.remove();
  return main;
};

export const decisions = { title: "Decisions", show };
