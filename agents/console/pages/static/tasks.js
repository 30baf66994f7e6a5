// Tasks with their states, and cancelling one with a reason.

import { get, path, post } from "./api.js";
import { h, say } from "./dom.js";
import { confirmed, empty, filled, mark } from "./states.js";
import { counted, filters, table } from "./tables.js";
import { code, count, name, short, since, when } from "./text.js";

const ENDED = new Set(["completed", "failed", "rejected", "canceled", "expired"]);
const STATES = ["submitted", "working", "input-required", "completed", "failed", "rejected", "canceled", "expired"];
const AGES = [["", "any"], ["15m", "15 minutes"], ["1h", "an hour"], ["1d", "a day"]];
const FIELDS = [
  { key: "agent", label: "Agent" }, { key: "user", label: "User" },
  { key: "state", label: "State", options: [["", "all"], ...STATES.map((state) => [state, state])] },
  { key: "older", label: "Older than", options: AGES }, { key: "newer", label: "Newer than", options: AGES },
];

const kind = (task) => (task.refused || ["failed", "rejected", "expired"].includes(task.state) ? "no"
  : task.state === "input-required" ? "wait" : "");

const stateOf = (task) => [mark(kind(task), task.refused || task.state || "unknown"),
  task.reasons.length ? h("span", { class: "soft line" },
    task.reasons.map((reason, index) => [index > 0 && ", ", code(reason)])) : task.code
    && h("span", { class: "soft line" }, code(task.code)),
  task.note && h("span", { class: "soft line" }, name(task.note, 120)),
  !task.verified && h("span", { class: "no line" }, "✕ not verified"),
  task.unverified_statuses.length > 0 && h("span", { class: "wait line" },
    `${count(task.unverified_statuses.length, "status", "statuses")} not verified`)];

const show = (main, { signal, query, go }) => {
  const place = h("div");
  const asked = Object.fromEntries(FIELDS.map(({ key }) => [key, query.get(key) ?? ""]));
  const load = () => filled(place, signal, async () => {
    const { tasks: found, unreadable } = await get(path("/api/tasks", { ...asked, limit: 50 }), signal);
    if (!found.length) return empty("No task fits.", "Change the filters, or look among ",
      h("a", { href: "/dead" }, "the dead letters"), ". The list goes back 24 hours.");
    return [table("Tasks, newest first", columns, found, { denied: (task) => kind(task) === "no" }),
      counted(found.length, "task", unreadable ? `; ${count(unreadable, "message")} could not be read` : "")];
  }, "Reading tasks");
  const cancel = async (task) => {
    const done = await confirmed({
      title: "Cancel this task?", action: "Cancel the task", danger: true, required: true, label: "Reason",
        hint: "It is signed, recorded and shown to who asked for the task.",
      about: h("p", null, code(task.action || task.subject), " for ", task.user ? name(task.user) : "no user",
        ", asked for by ", name(task.from), ". What it has caused is canceled with it."),
      act: (reason) => post("/api/tasks/cancel",
        { handle: task.handle, action: task.action, reason }, signal),
    });
    if (!done) return;
    say("The task is canceled");
    load();
  };
  const columns = [
    { title: "Sent, UTC", kind: "time", cell: (task) =>
      [when(task.time, true), h("span", { class: "soft line" }, since(task.time))] },
    { title: "Action", kind: "main", cell: (task) => [h("a",
      { href: `/decisions/${encodeURIComponent(task.message)}` }, code(task.action || task.subject)),
      h("span", { class: "soft line" }, short(task.message))] },
    { title: "State", cell: stateOf },
    { title: "Agent", cell: (task) => name(task.agent, 40) },
    { title: "From", cell: (task) => name(task.from, 40) },
    { title: "For", cell: (task) => (task.user ? name(task.user, 40) : h("span", { class: "soft" }, "no user")) },
    { title: "Cancel", kind: "act", cell: (task) => (task.handle && !ENDED.has(task.state) && !task.refused
      ? h("button", { type: "button", onclick: () => cancel(task) }, "Cancel") : h("span", { class: "soft" }, "–")) },
  ];
  main.append(h("section", { class: "card", "aria-label": "Tasks" },
    filters(FIELDS, query, (values) => go(path("/tasks", values))), place));
  load();
};

export const tasks = { title: "Tasks", show };
