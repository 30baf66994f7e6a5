// One decision: the verdict as a sentence, then its proof.

import { get, path } from "./api.js";
import { card, h, icon, say, stamp, terms } from "./dom.js";
import { inputDocument } from "./input.js";
import { rules } from "./rules.js";
import { empty, filled } from "./states.js";
import { DECISIONS, table } from "./tables.js";
import { clock, code, milliseconds, name, number, sentence, short, when } from "./text.js";

const ROLES = { user: "User", minter: "Signed the user context", hop: "Passed it on", sender: "Acting agent, sent it",
  decider: "Decided here" };
const SIGNS = { user: "person", bad: "cross", good: "check" };

const lower = (text) => (text ? text[0].toLowerCase() + text.slice(1).replace(/\.$/, "") : "");

/** The verdict in words: the policy's titles of its reasons, or else the reasons themselves. */
const verdict = (decision) => {
  const titles = new Map(decision.words.filter((word) => word.title).map((word) => [word.reason, word.title]));
  for (const { reason, title } of decision.explanation?.reasons ?? []) if (title && !titles.has(reason)) titles.set(reason,
    title);
  if (decision.allow) return [h("em", { class: "ok" }, "Allowed."), " The policy found no reason against it."];
  const titled = decision.reasons.slice(0, 2).map((reason) => titles.get(reason) ? lower(titles.get(reason)) : reason);
  const rest = decision.reasons.length - titled.length;
  const text = titled.length ? sentence(titled.join(", and ") + (rest > 0 ? `, and ${rest} more reasons` : "")) : "";
  return [h("em", null, "Denied."), " ", text ? name(text, 300) : decision.code === "denied" || !decision.code
    ? "The policy gave no reason." : ["The message was refused: ", code(decision.code), "."]];
};

const asked = (decision) => {
  const parts = [name(decision.acting || "an unknown agent"), " asked ", name(decision.record.name), " for ",
    code(decision.message.action)];
  const user = decision.chain.find((link) => link.role === "user");
  if (user) parts.push(", for ", name(user.name));
  return h("p", { class: "asked" }, parts, ".");
};

const copied = async (event) => {
  const button = event.currentTarget;
  const done = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  button.textContent = done ? "Copied" : "Copy the address above";
  say(button.textContent);
};

const hour = (time, minutes) => new Date(Date.parse(time) + minutes * 60_000).toISOString();

const top = (decision) => {
  const receipt = decision.evidence?.receipt;
  const around = { since: hour(decision.record.time, -30), until: hour(decision.record.time, 30) };
  return h("div", { class: "verdict" }, stamp(decision.allow ? "ok" : "no", decision.allow ? "Allowed" : "Denied"),
    h("h1", { tabindex: "-1" }, verdict(decision)), asked(decision),
    h("p", { class: "facts" }, h("span", null, "at ", h("b", null, when(decision.record.time)), " UTC"),
      h("span", null, "decided by ", h("b", null, name(decision.record.name))),
      h("span", null, "message ", h("b", null, short(decision.message.id || decision.message.hash))),
      decision.outcome && h("span", null, "then ", h("b", null, name(decision.outcome.outcome)))),
    h("div", { class: "acts" },
      h("button", { type: "button", onclick: copied }, "Copy link"),
      receipt?.startsWith("/api/") && h("a", { class: "button", href: receipt, download: true }, "Save receipt"),
      h("a", { class: "button main", href: path("/what-if", around) }, "Try another policy")));
};

const check = ({ what, ok }) => h("li", { class: ok ? "ok" : "no" }, icon(ok ? "check" : "cross", 14),
  h("span", { class: "unseen" }, ok ? "verified: " : "failed: "), h("span", { class: "ink" }, name(what, 200)));

