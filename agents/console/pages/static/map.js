// The map of senders and deciders: columns by distance from the edges, curves as wide as the logarithm of their rate.
// Only denials have colour.

import { h, svg } from "./dom.js";
import { count, cut, name, number, plain } from "./text.js";

const MOST = 60;
const ROW = 46;
const TALL = 640;
const BOX = 34;

const rate = (value) => `${value < 10 ? value.toFixed(1) : number(Math.round(value))}/s`;
const keyOf = (edge) => JSON.stringify([edge.from, edge.to]);

/** Order each column so that an agent stands near those that ask it: two sweeps by the mean place of its neighbours. */
const ordered = (agents, edges) => {
  const columns = [];
  for (const agent of agents) (columns[Math.max(0, agent.column | 0)] ??= []).push(agent.name);
  const filled = columns.filter(Boolean);
  const place = new Map();
  const put = (column) => column.forEach((agent, index) => place.set(agent, (index + 0.5) / column.length));
  filled.forEach((column) => put(column.sort()));
  for (const side of ["from", "to"]) {
    const other = side === "from" ? "to" : "from";
    for (const column of side === "from" ? filled : [...filled].reverse()) {
      const mean = new Map(column.map((agent) => {
        const near = edges.filter((edge) => edge[other] === agent && edge[side] !== agent)
          .map((edge) => place.get(edge[side])).filter((at) => at !== undefined);
        return [agent, near.length ? near.reduce((sum, at) => sum + at, 0) / near.length : place.get(agent)];
      }));
      put(column.sort((agent, next) => mean.get(agent) - mean.get(next)));
    }
  }
  return filled;
};

const curve = (a, b, wide) => {
  const [x1, y1, x2, y2] = [a.x + wide, a.y + BOX / 2, b.x, b.y + BOX / 2];
  if (x2 > x1) {
    const middle = (x1 + x2) / 2;
    return { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, x: middle, y: (y1 + y2) / 2 };
  }
  // To the same column, or back: around the right side.
  const out = Math.max(x1, x2 + wide) + 18, end = x2 + wide;
  return { d: `M${x1} ${y1}C${out} ${y1} ${out} ${y2} ${end} ${y2}`, x: (out + Math.max(x1, end)) / 2,
    y: (y1 + y2) / 2 };
};

