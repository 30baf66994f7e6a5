// Tasks that wait for a person: the list, one opened task, and a verdict with a note.

import { get, path, post, Refused } from "./api.js";
import { card, h, say, stamp, terms } from "./dom.js";
import { confirmed, empty, filled, mark } from "./states.js";
import { filters, table } from "./tables.js";
import { code, name, sentence, since, when, whole } from "./text.js";

const GONE = [404, 409];

const list = (values, show = code) => values.map((value, index) => [index > 0 && ", ", show(value)]);

const json = (value) => whole(typeof value === "string" ? value : JSON.stringify(value, null, 2), "pre");

const needs = ({ acr = [], max_age: age } = {}) => [acr.length > 0 && ["a login by ", list(acr)],
  acr.length > 0 && age !== null && age !== undefined && ", ",
  age !== null && age !== undefined && `not older than ${age} s`].filter(Boolean);

const COLUMNS = [
  { title: "What", kind: "main", cell: (task) => [h("a", { href: `/approvals/${encodeURIComponent(task.id)}` },
    name(task.text || task.action, 120)), h("span", { class: "soft line" }, code(task.action))] },
  { title: "Asked for by", cell: (task) => [name(task.requester, 40),
    h("span", { class: "soft line" }, "for ", name(task.user?.id ?? "no user", 40))] },
  { title: "Queue", cell: (task) => code(task.queue) },
  { title: "Why", cell: (task) => list(task.reasons) },
  { title: "Since", cell: (task) => h("span", { title: task.since }, since(task.since)) },
  { title: "Ends", cell: (task) => mark("wait", since(task.until)) },
];

const opened = (task, signal, go) => {
  const decide = async (verdict) => {
    const approve = verdict === "approve";
    const done = await confirmed({
      title: approve ? "Approve this?" : "Deny this?", action: approve ? "Approve" : "Deny", danger: !approve,
        label: "Note", required: !approve,
      hint: "It is signed with your verdict, recorded, and shown to who asked.",
        about: h("p", null, whole(task.text || task.action)),
      act: (note) => post(`/api/approvals/${encodeURIComponent(task.id)}`, { decision: task.decision, verdict, note },
        signal),
    });
    if (!done) return;
    say(approve ? "Approved" : "Denied");
    dispatchEvent(new Event("verdict"));
    go("/approvals");
  };
  const verdicts = task.verdicts ?? [];
  return [
    h("div", { class: "verdict" }, stamp("wait", "Waiting"),
      h("h1", { tabindex: "-1" }, h("em", { class: "wait" }, "Waiting."), " ",
      name(sentence(task.text || task.action), 200)),
      h("p", { class: "asked" }, name(task.requester), " asked for ", code(task.action),
        task.user && [", for ", name(task.user.id)], "."),
      h("div", { class: "acts" }, h("button", { type: "button", onclick: () => decide("deny") }, "Deny"),
        h("button", { type: "button", class: "main", onclick: () => decide("approve") }, "Approve"))),
    h("div", { class: "columns" },
      h("div", { class: "stack" },
        card("What is asked", null, (task.text ?? "").length > 200 && h("div", { class: "pad" }, whole(task.text)),
          terms([["Action", code(task.action)], ["Because of", task.reasons?.length && list(task.reasons)],
            ["Ends", [mark("wait", since(task.until)), " ",
            h("span", { class: "soft" }, when(task.until, true), " UTC")]],
            ["Needs", needs(task.needs).length && needs(task.needs)],
              ["Then", task.follows?.length && list(task.follows.map((each) =>
              (typeof each === "string" ? each : JSON.stringify(each))))]])),
        verdicts.length > 0 && card("Said so far", null, terms(verdicts.map((each) =>
          [each.verdict, name(each.user), h("span", { class: "soft" }, " ", when(each.time, true), " UTC, by ",
          name(each.idp))])))),
      h("div", { class: "stack" },
        card("Who asks", null, terms([["Agent", name(task.requester)],
          ["For", task.user ? [name(task.user.id), h("span", { class: "soft line" }, name(task.user.idp))] : "no user"],
          ["Through", task.chain?.length && list(task.chain.map((each) =>
            (typeof each === "string" ? each : each.id ?? JSON.stringify(each))), name)],
            ["Since", [when(task.since, true), " UTC"]],
          ["Decision", h("a", { href: `/decisions/${encodeURIComponent(task.decision)}` }, "Why it waits")]])),
        card("What the agent says of it", null, terms([["Resource", task.resource && json(task.resource)],
          ["Facts", task.facts && json(task.facts)], ["Body",
          task.body !== undefined ? json(task.body) : "The policy does not show it."]])))),
  ];
};

const show = (main, { signal, id, query, go, titled }) => {
  const place = h("div");
  if (id) {
    main.replaceChildren(h("p", { class: "crumb" }, h("a", { href: "/approvals" }, "Approvals"),
      h("span", { "aria-hidden": "true" }, "/"), name(id, 24)), place);
    titled("Approval");
    filled(place, signal, async () => {
      try {
        return opened(await get(`/api/approvals/${encodeURIComponent(id)}`, signal), signal, go);
      } catch (error) {
        if (!(error instanceof Refused) || !GONE.includes(error.status)) throw error;
        return [h("h1", { tabindex: "-1" }, "Approval"),
          empty("This does not wait any more.", "Somebody decided it, it ended, or it is not for you. See ",
          h("a", { href: "/approvals" }, "what waits"), ".")];
      }
    }, "Reading what waits");
    return;
  }
  const top = h("div");
  main.append(h("section", { class: "card", "aria-label": "Approvals" }, top, place));
  filled(place, signal, async () => {
    const { approvals: found, queues = [], more = false } = await get(path("/api/approvals",
      { queue: query.get("queue") }), signal);
    if (queues.length) top.replaceChildren(filters([{ key: "queue", label: "Queue",
      options: [["", "all"], ...queues.map((queue) => [queue, queue])] }], query,
      (values) => go(path("/approvals", values))));
    if (!found.length) return empty("Nothing waits for you.",
      "When a policy asks for a person's approval that you may give, it appears here, and is counted above.");
    const rows = table("What waits for approval", COLUMNS, found);
    return more ? [rows, h("p", { class: "pad soft" }, `These are the first ${found.length}. Decide some to see more.`)]
      : rows;
  }, "Reading what waits");
};

export const approvals = { title: "Approvals", show };
