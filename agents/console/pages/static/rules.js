// The rules that denied: their source, the line that failed, the values it looked at, and the remedy.

import { card, h, icon } from "./dom.js";
import { code, count, name, nodes, sentence, whole } from "./text.js";

const AROUND = 2;
const APART = 3;
const HEAD = 8;
const SHOWN = 3;
const WHY = {
  redacted: "The recorded input was redacted, so its rules cannot be asked again.",
  bad_input: "The recorded input cannot be read.",
  no_input: "The record holds no input.",
  no_policy: "The policy that decided is not in the archive.",
  other_result: "The archived policy decides otherwise than was recorded: this needs somebody's attention.",
  no_trace: "This policy cannot be asked step by step.",
  unanswered: "The policy gave no answer, so that it was denied.",
  not_asked: "No policy was asked: the message was refused before.",
};
const CONSTANT = /^(".*"|-?\d[\d.]*|true|false|null)$/;
const FAILS = { "==": "is not", "!=": "is", "<=": "is over", "<": "is not under", ">=": "is under", ">": "is not over",
  in: "is not in" };

const value = (looked) => (looked.value === null ? h("i", null, "is not there") : h("b", null, name(looked.value, 60)));

/** The values that a literal looked at; as a sentence if it compares two values. */
const judged = (literal, failed) => {
  const [, left, operator, right] = /^(\S+) (==|!=|<=|<|>=|>|in) (\S+)$/.exec(literal.written) ?? [];
  const constant = (written) => (CONSTANT.test(written ?? "") ? { written, value: written } : null);
  const of = (written) => literal.looked.find((looked) => looked.written === written) ?? constant(written);
  const [a, b] = [of(left), of(right)];
  if (failed && a && b && a.value !== null && b.value !== null) return [value(a), ` ${FAILS[operator]} `, value(b)];
  if (!literal.looked.length) return [failed ? "did not hold" : "held"];
  return literal.looked.slice(0, SHOWN).map((looked, index) =>
    [index > 0 && ", ", literal.looked.length > 1 ? [name(looked.written, 48), " "] : "", value(looked)]);
};

const marked = (literals, failed, marks) => {
  for (const literal of literals) {
    const at = marks.get(literal.line) ?? { failed: false, literals: [] };
    at.failed ||= failed;
    const known = at.literals.some(([other]) => JSON.stringify(other) === JSON.stringify(literal));
    if (at.literals.length < SHOWN && !known) at.literals.push([literal, failed]);
    marks.set(literal.line, at);
  }
};

