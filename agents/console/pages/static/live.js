// The live view: a map of senders and deciders, and the newest decisions. The ring, the rows and the paints are bounded:
// under any load, at most one paint a frame changes a fixed set of rows.

import { get, path } from "./api.js";
import { h, say } from "./dom.js";
import * as feed from "./feed.js";
import { drawnMap } from "./map.js";
import { empty } from "./states.js";
import { clock, count, cut, milliseconds, name, nodes, number, unseen } from "./text.js";

const RING = 2_000;
const FIELD = 200;
const SPOKEN = 15_000;
const FRAME = 16;
const REST = 250;
const COLUMNS = [["time", "Time, UTC"], ["", "Action"], ["from", "From"], ["for", "For"], ["out", "Outcome"]];
const FIELDS = { agent: (row) => `${row.from} ${row.by}`, user: (row) => row.user, action: (row) => row.action,
  reason: (row) => row.reasons.join(" ") };

// A slice of a long string keeps all of it in memory.
const kept = (text) => (text.length <= FIELD ? text : [...cut(text, FIELD)].join(""));

const slim = (row) => {
  for (const field of ["action", "from", "by", "user"]) row[field] = kept(row[field] ?? "");
  row.reasons = (row.reasons ?? []).slice(0, 8).map(kept);
  row.outcome = "";
  return row;
};

const isAnswer = (row) => row.allow && row.action.endsWith(".reply");

/** Return a function that tells whether a row matches: words anywhere, or `user:alice` in one field; `denied` only denials. An
  answer, about which its requester's policy decides, is wanted only with `answers`, or if it was denied. */
export const wanted = (text, denied, answers = true) => {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, field, value] = /^(agent|user|action|reason):(.+)$/.exec(word) ?? [];
    return field ? (row) => FIELDS[field](row).toLowerCase().includes(value)
      : (row) => Object.values(FIELDS).some((of) => of(row).toLowerCase().includes(word));
  });
  return (row) => !(denied && row.allow) && (answers || !isAnswer(row)) && words.every((holds) => holds(row));
};

/** A cell whose text is replaced only if it changed; chips only where they are needed. */
const cell = (className, place = h("bdi")) => {
  const text = document.createTextNode("");
  let now = "";
  place.append(text);
  return {
    td: h("td", { class: className }, place),
    set: (value) => {
      if (value === now) return;
      if (unseen(now) || unseen(value)) place.replaceChildren(...(unseen(value) ? nodes(value) : [text]));
      if (!unseen(value)) text.data = value;
      now = value;
    },
  };
};

const rowOf = () => {
  const label = h("bdi");
  const action = cell("m main", label);
  const link = h("a", null, label);
  action.td.append(link);
  const cells = [cell("m time"), action, cell("from"), cell("for"), cell("out")];
  const tr = h("tr", { hidden: true }, cells.map(({ td }) => td));
  let href = null, kind = null;
  return {
    tr,
    set: (row) => {
      if (tr.hidden !== !row) tr.hidden = !row;
      if (!row) return;
      cells[0].set(clock(row.time));
      action.set(row.action || "empty");
      cells[2].set(!row.by || row.action.startsWith(`${row.by}.`) ? row.from : `${row.from} → ${row.by}`);
      cells[3].set(row.user || "–");
      const times = row.count ? ` ×${number(row.count)}` : "";
      cells[4].set(row.allow ? `allowed${row.outcome}` : `✕ ${row.reasons.join(", ") || row.code}${times}`);
      const to = row.message || row.record;
      if (to !== href) {
        href = to;
        if (to) link.setAttribute("href", `/decisions/${encodeURIComponent(to)}`);
        else link.removeAttribute("href");
      }
      if (row.allow !== kind) tr.className = (kind = row.allow) ? "" : "denied";
    },
  };
};

const table = (rows) =>
  h("table", { class: "stream" }, h("caption", { class: "unseen" }, "Newest decisions, newest first"),
    h("thead", null, h("tr", null, COLUMNS.map(([kind, title]) => h("th", { scope: "col", class: kind }, title)))),
    h("tbody", null, rows.map(({ tr }) => tr)));

