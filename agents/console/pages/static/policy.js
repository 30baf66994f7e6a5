// The policy in force with its signers, and the log that holds the records.

import { get, post, Refused } from "./api.js";
import { card, h, icon, terms } from "./dom.js";
import { empty, filled, mark, problem } from "./states.js";
import { table } from "./tables.js";
import { code, count, name, number, span, when, whole } from "./text.js";

const PARTS = [
  { title: "Part", kind: "main", cell: (part) => name(part.part, 60) },
  { title: "State", cell: (part) => (part.problem ? [mark("no", "problem"),
    h("span", { class: "line" }, whole(part.problem))] : mark("ok", "in force")) },
  { title: "Revision", cell: (part) => code(part.revision, 40) },
  { title: "Serial", kind: "num", cell: (part) => number(part.serial) },
  { title: "Signed by key", cell: (part) => code(part.key, 40) },
  { title: "Kept", kind: "num", cell: (part) => number(part.kept) },
];

export const policy = {
  title: "Policy",
  show: (main, { signal }) => {
    const place = h("div", { class: "stack" });
    main.append(place);
    filled(place, signal, async () => {
      const policy = await get("/api/policy", signal);
      return [
        card("In force", null, terms([["Revision", code(policy.revision, 120)], ["Engine", name(policy.engine)],
          ["Problem", policy.problem && h("span", { class: "no" }, icon("cross", 14), " ", whole(policy.problem))]]),
          h("p", { class: "foot" }, h("a", { href: "/what-if" }, "See what another policy would have decided"))),
        policy.parts.length ? card("Parts, and who signed them", null, table("Parts of the policy", PARTS, policy.parts))
          : card("Parts", null, empty("The policy is one file of the deployment.",
            "sealbus policy push sends signed parts over the bus, which then appear here.")),
      ];
    }, "Reading the policy");
  },
};

const LATE = 60;
const AGAIN = 15_000;

/** Whether records wait for a checkpoint. An unknown wait counts as a wait. */
const waiting = ({ waiting_s: seconds }) => {
  if (!Number.isFinite(seconds)) return mark("wait", "it is not known whether records wait");
  if (seconds > LATE) return mark("no", `records have waited for ${span(seconds)}`);
  return mark("ok", seconds > 0 ? `the newest records wait for ${span(seconds)}` : "every record is under it");
};

const checkpoint = (state) => [
  terms([["Records", waiting(state)], ["Age", Number.isFinite(state.age_s) ? span(state.age_s) : "not known"],
    ["Entries", number(state.size)], ["Time", [when(state.time), " UTC"]], ["Origin", code(state.origin, 200)],
    ["Root hash", code(state.root, 120)]]),
  state.waiting_s > LATE && h("p", { class: "pad no", role: "alert" },
    "No checkpoint covers what is recorded: is the notary running? Until it is, a record that is missing is not noticed."),
];

export const log = {
  title: "Log",
  show: (main, { signal }) => {
    const place = h("div", { class: "stack" });
    const newest = h("div");
    const found = h("div", { role: "status" });
    const verify = (event) => {
      event.target.disabled = true;
      filled(found, signal, async () => {
        const report = await post("/api/log/verify", {}, signal);
        return h("p", { class: report.passed ? "note good" : "note bad" }, icon(report.passed ? "check" : "cross"),
          report.passed
          ? ` Verified: ${count(report.size, "entry",
            "entries")} in ${span(report.seconds)}. Nothing is missing, changed or out of order.`
          : ` Not verified: ${count(report.findings, "finding")} in ${count(report.size, "entry",
            "entries")}. Keep an export, and run sealbus audit verify --live for each of them.`);
      }, "Verifying the log; this reads all of it").finally(() => { event.target.disabled = false; });
    };
    // The state may have changed since the page was opened.
    const look = async () => {
      let made;
      try {
        const { log: state } = await get("/api/log", signal);
        made = state ? checkpoint(state) : [problem(new Refused(404, null))];
      } catch (error) {
        made = [problem(error)];
      }
      if (!signal.aborted) newest.replaceChildren(...made.flat(Infinity).filter(Boolean));
    };
    main.append(place);
    filled(place, signal, async () => {
      const { log: state } = await get("/api/log", signal);
      if (!state) return empty("This deployment has no log.",
        "Records are signed by their agents. A notary puts them into a log that shows if one is missing.");
      newest.replaceChildren(...checkpoint(state).flat(Infinity).filter(Boolean));
      const timer = setInterval(() => { if (!document.hidden) look(); }, AGAIN);
      signal.addEventListener("abort", () => clearInterval(timer), { once: true });
      return card("Last checkpoint", null, newest,
        h("p", { class: "foot" }, h("button", { type: "button", class: "main", onclick: verify }, "Verify now")),
          h("div", { class: "pad" }, found));
    }, "Reading the log");
  },
};