const link = (party) => {
  const checks = party.checks ?? [];
  const bad = checks.some(({ ok }) => !ok);
  const kind = party.role === "user" ? "user" : bad ? "bad" : checks.length ? "good" : "plain";
  return h("li", { class: `link ${kind}` },
    h("span", { class: "dot" }, SIGNS[kind] && icon(SIGNS[kind], 16)),
    h("div", null, h("p", { class: "role" }, ROLES[party.role] ?? name(party.role)),
      h("p", { class: "name" }, name(party.name, 60)),
      checks.length > 0 && h("ul", { class: "checks" }, checks.slice(0, 8).map(check)),
      terms([["from", party.idp && name(party.idp.replace(/^https:\/\//, ""))],
        ["login", party.acr && name(party.acr)], ["since", party.login && when(party.login, true)],
        ["client", party.client && name(party.client)], ["time", party.time && clock(party.time)],
        ["until", party.until && clock(party.until)],
        ["id", party.id && name(party.id.replace(/^spiffe:\/\//, ""), 120)]], "about")));
};

const chain = (decision) => {
  // The decider's own policy is no link of the chain.
  const links = decision.chain.filter(({ role }) => role !== "user" && role !== "decider");
  const failed = links.some(({ checks = [] }) => checks.some(({ ok }) => !ok));
  const every = links.length > 0 && links.every(({ checks = [] }) => checks.length > 0);
  const approvers = decision.approver ?? [];
  const verified = every ? "every link verified by the decider" : "links without a sign were not verified here";
  return card("Who asked, and for whom", failed ? "a link did not verify" : verified,
    h("ol", { class: `chain ${decision.chain.length > 6 ? "upright" : ""}` }, decision.chain.map(link)),
    terms([["Acting agent", decision.acting ? name(decision.acting) : h("span", { class: "soft" }, "unknown")],
      ["Owner of the work",
        decision.owner ? name(decision.owner) : h("span", { class: "soft" }, "nobody; an agent's own work")],
      ["Approver", approvers.length ? approvers.map(({ user, verdict: answer, time }) =>
        h("span", { class: "line" }, name(user), h("span", { class: "soft" }, " ", name(answer), ", ", when(time, true))))
        : h("span", { class: "soft" }, "nobody was asked")]], "parts"));
};

const timeline = (decision) => {
  const steps = [];
  for (const { what, time, ms } of decision.timeline) {
    // The handling has no time of its own, only a duration.
    const at = time ? Date.parse(time) : (steps.at(-1)?.at ?? NaN) + (ms ?? NaN);
    if (!Number.isNaN(at)) steps.push({ what, time: new Date(at).toISOString(), at });
  }
  if (steps.length < 2) return null;
  const [first, last] = [steps[0].at, Math.max(...steps.map(({ at }) => at))];
  const all = Math.max(last - first, 0.001);
  return card("What happened", `${milliseconds(last - first)} from first to last`,
    h("ol", { class: "steps" }, steps.map(({ what, time, at }, index) => {
      const before = index ? steps[index - 1].at : first;
      const bar = h("i");
      bar.style.left = `${Math.min(98, Math.max(0, (before - first) / all * 100))}%`;
      bar.style.width = `${Math.max(1, (at - before) / all * 100)}%`;
      return h("li", null, h("span", null, name(sentence(what), 80)),
        h("span", { class: "track", "aria-hidden": "true" }, index > 0 && bar),
        h("span", { class: "num" }, index ? `+${milliseconds(Math.max(0, at - before))}` : clock(time)));
    })));
};

const again = (now) => {
  if (!now) return null;
  const words = now.allow ? "Allowed by the policy in force" : "Denied by the policy in force";
  const reasons = now.allow ? [] : (now.reasons ?? []).map((reason, index) => [index ? ", " : ": ", code(reason)]);
  return [now.same ? `Still ${lower(words)}` : words, reasons,
    now.revision && h("span", { class: "soft line" }, code(now.revision))];
};

const evidence = (decision) => {
  const { record, signed_by: by, logged } = decision.evidence ?? {};
  const good = (...words) => h("span", { class: "ok-line" }, icon("check", 14), h("span", null, words));
  return card("Evidence", null,
    terms([["Record", good(h("b", null, name(record || `AUDIT ${number(decision.record.sequence)}`)), ", signed by ",
      name(by || decision.record.name))],
      ["Log", logged ? good(`entry ${number(logged.entry)} under checkpoint ${number(logged.checkpoint)}`,
        logged.time && h("span", { class: "soft line" }, when(logged.time, true)))
        : h("span", { class: "soft" }, "not under a checkpoint, or there is no log")],
      ["Policy", decision.policy && [code(decision.policy.name),
        h("span", { class: "soft line" }, code(decision.policy.revision), ", ", name(decision.policy.engine))]],
      ["Outcome", decision.outcome && [name(decision.outcome.outcome),
        typeof decision.outcome.ms === "number" && `, ${milliseconds(decision.outcome.ms)}`]],
      ["Trace", decision.message.trace && code(decision.message.trace)], ["Again today?", again(decision.again)]]),
    h("details", { class: "more" }, h("summary", null, "Hashes and times of the message"),
      terms([["Message", decision.message.id && code(decision.message.id, 80)], ["Its hash", code(decision.message.hash, 80)],
        ["Record leaf", code(decision.record.leaf, 80)], ["Recorder", code(decision.record.recorder, 200)],
        ["Subject", code(decision.message.subject)], ["Kind", name(decision.message.kind)],
        ["Sent", when(decision.message.sent)], ["Expires", when(decision.message.expires)]])));
};

const opened = (decision) => [
  top(decision), chain(decision),
  h("div", { class: "columns" }, h("div", { class: "stack" }, rules(decision), timeline(decision)),
    h("div", { class: "stack" }, inputDocument(decision), evidence(decision))),
];

const asRow = (decision) => ({
  time: decision.record.time, message: "", record: decision.record.leaf, action: decision.message.action,
  from: decision.acting, by: decision.record.name,
  user: decision.chain.find((each) => each.role === "user")?.name ?? "", allow: decision.allow, reasons: decision.reasons,
  code: decision.code,
});

const show = (main, { signal, id, titled }) => {
  const place = h("div");
  main.replaceChildren(h("p", { class: "crumb" }, h("a", { href: "/decisions" }, "Decisions"),
    h("span", { "aria-hidden": "true" }, "/"), short(id)), place);
  filled(place, signal, async () => {
    const { decisions } = await get(`/api/decisions/${encodeURIComponent(id)}`, signal).catch((error) => {
      if (error.status === 404) return { decisions: [] };
      throw error;
    });
    if (decisions.length === 0)
      return [h("h1", { tabindex: "-1" }, "No decision about this id"),
        empty("The audit stream holds none.",
        "It may be older than the stream keeps, be refused before any policy was asked, or be another deployment's. ",
        "A message that was never accepted leaves a counted denial among ",
          h("a", { href: "/decisions?decision=deny" }, "the denials"), ".")];
    if (decisions.length === 1) {
      titled(`${decisions[0].allow ? "Allowed" : "Denied"}: ${decisions[0].message.action}`);
      return opened(decisions[0]);
    }
    return [h("h1", { tabindex: "-1" }, `${decisions.length} decisions about this message`),
      h("section", { class: "card", "aria-label": "Decisions" },
        table("Decisions about this message, newest first", DECISIONS, decisions.map(asRow),
        { denied: (row) => !row.allow }))];
  }, "Looking for the decision, and asking its policy again");
};

export const decision = { title: "Decision", show };