const show = (main, { signal, query, go }) => {
  const rows = Array.from({ length: matchMedia("(max-width: 820px)").matches ? 20 : 24 }, rowOf);
  let ring = [], matching = [], byRecord = new Map();
  let fits = () => true, newest = 0, paused = false, held = false, due = false, missed = 0, spoken = 0, rest = 0;

  const summary = h("p", { class: "soft" }, "waiting for the first news");
  const gap = h("p", { class: "note", role: "status", hidden: true });
  const none = h("div", { hidden: true });
  const map = drawnMap((agent) => {
    const chosen = `agent:${agent}`;
    filter.value = filter.value === chosen ? "" : chosen;
    filtered();
    addressed();
  });
  const filter = h("input", { type: "search", "data-filter": true,
    "aria-label": "Filter decisions by agent, user, action or reason", maxlength: "400",
    placeholder: "Filter: agent, user, action, reason", value: query.get("q") ?? "",
    oninput: () => filtered(), onchange: () => addressed() });
  const addressed = () => go(path("/", { q: filter.value, decision: only ? "deny" : "", answers: answers ? "yes" : "" }),
    { replace: true });
  const choice = (title, denied) => h("button", { type: "button", "aria-pressed": "false",
    onclick: () => { only = denied; filtered(); addressed(); } }, title);
  let only = query.get("decision") === "deny";
  let answers = query.get("answers") === "yes";
  const choices = [choice("All", false), choice("Denied", true)];
  const replies = h("button", { type: "button", "aria-pressed": String(answers),
    onclick: () => { answers = !answers; filtered(); addressed(); } }, "Answers");
  const pause = h("button", { type: "button", onclick: () => { paused = !paused; missed = 0; settle(); } }, "Pause");
  const older = h("a", { href: "/decisions" }, "Older decisions");
  const state = h("span", { class: "soft", id: "stream-state" });

  const paint = () => {
    const began = performance.now();
    due = false;
    if (signal.aborted) return;
    if (paused || held) return settle();
    rows.forEach((row, index) => row.set(matching[index]));
    none.hidden = matching.length > 0;
    // The browser lays out and draws the frame before this runs. On a slow machine an equal pause follows, for other frames.
    setTimeout(() => { rest = performance.now() + Math.min(REST, performance.now() - began); });
  };
  const soon = () => {
    if (due) return;
    due = true;
    const wait = rest - performance.now();
    if (wait > FRAME) setTimeout(() => requestAnimationFrame(paint), wait - FRAME);
    else requestAnimationFrame(paint);
  };
  const settle = () => {
    pause.textContent = paused ? "Resume" : "Pause";
    pause.className = paused ? "main" : "";
    const why = paused ? "Paused" : held ? "Held while you are in the rows" : "";
    state.textContent = why && `${why}, ${number(missed)} since`;
    if (!paused && !held) { missed = 0; soon(); }
  };
  const filtered = () => {
    fits = wanted(filter.value, only, answers);
    replies.setAttribute("aria-pressed", String(answers));
    choices.forEach((button, index) => button.setAttribute("aria-pressed", String(Boolean(index) === only)));
    older.href = path("/decisions", { decision: only ? "deny" : "" });
    matching = [];
    for (let index = ring.length - 1; index >= 0 && matching.length < rows.length; index--)
      if (fits(ring[index])) matching.push(ring[index]);
    none.replaceChildren(filter.value || only
      ? empty("No decision of the last 2,000 fits.", "Change the filter, or look among older decisions.")
      : empty("No decisions yet.", "As soon as an agent asks another, it appears here. sealbus pub sends a first task."));
    if (paused || held) rows.forEach((row, index) => row.set(matching[index]));
    none.hidden = matching.length > 0;
    soon();
  };
  const take = (found) => {
    const fresh = [];
    const before = newest;
    for (const entry of found) {
      // Rows that are in both the first page and the stream. A message of the stream has several records.
      if (entry.sequence < before || byRecord.has(entry.record)) continue;
      newest = entry.sequence;
      const row = slim(entry);
      ring.push(row);
      if (row.record) byRecord.set(row.record, row);
      if (fits(row)) fresh.unshift(row);
    }
    if (ring.length > RING * 1.25) {
      for (const row of ring.slice(0, ring.length - RING)) byRecord.delete(row.record);
      ring = ring.slice(-RING);
    }
    if (!fresh.length) return;
    missed += fresh.length;
    matching = fresh.concat(matching).slice(0, rows.length);
    soon();
  };
  const hold = (now) => {
    if (now === held) return;
    held = now;
    missed = 0;
    settle();
  };

  const shown = table(rows);
  const body = shown.tBodies[0];
  body.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && hold(true));
  body.addEventListener("pointerleave", () => hold(body.contains(document.activeElement)));
  body.addEventListener("focusin", () => hold(true));
  body.addEventListener("focusout", ({ relatedTarget }) => hold(body.contains(relatedTarget)));
  body.addEventListener("pointerdown", () => hold(true));

  main.firstChild.append(summary);
  main.append(gap, h("div", { class: "live" },
    h("section", { class: "card", "aria-label": "Who asks whom" }, map.element),
    h("section", { class: "card", "aria-label": "Decisions" },
      h("div", { class: "filters" }, filter, h("span",
        { class: "choices", role: "group", "aria-label": "Which decisions" }, choices), replies, pause),
      h("div", { class: "rows" }, shown, none), h("p", { class: "foot" }, older, state))));
  filtered();

  feed.on("decisions", ({ rows: found }) => take(found), signal);
  feed.on("outcomes", ({ rows: found }) => {
    for (const { record, outcome, ms } of found) {
      const row = byRecord.get(record);
      if (row) row.outcome = outcome === "done" ? (typeof ms === "number" ? `, ${milliseconds(ms)}` : "")
        : `, then ${outcome}`;
    }
    soon();
  }, signal);
  feed.on("map", (news) => {
    map.draw(news);
    const denied = `${number(news.denied_minute)} denied in the last minute`;
    const decided = count(Math.round(news.decided), "decision");
    summary.replaceChildren(...[`${count(news.agents.length, "agent")}, ${decided} a second, `,
      h("span", { class: news.denied_minute ? "no" : "" }, denied),
      news.unverified > 0 && h("span", { class: "no" }, `, ${count(news.unverified, "message")} not verified`),
      news.problem && h("span", { class: "wait" }, ". The stream cannot be read now: ", name(news.problem, 200)),
    ].filter(Boolean));
    if (Date.now() - spoken > SPOKEN && news.denied_minute) {
      spoken = Date.now();
      say(summary.textContent);
    }
  }, signal);
  feed.on("gap", ({ left_out: left }) => {
    gap.hidden = false;
    gap.replaceChildren(`${count(left, "decision")} left out here, because this page could not follow. All are among `,
      h("a", { href: "/decisions" }, "the older decisions"), ".");
  }, signal);
  get("/api/decisions?limit=40", signal).then(({ rows: found }) => {
    if (!ring.length) take([...found].reverse());
    else {
      const early = found.filter((row) => row.sequence < ring[0].sequence).map(slim).reverse();
      ring = [...early, ...ring];
      filtered();
    }
  }).catch(() => null);
};

export const live = { title: "Live", show };
