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
const verdict = (one) => {
  const titles = new Map(one.words.filter((word) => word.title).map((word) => [word.reason, word.title]));
  for (const { reason, title } of one.explanation?.reasons ?? []) if (title && !titles.has(reason)) titles.set(reason,
    title);
  if (one.allow) return [h("em", { class: "ok" }, "Allowed."), " The policy found no reason against it."];
  const said = one.reasons.slice(0, 2).map((reason) => titles.get(reason) ? lower(titles.get(reason)) : reason);
  const rest = one.reasons.length - said.length;
  const text = said.length ? sentence(said.join(", and ") + (rest > 0 ? `, and ${rest} more reasons` : "")) : "";
  return [h("em", null, "Denied."), " ", text ? name(text, 300) : one.code === "denied" || !one.code
    ? "The policy gave no reason." : ["The message was refused: ", code(one.code), "."]];
};

const asked = (one) => {
  const parts = [name(one.acting || "an unknown agent"), " asked ", name(one.record.name), " for ",
    code(one.message.action)];
  const user = one.chain.find((link) => link.role === "user");
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

const top = (one) => {
  const receipt = one.evidence?.receipt;
  const around = { since: hour(one.record.time, -30), until: hour(one.record.time, 30) };
  return h("div", { class: "verdict" }, stamp(one.allow ? "ok" : "no", one.allow ? "Allowed" : "Denied"),
    h("h1", { tabindex: "-1" }, verdict(one)), asked(one),
    h("p", { class: "facts" }, h("span", null, "at ", h("b", null, when(one.record.time)), " UTC"),
      h("span", null, "decided by ", h("b", null, name(one.record.name))),
      h("span", null, "message ", h("b", null, short(one.message.id || one.message.hash))),
      one.outcome && h("span", null, "then ", h("b", null, name(one.outcome.outcome)))),
    h("div", { class: "acts" },
      h("button", { type: "button", onclick: copied }, "Copy link"),
      receipt?.startsWith("/api/") && h("a", { class: "button", href: receipt, download: true }, "Save receipt"),
      h("a", { class: "button main", href: path("/what-if", around) }, "Try another policy")));
};

const check = ({ what, ok }) => h("li", { class: ok ? "ok" : "no" }, icon(ok ? "check" : "cross", 14),
  h("span", { class: "unseen" }, ok ? "verified: " : "failed: "), h("span", { class: "ink" }, name(what, 200)));

const link = (one) => {
  const checks = one.checks ?? [];
  const bad = checks.some(({ ok }) => !ok);
  const kind = one.role === "user" ? "user" : bad ? "bad" : checks.length ? "good" : "plain";
  return h("li", { class: `link ${kind}` },
    h("span", { class: "dot" }, SIGNS[kind] && icon(SIGNS[kind], 16)),
    h("div", null, h("p", { class: "role" }, ROLES[one.role] ?? name(one.role)),
      h("p", { class: "name" }, name(one.name, 60)),
      checks.length > 0 && h("ul", { class: "checks" }, checks.slice(0, 8).map(check)),
      terms([["from", one.idp && name(one.idp.replace(/^https:\/\//, ""))],
        ["login", one.acr && name(one.acr)], ["since", one.login && when(one.login, true)],
        ["client", one.client && name(one.client)], ["time", one.time && clock(one.time)],
        ["until", one.until && clock(one.until)],
        ["id", one.id && name(one.id.replace(/^spiffe:\/\//, ""), 120)]], "about")));
};

const chain = (one) => {
  // The decider's own policy is no link of the chain.
  const links = one.chain.filter(({ role }) => role !== "user" && role !== "decider");
  const failed = links.some(({ checks = [] }) => checks.some(({ ok }) => !ok));
  const every = links.length > 0 && links.every(({ checks = [] }) => checks.length > 0);
  const approvers = one.approver ?? [];
  const verified = every ? "every link verified by the decider" : "links without a sign were not verified here";
  return card("Who asked, and for whom", failed ? "a link did not verify" : verified,
    h("ol", { class: `chain ${one.chain.length > 6 ? "upright" : ""}` }, one.chain.map(link)),
    terms([["Acting agent", one.acting ? name(one.acting) : h("span", { class: "soft" }, "unknown")],
      ["Owner of the work", one.owner ? name(one.owner) : h("span", { class: "soft" }, "nobody; an agent's own work")],
      ["Approver", approvers.length ? approvers.map(({ user, verdict: said, time }) =>
        h("span", { class: "line" }, name(user), h("span", { class: "soft" }, " ", name(said), ", ", when(time, true))))
        : h("span", { class: "soft" }, "nobody was asked")]], "parts"));
};

const timeline = (one) => {
  const steps = [];
  for (const { what, time, ms } of one.timeline) {
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

const evidence = (one) => {
  const { record, signed_by: by, logged } = one.evidence ?? {};
  const good = (...words) => h("span", { class: "ok-line" }, icon("check", 14), h("span", null, words));
  return card("Evidence", null,
    terms([["Record", good(h("b", null, name(record || `AUDIT ${number(one.record.sequence)}`)), ", signed by ",
      name(by || one.record.name))],
      ["Log", logged ? good(`entry ${number(logged.entry)} under checkpoint ${number(logged.checkpoint)}`,
        logged.time && h("span", { class: "soft line" }, when(logged.time, true)))
        : h("span", { class: "soft" }, "not under a checkpoint, or there is no log")],
      ["Policy", one.policy && [code(one.policy.name),
        h("span", { class: "soft line" }, code(one.policy.revision), ", ", name(one.policy.engine))]],
      ["Outcome", one.outcome && [name(one.outcome.outcome),
        typeof one.outcome.ms === "number" && `, ${milliseconds(one.outcome.ms)}`]],
      ["Trace", one.message.trace && code(one.message.trace)], ["Again today?", again(one.again)]]),
    h("details", { class: "more" }, h("summary", null, "Hashes and times of the message"),
      terms([["Message", one.message.id && code(one.message.id, 80)], ["Its hash", code(one.message.hash, 80)],
        ["Record leaf", code(one.record.leaf, 80)], ["Recorder", code(one.record.recorder, 200)],
        ["Subject", code(one.message.subject)], ["Kind", name(one.message.kind)],
        ["Sent", when(one.message.sent)], ["Expires", when(one.message.expires)]])));
};

const opened = (one) => [
  top(one), chain(one),
  h("div", { class: "columns" }, h("div", { class: "stack" }, rules(one), timeline(one)),
    h("div", { class: "stack" }, inputDocument(one), evidence(one))),
];

const asRow = (one) => ({ time: one.record.time, message: "", record: one.record.leaf, action: one.message.action,
  from: one.acting, by: one.record.name,
  user: one.chain.find((each) => each.role === "user")?.name ?? "", allow: one.allow, reasons: one.reasons,
    code: one.code });

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