/** The first line to show: the head of the rule if it is near, else a few lines before. */
const begin = (at, source) => {
  if (!source) return at;
  for (let number = at; number >= Math.max(source.first, at - HEAD); number--)
    if (/^\S.*\{$/.test(source.lines[number - source.first] ?? "")) return number;
  return Math.max(source.first, at - AROUND);
};

const line = (number, text, at) =>
  h("li", { class: at ? (at.failed ? "hit" : "held") : "" }, h("span", { class: "nr" }, String(number)),
    h("span", { class: "txt" }, nodes(text, "\t")),
    at && h("span", { class: "val" }, at.literals.map(([literal, failed], index) =>
      [index > 0 && h("br"), h("span", { class: "sign" }, failed ? "✕ " : "✓ "),
      h("span", { class: "unseen" }, failed ? "failed: " : "held: "), judged(literal, failed)])));

/** The lines of a file around the judged lines, without long stretches between them. */
const listing = (file, marks, source) => {
  const wanted = [...marks.keys()].sort((a, b) => a - b);
  const items = [];
  let last = 0;
  for (const at of wanted) {
    const first = last && at - last <= APART ? last + 1
      : Math.max(last ? at - AROUND : begin(at, source), source?.first ?? at, last + 1);
    if (last && first > last + 1) items.push(h("li", { class: "cut" }, h("span", { class: "nr" }, "⋯"),
      h("span", null, count(first - last - 1, "line"))));
    for (let number = first; number <= at; number++) {
      const text = source?.lines[number - source.first] ?? (marks.get(number)?.literals[0][0].written ?? "");
      items.push(line(number, text, marks.get(number)));
    }
    last = at;
  }
  const failed = wanted.filter((at) => marks.get(at).failed);
  return h("div", { class: "source", tabindex: "0", role: "region",
    "aria-label": `Source, ${failed.length ? `line ${failed.join(", ")} failed` : "lines that held"}` },
    h("ol", null, items));
};

const reason = (cause, explained, words) => {
  const files = new Map();
  for (const [literals, failed] of [[cause.failed, !cause.held.length || cause.failed.length > 0], [cause.held, false]]) {
    for (const literal of literals) {
      if (!files.has(literal.file)) files.set(literal.file, new Map());
      marked([literal], failed, files.get(literal.file));
    }
  }
  const first = cause.failed[0] ?? cause.held[0];
  const wording = words.find((word) => word.reason === cause.reason) ?? cause;
  const remedy = cause.remedy || wording.remedy;
  return h("section", { class: "rule" },
    h("h3", null, h("code", { class: "tag-no" }, name(cause.reason)), " ",
      h("span", null, name(sentence(cause.title || wording.title), 300)),
      first && h("span", { class: "at" }, code(`${first.file}:${first.line}`, 90))),
    [...files].map(([file, marks]) => listing(file, marks, explained.sources?.[file])),
    files.size === 0 && h("p", { class: "soft" },
      "The policy computes this reason from data, and no single line is its cause."),
    remedy && h("p", { class: "remedy" }, icon("bulb"),
      h("span", null, h("span", { class: "unseen" }, "Remedy: "), whole(sentence(remedy)))));
};

const step = (rule) =>
  h("li", { class: rule.held ? "held" : "hit" }, h("span", { class: "nr" }, rule.held ? "✓" : "✕",
    h("span", { class: "unseen" }, rule.held ? "held" : "failed")),
    h("span", { class: "txt" }, "  ".repeat(Math.min(rule.depth, 12)), name(rule.rule, 80)),
      h("span", { class: "val" }, name(`${rule.file.split("/").pop()}:${rule.line}`, 60),
      rule.failed && [" ", name(rule.failed.written, 80)]));

/** Make the card of the rules of a decision. */
export const rules = (decision) => {
  const explanation = decision.explanation;
  const title = decision.allow ? "The rules that allowed" : "The rules that denied";
  if (!explanation?.explained) {
    const words = decision.words ?? [];
    return card(title, "cannot be made again", h("div", { class: "pad" },
      h("p", null, WHY[explanation?.why] ?? "This decision cannot be explained."),
      explanation?.detail && h("p", { class: "soft" }, whole(explanation.detail))),
      words.map((word) => h("section", { class: "rule" },
        h("h3", null, h("code", { class: "tag-no" }, name(word.reason)), " ",
        h("span", null, name(sentence(word.title), 300))),
        word.remedy && h("p", { class: "remedy" }, icon("bulb"), h("span", null, whole(sentence(word.remedy)))))));
  }
  return card(title, "made again from the record, same result",
    explanation.reasons.map((each) => reason(each, explanation, decision.words ?? [])),
    explanation.rules.length > 0 && h("details", { class: "more" },
      h("summary", null, `All ${count(explanation.rules.length, "rule")} that were evaluated`),
      h("div", { class: "source", tabindex: "0", role: "region", "aria-label": "Rules that were evaluated" },
        h("ol", null, explanation.rules.slice(0, 500).map(step))),
      explanation.cut && h("p", { class: "soft" }, "The list is cut: more were evaluated.")),
    explanation.untraced?.length > 0 && h("p", { class: "soft pad" }, "Not followed: ",
      explanation.untraced.map((file, index) => [index > 0 && ", ", code(file)])));
};
