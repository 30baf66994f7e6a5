// Agents, dead letters and schedules.

import { get, path } from "./api.js";
import { h } from "./dom.js";
import { empty, filled, mark } from "./states.js";
import { counted, filters, table } from "./tables.js";
import { code, name, number, short, since, when, whole } from "./text.js";

const none = (text = "–") => h("span", { class: "soft" }, text);
const list = (values) => (values?.length ? values.slice(0, 12)
  .map((value, index) => [index > 0 && ", ", code(value, 48)]) : none());
const READY = { ready: "ok", full: "wait", away: "no" };

const queue = (tasks) => (tasks ? [`${number(tasks.waiting)} waiting, ${number(tasks.in_hand)} in hand`,
  tasks.redelivered > 0 && h("span", { class: "wait line" }, `${number(tasks.redelivered)} delivered again`),
  tasks.full && h("span", { class: "wait line" }, "full")] : none("no tasks"));

const AGENTS = [
  { title: "Agent", kind: "main", cell: (one) => name(one.name, 60) },
  { title: "State", cell: (one) => mark(READY[one.state] ?? "", one.state) },
  { title: "Processes", kind: "num", cell: (one) => number(one.processes) },
  { title: "Tasks", cell: (one) => queue(one.tasks) },
  { title: "Last active", cell: (one) => (one.tasks?.active
    ? h("span", { title: one.tasks.active }, since(one.tasks.active)) : none()) },
  { title: "Actions", cell: (one) => list(one.actions) },
  { title: "Listens to", cell: (one) => list(one.listens) },
];
const LETTERS = [
  { title: "Time, UTC", kind: "time", cell: (one) => [when(one.time, true),
    h("span", { class: "soft line" }, since(one.time))] },
  { title: "Subject", kind: "main", cell: (one) => [one.message
    ? h("a", { href: `/decisions/${encodeURIComponent(one.message)}` }, code(one.subject))
    : code(one.subject), one.message && h("span", { class: "soft line" }, short(one.message))] },
  { title: "Why", cell: (one) => [mark("no", one.refused || one.code),
    one.detail && h("span", { class: "soft line" }, whole(one.detail))] },
  { title: "Agent", cell: (one) => name(one.agent, 40) },
  { title: "From", cell: (one) => [name(one.from, 40),
    one.user && h("span", { class: "soft line" }, "for ", name(one.user, 40))] },
  { title: "Deliveries", kind: "num", cell: (one) => number(one.deliveries) },
];
const SCHEDULES = [
  { title: "Schedule", kind: "main", cell: (one) => [name(one.name, 60),
    h("span", { class: "soft line" }, code(one.action))] },
  { title: "State", cell: (one) => mark(one.state === "active" ? "ok" : one.state === "paused" ? "wait" : "",
    one.state) },
  { title: "Rule", cell: (one) => code(one.rule) },
  { title: "Next, UTC", cell: (one) => (one.next ? [when(one.next, true),
    h("span", { class: "soft line" }, since(one.next))] : none("none")) },
  { title: "Until, UTC", cell: (one) => when(one.until, true) },
  { title: "Owner", cell: (one) => [name(one.owner, 40),
    one.user && h("span", { class: "soft line" }, "for ", name(one.user, 40))] },
  { title: "Asked by", cell: (one) => name(one.asked_by, 40) },
];

const view = (title, what, load) => ({
  title,
  show: (main, { signal, query, go }) => {
    const place = h("div");
    const section = h("section", { class: "card", "aria-label": title }, place);
    main.append(section);
    filled(place, signal, () => load(signal, query, section, go), what);
  },
});

export const agents = view("Agents", "Asking for the agents", async (signal) => {
  const { agents: found } = await get("/api/agents", signal);
  if (!found.length) return empty("No agent is known.",
    "An agent appears as soon as its worker has started: sealbus worker run app.py:agent.");
  return [table("Agents", AGENTS, found), counted(found.length, "agent")];
});

export const dead = view("Dead letters", "Reading dead letters", async (signal, query, section, go) => {
  if (!section.querySelector("form")) section.prepend(filters([{ key: "agent", label: "Agent" }], query,
    (values) => go(path("/dead", values))));
  const { letters } = await get(path("/api/dead", { agent: query.get("agent"), limit: 50 }), signal);
  if (!letters.length) return empty("No dead letters.",
    "What an agent gives up, after all its deliveries, appears here with the reason.");
  return [table("Dead letters, newest first", LETTERS, letters),
    counted(letters.length, "dead letter", ". sealbus dead retry sends one again.")];
});

export const schedules = view("Schedules", "Reading schedules", async (signal) => {
  const { schedules: found } = await get("/api/schedules", signal);
  if (!found.length) return empty("No schedules.",
    "What agents do later or again, on their own or for a user who granted it, appears here.");
  return [table("Schedules", SCHEDULES, found), counted(found.length, "schedule")];
});
