// The input document of a decision, with the values that the rules looked at marked.

import { card, h } from "./dom.js";
import { name, nodes, number, whole } from "./text.js";

const FEW = 4;
const MOST = 400;
const DEPTH = 24;

const steps = (path) => path.replace(/\[(?:"([^"]*)"|(\w+))\]/g, (_, quoted, bare) => `.${quoted ?? bare}`);

const scalar = (value) => value === null || typeof value !== "object";

/** Make the card of the input. */
export const inputDocument = (decision) => {
  if (decision.input === null || decision.input === undefined) return card("Input", null,
    h("p", { class: "pad soft" }, "The record holds no input document."));
  const looked = decision.looked.map(steps);
  const failed = (decision.explanation?.reasons ?? []).flatMap((reason) => reason.failed)
    .flatMap((literal) => literal.looked);
  const redacted = (decision.redacted ?? []).map(steps);
  const touched = (at) => looked.some((path) => path === at || path.startsWith(`${at}.`) || at.startsWith(`${path}.`));
  const bad = (at, value) => failed.some(({ written, value: seen }) => seen === JSON.stringify(value)
    && (at === written || at.endsWith(`.${steps(written)}`)));
  let left = MOST;

  const leaf = (at, value) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const shown = text.length > 120 ? whole(text) : name(text, 200);
    if (redacted.includes(at)) return h("span", { class: "soft" }, "redacted");
    if (!touched(at)) return shown;
    return h("mark", { class: bad(at, value) ? "bad" : "" }, shown,
      h("span", { class: "unseen" }, bad(at, value) ? " (looked at, failed)" : " (looked at)"));
  };
  const entry = (key, value, at, depth) => {
    const label = h("span", { class: "key" }, nodes(String(key).slice(0, 120)));
    if (--left < 0) return left === -1 ? h("li", { class: "soft" }, "… more than is shown here") : null;
    if (scalar(value) || depth > DEPTH || (Array.isArray(value) && value.length < 12 && value.every(scalar)
      && JSON.stringify(value).length < 120)) {
      const flat = Array.isArray(value) ? value.map((each) => (typeof each === "string" ? each : JSON.stringify(each)))
        .join(", ") || "[]" : value;
      return h("li", null, label, " ", Array.isArray(value) || scalar(value) ? leaf(at, flat) : name("…"));
    }
    return h("li", null, label, Object.keys(value).length ? members(value, at, depth + 1)
      : h("span", { class: "soft" }, Array.isArray(value) ? " []" : " {}"));
  };
  const members = (value, at, depth) => {
    const all = Object.entries(value).map(([key, each]) => [key, each, at ? `${at}.${key}` : key]);
    const seen = all.filter(([, , path]) => touched(path));
    const rest = all.filter(([, , path]) => !touched(path));
    const list = (some) => h("ul", null, some.map(([key, each, path]) => entry(key, each, path, depth)));
    if (rest.length <= (seen.length ? FEW : 12)) return list(all);
    return [list(seen), h("details", null, h("summary", null, `${number(rest.length)} more fields`), list(rest))];
  };
  return card("Input", looked.length ? "marked: what the rules looked at" : null,
    h("div", { class: "doc", tabindex: "0", role: "region", "aria-label": "Input document" },
      members(decision.input, "", 0)));
};
