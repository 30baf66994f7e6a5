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
  { title: "What", kind: "main", cell: (one) => [h("a", { href: `/approvals/${encodeURIComponent(one.id)}` },
    name(one.text || one.action, 120)), h("span", { class: "soft line" }, code(one.action))] },
  { title: "Asked for by", cell: (one) => [name(one.requester, 40),
    h("span", { class: "soft line" }, "for ", name(one.user?.id ?? "no user", 40))] },
  { title: "Queue", cell: (one) => code(one.queue) },
  { title: "Why", cell: (one) => list(one.reasons) },
  { title: "Since", cell: (one) => h("span", { title: one.since }, since(one.since)) },
  { title: "Ends", cell: (one) => mark("wait", since(one.until)) },
];

const opened = (one, signal, go) => {
  const decide = async (verdict) => {
    const approve = verdict === "approve";
    const done = await confirmed({
      title: approve ? "Approve this?" : "Deny this?", action: approve ? "Approve" : "Deny", danger: !approve,
        label: "Note", required: !approve,
      hint: "It is signed with your verdict, recorded, and shown to who asked.",
        about: h("p", null, whole(one.text || one.action)),
      act: (note) => post(`/api/approvals/${encodeURIComponent(one.id)}`, { decision: one.decision, verdict, note },
        signal),
    });
    if (!done) return;
    say(approve ? "Approved" : "Denied");
    dispatchEvent(new Event("verdict"));
    go("/approvals");
  };
  const said = one.verdicts ?? [];
  return [
    h("div", { class: "verdict" }, stamp("wait", "Waiting"),
      h("h1", { tabindex: "-1" }, h("em", { class: "wait" }, "Waiting."), " ",
      name(sentence(one.text || one.action), 200)),
      h("p", { class: "asked" }, name(one.requester), " asked for ", code(one.action),
        one.user && [", for ", name(one.user.id)], "."),
      h("div", { class: "acts" }, h("button", { type: "button", onclick: () => decide("deny") }, "Deny"),
        h("button", { type: "button", class: "main", onclick: () => decide("approve") }, "Approve"))),
    h("div", { class: "columns" },
      h("div", { class: "stack" },
        card("What is asked", null, (one.text ?? "").length > 200 && h("div", { class: "pad" }, whole(one.text)),
          terms([["Action", code(one.action)], ["Because of", one.reasons?.length && list(one.reasons)],
            ["Ends", [mark("wait", since(one.until)), " ",
            h("span", { class: "soft" }, when(one.until, true), " UTC")]],
            ["Needs", needs(one.needs).length && needs(one.needs)],
              ["Then", one.follows?.length && list(one.follows.map((each) =>
              (typeof each === "string" ? each : JSON.stringify(each))))]])),
        said.length > 0 && card("Said so far", null, terms(said.map((each) =>
          [each.verdict, name(each.user), h("span", { class: "soft" }, " ", when(each.time, true), " UTC, by ",
          name(each.idp))])))),
      h("div", { class: "stack" },
        card("Who asks", null, terms([["Agent", name(one.requester)],
          ["For", one.user ? [name(one.user.id), h("span", { class: "soft line" }, name(one.user.idp))] : "no user"],
          ["Through", one.chain?.length && list(one.chain.map((each) =>
            (typeof each === "string" ? each : each.id ?? JSON.stringify(each))), name)],
            ["Since", [when(one.since, true), " UTC"]],
          ["Decision", h("a", { href: `/decisions/${encodeURIComponent(one.decision)}` }, "Why it waits")]])),
        card("What the agent says of it", null, terms([["Resource", one.resource && json(one.resource)],
          ["Facts", one.facts && json(one.facts)], ["Body",
          one.body !== undefined ? json(one.body) : "The policy does not show it."]])))),
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
