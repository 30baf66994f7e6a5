// Elements are made here and nowhere else. Children are nodes or text: nothing is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

const fill = (element, props, children) => {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined
    && child !== false));
  return element;
};

/** Make an element: `h("a", {href: "/"}, "text", node)`. Names that begin with `on` are listeners. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** Make an SVG element. */
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

const ICONS = {
  check: "M4 8.500l3 3 5.5-6.5",
  cross: "M4.5 4.500l7 7M11.5 4.500l-7 7",
  wait: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 5v3.300l2 1.3",
  person: "M8 8a2.7 2.7 0 1 0 0-5.400A2.7 2.7 0 0 0 8 8zM2.9 14c.5-2.9 2.4-4.3 5.1-4.300s4.6 1.4 5.1 4.3",
  bulb: "M5.5 11.6h5M6.3 14h3.4M8 1.8a4.3 4.3 0 0 0-2.5 7.8c.6.4.8 1 .8 1.7h3.4c0-.7.2-1.3.8-1.7A4.3 4.3 0 0 0 8 1.8z",
};

/** Draw an icon. Its meaning must stand beside it in words. */
export const icon = (name, size = 16) =>
  svg("svg", { class: "icon", width: size, height: size, viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }));

const STAMPS = { ok: "M17 27l6.5 6.5L36 20", no: "M18 18l16 16M34 18L18 34", wait: "M26 15v12l8 5" };

/** Draw the large mark of a verdict: `ok`, `no` or `wait`. */
export const stamp = (kind, label) => svg("svg", { class: `stamp ${kind}`, viewBox: "0 0 52 52", role: "img",
  "aria-label": label },
  svg("circle", { cx: 26, cy: 26, r: 24 }), svg("path", { d: STAMPS[kind] }));

let made = 0;

/** Make a card with a heading; `aside` stands at its right. */
export const card = (title, aside, ...children) => {
  const id = `h${++made}`;
  return h("section", { class: "card", "aria-labelledby": id },
    h("header", null, h("h2", { id }, title), aside && h("span", { class: "soft" }, aside)), children);
};

/** Make a list of terms: `[["Record", node], ...]`; entries without a value are left out. */
export const terms = (entries, kind = "kv") =>
  h("dl", { class: kind }, entries.filter((entry) => entry && entry[1] !== null && entry[1] !== undefined
    && entry[1] !== "")
    .map(([term, ...values]) => h("div", null, h("dt", null, term), h("dd", null, values))));

/** Announce a text to screen readers. */
export const say = (text) => {
  document.getElementById("announcement").textContent = text;
};
