// Texts that strangers chose: isolated in <bdi>, with invisible and direction-changing characters as visible chips.

import { h } from "./dom.js";

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;
const UNSEEN_PARTS = /([\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}])/u;
const CUT = 72;
const FOLD = 400;
const CHIPS = 200;

const point = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Whether a text holds characters that need a chip. */
export const unseen = (text) => UNSEEN.test(text);

/** Return a text for attributes, with invisible characters spelled out. */
export const plain = (value, most = CUT) =>
  cut(String(value ?? ""), most).split(UNSEEN_PARTS).map((part, index) => (index % 2 ? `[${point(part)}]` : part))
    .join("");

/** Return at most `most` UTF-16 units of a text, no half characters, with an ellipsis if something is left out. */
export const cut = (text, most = CUT) => {
  if (text.length <= most) return text;
  const kept = text.slice(0, most - 1);
  return (/[\ud800-\udbff]$/.test(kept) ? kept.slice(0, -1) : kept) + "…";
};

/** Return the nodes of a text; characters in `keep` stay as they are. */
export const nodes = (text, keep = "") => {
  if (!UNSEEN.test(text)) return [text];
  const found = [];
  let chips = 0;
  for (const [index, part] of text.split(UNSEEN_PARTS).entries()) {
    if (index % 2 === 0) {
      if (part) found.push(part);
    } else if (keep.includes(part)) found.push(part);
    else if (++chips <= CHIPS) found.push(h("span", { class: "chip" }, point(part)));
    else return [...found, "…"];
  }
  return found;
};

/** Show a name: one line, cut if it is long. */
export const name = (value, most = CUT) => {
  const text = String(value ?? "");
  return text ? h("bdi", null, nodes(cut(text, most))) : h("i", { class: "soft" }, "empty");
};

/** Show a name in the type of code. */
export const code = (value, most = CUT) => h("code", null, name(value, most));

/** Show a text whole: folded if it is long, with its line ends. Not for use within links and headings. */
export const whole = (value, tag = "bdi") => {
  const text = String(value ?? "");
  const body = h(tag, { class: "whole" }, nodes(text, "\n\t"));
  if (text.length <= FOLD) return body;
  return h("details", { class: "fold" },
    h("summary", null, name(text, 120), " ", h("span", { class: "soft" }, `${number(text.length)} characters`)), body);
};

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });

/** Write a number with separators. */
export const number = (value) => (typeof value === "number" ? GROUPED.format(value) : "–");

/** Write "1 task", "2 tasks". */
export const count = (value, singular, plural = `${singular}s`) => `${number(value)} ${value === 1 ? singular : plural}`;

/** Write milliseconds. */
export const milliseconds = (value) => (value < 10_000 ? `${GROUPED.format(value)} ms` : span(value / 1000));

/** Write a span of seconds in its largest unit. */
export const span = (seconds) => {
  for (const [unit, size] of [["d", 86_400], ["h", 3_600],
    ["min", 60]]) if (seconds >= size * 2) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.round(seconds))} s`;
};

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Write the time of day of an RFC 3339 time in UTC. */
export const clock = (time) => String(time ?? "").slice(11, 23).replace("Z", "");

/** Show a time in UTC; `short` leaves out milliseconds. */
export const when = (time, short = false) => {
  const read = /^(\d{4})-(\d\d)-(\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,3})?/.exec(time ?? "");
  if (!read) return h("span", { class: "soft" }, "unknown");
  const [, year, month, day, seconds, fraction = ""] = read;
  const suffix = Number(year) === new Date().getUTCFullYear() ? "" : ` ${year}`;
  return h("time", { datetime: time }, `${Number(day)} ${MONTHS[month - 1]}${suffix}, ${seconds}${short ? ""
    : fraction}`);
};

/** Write how long ago a time was, or how long it is until then. */
export const since = (time) => {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  return Number.isNaN(seconds) ? "" : seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
};

/** Show an id shortened in its middle. */
export const short = (id) => h("code", null, h("bdi", null,
  nodes(String(id ?? "").length > 20 ? `${id.slice(0, 8)}…${id.slice(-4)}` : String(id ?? ""))));

/** Write a sentence: its first letter large, a full stop at its end. */
export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".")
  : "");
