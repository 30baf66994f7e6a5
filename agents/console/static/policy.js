// Which policy is in force and who pushed it, and the log that holds the records.

import { get, post } from "./api.js";
import { card, h, icon, terms } from "./dom.js";
import { empty, filled, mark } from "./states.js";
import { table } from "./tables.js";
import { code, count, name, number, since, span, when, whole } from "./text.js";

const PARTS = [
  { title: "Part", kind: "main", cell: (part) => name(part.part, 60) },
  { title: "State", cell: (part) => (part.problem ? [mark("no", "problem"),
    h("span", { class: "line" }, whole(part.problem))] : mark("ok", "in force")) },
  { title: "Revision", cell: (part) => code(part.revision, 40) },
  { title: "Serial", kind: "num", cell: (part) => number(part.serial) },
  { title: "Pushed, UTC", cell: (part) => (part.pushed
    ? [when(part.pushed, true), h("span", { class: "soft line" }, since(part.pushed))]
    : h("span", { class: "soft" }, "from a file")) },
  { title: "Signed by key", cell: (part) => code(part.key, 40) },
  { title: "Kept", kind: "num", cell: (part) => number(part.kept) },
];

export const policy = {
  title: "Policy",
  show: (main, { signal }) => {
    const place = h("div", { class: "stack" });
    main.append(place);
    filled(place, signal, async () => {
      const told = await get("/api/policy", signal);
      return [
        card("In force", null, terms([["Revision", code(told.revision, 120)], ["Engine", name(told.engine)],
          ["Problem", told.problem && h("span", { class: "no" }, icon("cross", 14), " ", whole(told.problem))],
          ["Roots", told.roots?.length && told.roots.map((root, index) => [index > 0 && ", ", code(root)])]]),
          h("p", { class: "foot" }, h("a", { href: "/what-if" }, "See what another policy would have decided"))),
        told.parts.length ? card("Parts, and who pushed them", null, table("Parts of the policy", PARTS, told.parts))
          : card("Parts", null, empty("The policy is one file of the deployment.",
            "sealbus policy push sends signed parts over the bus, which then appear here.")),
      ];
    }, "Reading the policy");
  },
};

export const log = {
  title: "Log",
  show: (main, { signal }) => {
    const place = h("div");
    const found = h("div", { role: "status" });
    const verify = (event) => {
      event.target.disabled = true;
      filled(found, signal, async () => {
        const told = await post("/api/log/verify", {}, signal);
        return h("p", { class: told.passed ? "note good" : "note bad" }, icon(told.passed ? "check" : "cross"),
          told.passed
          ? ` Verified: ${count(told.size, "entry",
            "entries")} in ${span(told.seconds)}. Nothing is missing, changed or out of order.`
          : ` Not verified: ${count(told.findings, "finding")} in ${count(told.size, "entry",
            "entries")}. Keep an export, and run sealbus audit verify --live for each of them.`);
      }, "Verifying the log; this reads all of it").finally(() => { event.target.disabled = false; });
    };
    main.append(place);
    filled(place, signal, async () => {
      const { log: told } = await get("/api/log", signal);
      if (!told) return empty("This deployment has no log.",
        "Records are signed by their agents. A notary puts them into a log that shows if one is missing.");
      const late = told.checkpoint_age_s > 60;
      return card("Last checkpoint", null, terms([["Age",
        mark(late ? "wait" : "ok", `${span(told.checkpoint_age_s)} old`)], ["Entries", number(told.size)],
        ["Time", [when(told.time), " UTC"]], ["Origin", code(told.origin, 200)], ["Root hash", code(told.root, 120)]]),
        late && h("p", { class: "pad soft" }, "No checkpoint for over a minute: is the notary running?"),
        h("p", { class: "foot" }, h("button", { type: "button", class: "main", onclick: verify }, "Verify now")),
          h("div", { class: "pad" }, found));
    }, "Reading the log");
  },
};
