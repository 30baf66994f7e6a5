// Tables of areas. On a phone each row is a card; the roles keep it a table for screen readers.

import { h } from "./dom.js";
import { code, count, name, number, when } from "./text.js";

/** Make a table: `columns` are `{title, cell(row), kind}`; `kind` "num" is for numbers,
  "main" for what a card is headed by. */
export const table = (caption, columns, rows, { denied = () => false } = {}) =>
  h("div", { class: "table" }, h("table", { role: "table" }, h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
      columns.map(({ title, kind }) => h("th", { scope: "col", role: "columnheader", class: kind }, title)))),
    h("tbody", { role: "rowgroup" }, rows.map((row) => rowOf(columns, row, denied(row))))));

/** Make one row of a table, to be added to it. */
export const rowOf = (columns, row, denied) =>
  h("tr", { role: "row", class: denied ? "denied" : null }, columns.map(({ title, kind, cell }) =>
    h("td", { role: "cell", class: kind, "data-title": title }, cell(row))));

/** Show an outcome of a decision: allowed is quiet. */
export const outcome = (row) =>
  row.allow ? h("span", { class: "soft" }, "allowed")
    : h("span", { class: "no strong" }, "✕ ", row.reasons?.length
      ? row.reasons.slice(0, 4).map((reason, index) => [index > 0 && ", ", name(reason, 40)]) : name(row.code || "denied"),
      row.count ? ` ×${number(row.count)}` : "");

/** The columns of decisions. */
export const DECISIONS = [
  { title: "Time, UTC", kind: "time", cell: (row) => h("span", { title: row.time }, when(row.time)) },
  { title: "Action", kind: "main", cell: (row) => {
    const to = row.message || row.record;
    return to ? h("a", { href: `/decisions/${encodeURIComponent(to)}` }, code(row.action)) : code(row.action);
  } },
  { title: "From", cell: (row) => name(row.from, 40) },
  { title: "Decided by", cell: (row) => name(row.by, 40) },
  { title: "For", cell: (row) => (row.user ? name(row.user, 40) : h("span", { class: "soft" }, "no user")) },
  { title: "Outcome", kind: "out", cell: outcome },
];

/** Make a form of filters: `fields` are `{key, label, options?, type?}`; `change(values)` is called when they are applied. */
export const filters = (fields, query, change) => {
  const inputs = fields.map(({ key, label, options, type = "text", hint }, index) => {
    const id = `by-${key}`;
    const value = query.get(key) ?? "";
    const input = options
      ? h("select", { id, name: key }, options.map(([option, title]) =>
        h("option", { value: option, selected: option === value }, title)))
      : h("input", { id, name: key, type, value, maxlength: "400", placeholder: hint, autocomplete: "off",
        spellcheck: "false", "data-filter": index === 0 });
    return h("div", { class: "field" }, h("label", { for: id }, label), input);
  });
  const form = h("form", {
    class: "by", "aria-label": "Filters",
    onsubmit: (event) => { event.preventDefault(); change(Object.fromEntries(new FormData(form))); },
    onchange: (event) => event.target.tagName === "SELECT" && form.requestSubmit(),
  }, inputs, h("button", { type: "submit" }, "Apply"));
  return form;
};

/** Say how many rows there are. */
export const counted = (rows, singular, more) => h("p", { class: "soft foot" }, count(rows, singular), more ?? "");

