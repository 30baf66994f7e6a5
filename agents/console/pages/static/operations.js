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
  { title: "Agent", kind: "main", cell: (agent) => name(agent.name, 60) },
  { title: "State", cell: (agent) => mark(READY[agent.state] ?? "", agent.state) },
  { title: "Processes", kind: "num", cell: (agent) => number(agent.processes) },
  { title: "Tasks", cell: (agent) => queue(agent.tasks) },
  { title: "Last active", cell: (agent) => (agent.tasks?.active
    ? h("span", { title: agent.tasks.active }, since(agent.tasks.active)) : none()) },
  { title: "Actions", cell: (agent) => list(agent.actions) },
  { title: "Listens to", cell: (agent) => list(agent.listens) },
];
const LETTERS = [
  { title: "Time, UTC", kind: "time", cell: (letter) => [when(letter.time, true),
    h("span", { class: "soft line" }, since(letter.time))] },
  { title: "Subject", kind: "main", cell: (letter) => [letter.message
    ? h("a", { href: `/decisions/${encodeURIComponent(letter.message)}` }, code(letter.subject))
    : code(letter.subject), letter.message && h("span", { class: "soft line" }, short(letter.message))] },
  { title: "Why", cell: (letter) => [mark("no", letter.refused || letter.code),
    letter.detail && h("span", { class: "soft line" }, whole(letter.detail))] },
  { title: "Agent", cell: (letter) => name(letter.agent, 40) },
  { title: "From", cell: (letter) => [name(letter.from, 40),
    letter.user && h("span", { class: "soft line" }, "for ", name(letter.user, 40))] },
  { title: "Deliveries", kind: "num", cell: (letter) => number(letter.deliveries) },
];
const SCHEDULES = [
  { title: "Schedule", kind: "main", cell: (schedule) => [name(schedule.name, 60),
    h("span", { class: "soft line" }, code(schedule.action))] },
  { title: "State", cell: (schedule) => mark(schedule.state === "active" ? "ok" : schedule.state === "paused" ? "wait" : "",
    schedule.state) },
  { title: "Rule", cell: (schedule) => code(schedule.rule) },
  { title: "Next, UTC", cell: (schedule) => (schedule.next ? [when(schedule.next, true),
    h("span", { class: "soft line" }, since(schedule.next))] : none("none")) },
  { title: "Until, UTC", cell: (schedule) => when(schedule.until, true) },
  { title: "Owner", cell: (schedule) => [name(schedule.owner, 40),
    schedule.user && h("span", { class: "soft line" }, "for ", name(schedule.user, 40))] },
  { title: "Asked by", cell: (schedule) => name(schedule.asked_by, 40) },
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