/** Make the map; `chosen(name)` is called when an agent is clicked, `draw(news)` shows the news of a half second. */
export const drawnMap = (chosen) => {
  const drawing = svg("svg", { class: "map", role: "img",
    "aria-label": "Agents, and who asks whom. The table below says the same." });
  const body = h("tbody");
  const listed = h("details", { class: "map-table", ontoggle: () => listing() },
    h("summary", null, "The map as a table"),
    h("table", null, h("thead", null, h("tr", null, ["From", "To", "A second",
      "Denied, last minute"].map((title) => h("th", { scope: "col" }, title)))), body));
  const legend = h("p", { class: "soft legend" });
  const element = h("div", { class: "map-box" }, drawing, legend, listed);
  let letters = 20, drawn = "", boxes = new Map(), lines = new Map(), news = null, width = 0;

  const listing = () => {
    if (!listed.open || !news) return;
    body.replaceChildren(...news.edges.slice(0, 200).map((edge) =>
      h("tr", { class: edge.denied ? "denied" : "" }, h("td", null, name(edge.from, 40)),
      h("td", null, name(edge.to, 40)),
      h("td", { class: "num" }, rate(edge.rate)), h("td", { class: "num" },
        edge.denied ? `✕ ${number(edge.denied)}` : "0"))));
  };

  const build = (agents, edges) => {
    const columns = ordered(agents, edges);
    const edge = width < 500 ? 8 : 16;
    const gap = Math.min(64, Math.max(18, width * 0.075));
    const wide = Math.min(150, Math.max(62, (width - 2 * edge - gap * (columns.length - 1)) / columns.length));
    const step = columns.length > 1 ? Math.max(wide + 18, (width - 2 * edge - wide) / (columns.length - 1)) : 0;
    const most = Math.max(...columns.map((column) => column.length), 1);
    const high = Math.max(most * ROW, width < 500 ? 240 : Math.min(TALL, most * ROW * 1.5)) + 24;
    letters = Math.floor((wide - 12) / 6.3);
    const at = new Map();
    boxes = new Map();
    lines = new Map();
    columns.forEach((column, c) => column.forEach((agent, index) => {
      const slot = (high - 24) / column.length;
      at.set(agent, { x: edge + c * step, y: 12 + slot * index + slot / 2 - BOX / 2 });
    }));
    drawing.setAttribute("viewBox", `0 0 ${Math.max(width, 2 * edge + wide + step * (columns.length - 1))} ${high}`);
    const paths = [], pills = [], groups = [];
    for (const edge of edges) {
      const [a, b] = [at.get(edge.from), at.get(edge.to)];
      if (!a || !b || edge.from === edge.to) continue;
      const { d, x, y } = curve(a, b, wide);
      const line = svg("path", { d });
      const text = svg("text", { x, y: y + 4, "text-anchor": "middle" });
      const pill = svg("g", { class: "pill", visibility: "hidden" },
        svg("rect", { x: x - 16, y: y - 9, width: 32, height: 18, rx: 9 }), text);
      lines.set(keyOf(edge), { line, pill, text });
      paths.push(line);
      pills.push(pill);
    }
    for (const agent of agents) {
      const { x, y } = at.get(agent.name);
      const speed = svg("text", { x: x + 7, y: y + 27, class: "rate" });
      const label = svg("text", { x: x + 7, y: y + 14 });
      label.textContent = cut(plain(agent.name) || "no name", letters);
      const group = svg("g", { onclick: () => chosen(agent.name) }, svg("title", null, plain(agent.name)),
        svg("rect", { x, y, width: wide, height: BOX, rx: 7 }), label, speed);
      boxes.set(agent.name, { group, speed });
      groups.push(group);
    }
    drawing.replaceChildren(...paths, ...groups, ...pills);
  };

  const draw = (graph) => {
    news = graph;
    const agents = graph.agents.slice(0, MOST);
    const present = new Set(agents.map((agent) => agent.name));
    const edges = graph.edges.filter((edge) => present.has(edge.from) && present.has(edge.to));
    const shape = JSON.stringify([width, agents.map((agent) => [agent.name, agent.column]), edges.map(keyOf)]);
    if (shape !== drawn && width) {
      drawn = shape;
      build(agents, edges);
    }
    const hot = new Set();
    for (const edge of edges) {
      const { line, pill, text } = lines.get(keyOf(edge)) ?? {};
      if (!line) continue;
      const bad = edge.denied > 0;
      if (bad) hot.add(edge.to);
      set(line, "class", bad ? "bad" : edge.rate > 0 ? "" : "idle");
      set(line, "stroke-width", (1.2 + Math.log2(1 + edge.rate) * 0.6).toFixed(1));
      set(pill, "visibility", bad ? "visible" : "hidden");
      if (bad) words(text, `✕${edge.denied > 999 ? "999+" : edge.denied}`);
    }
    for (const agent of agents) {
      const { group, speed } = boxes.get(agent.name) ?? {};
      if (!group) continue;
      set(group, "class", `${hot.has(agent.name) ? "hot" : ""} ${agent.state === "away" || agent.state === "unknown"
        ? "away" : ""}`);
      const full = `full, ${rate(agent.rate)}`;
      words(speed, agent.state === "full" ? (full.length > letters ? "full" : full)
        : agent.state === "away" ? "away" : rate(agent.rate));
    }
    const many = graph.agents.length > MOST ? `The first ${MOST} of ${count(graph.agents.length, "agent")}.`
      : "Left asks right. ✕ counts denials of the last minute.";
    words(legend, `${many} Choose an agent to see its decisions alone.`);
    listing();
  };

  new ResizeObserver(([entry]) => {
    width = Math.round(entry.contentRect.width);
    if (news) draw(news);
  }).observe(drawing);
  return { element, draw };
};

const set = (element, attribute, value) => element.getAttribute(attribute) !== value
  && element.setAttribute(attribute, value);
const words = (element, text) => element.textContent !== text && (element.textContent = text);
