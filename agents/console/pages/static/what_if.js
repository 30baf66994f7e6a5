// Recorded decisions of a period, decided again by the policy with changed files.

import { get, post } from "./api.js";
import { typed } from "./decisions.js";
import { h, say } from "./dom.js";
import { empty, filled } from "./states.js";
import { DECISIONS, outcome, table } from "./tables.js";
import { count, number, plain, whole } from "./text.js";

const LARGEST = 4 * 1024 * 1024;
const COLUMNS = [...DECISIONS.slice(0, 3), DECISIONS[4], { title: "Was", cell: (flip) => outcome(flip.was) },
  { title: "Would be", cell: (flip) => outcome(flip.now) }];

const hours = (back) => new Date(Date.now() - back * 3_600_000).toISOString().slice(0, 16);

/** The result: number and list of changed decisions, and the decisions that could not be made again. */
const result = (report) => {
  const flipped = report.flipped.map(({ row, was, now }) => ({ ...row, was, now }));
  const denied = flipped.filter(({ now }) => !now.allow).length;
  return h("section", { class: "card", "aria-label": "Result" },
    h("p", { class: "pad large" }, flipped.length ? h("strong", null,
      `${count(flipped.length, "decision")} would flip`) : h("strong", null, "No decision would flip"),
      ` of ${number(report.compared)} that were made again.`,
        flipped.length > 0 && ` ${number(denied)} to denied, ${number(flipped.length - denied)} to allowed.`),
    flipped.length ? table("Decisions that would flip", COLUMNS, flipped, { denied: (flip) => !flip.now.allow })
      : empty(report.compared ? "Each came out as it was recorded." : "None could be compared.",
        report.compared ? "With other reasons counts as the same if it was denied before, too."
        : "Choose a longer period, or one in which something was decided."),
    h("p", { class: "soft foot" }, `${number(report.read)} records read, ${number(report.same)} the same.`),
    report.problems?.length > 0 && h("details", { class: "more" },
      h("summary", null, `${number(report.problems.length)} could not be made again`),
      h("ul", { class: "plain" }, report.problems.slice(0, 100)
        .map((failure) => h("li", null, whole(typeof failure === "string" ? failure : JSON.stringify(failure)))))));
};

const show = (main, { signal, query }) => {
  const place = h("div");
  const files = h("div", { class: "files" });
  let made = 0, known = {}, first = "authz/decision.rego";
  const file = (path, text) => {
    const id = `file-${++made}`;
    const name = h("input", { id: `${id}-path`, class: "m", value: plain(path, 300), required: true, maxlength: "300",
      spellcheck: "false" });
    const body = h("textarea", { id, class: "m", rows: "12", required: true, spellcheck: "false",
      maxlength: String(LARGEST) });
    body.value = text;
    body.placeholder = "package sealbus.authz …";
    const group = h("fieldset", null, h("legend", { class: "unseen" }, `File ${made}`),
      h("div", { class: "file-head" }, h("div", { class: "field" },
      h("label", { for: `${id}-path` }, "Path in the policy"), name),
      h("button", { type: "button",
        onclick: () => { group.remove(); if (!files.children.length) file(first, known[first] ?? ""); } }, "Remove")),
    h("label", { for: id }, "Its text, changed"), body);
    files.append(group);
    return { name, body, group };
  };
  const upload = h("input", { id: "upload", type: "file", multiple: true, accept: ".rego,.json", onchange: async () => {
    for (const source of upload.files) {
      if (source.size > LARGEST) { say("A file is over 4 MiB"); continue; }
      const [empty] = files.children;
      if (empty && !empty.querySelector("textarea").value) empty.remove();
      const at = Object.keys(known).find((path) => path.endsWith(`/${source.name}`));
      const beside = first.slice(0, first.lastIndexOf("/") + 1);
      file(at ?? (source.name.endsWith(".json") ? source.name : beside + source.name), await source.text());
    }
    upload.value = "";
  } });
  const choice = h("select", { id: "of-policy", onchange: () => {
    const [top] = files.children;
    if (top && [known[top.querySelector("input").value], ""].includes(top.querySelector("textarea").value)) top.remove();
    file(choice.value, known[choice.value] ?? "");
  } });
  const time = (id, label, value) => [h("div", { class: "field" }, h("label", { for: id }, label),
    h("input", { id, value, required: true, maxlength: "40", class: "m", spellcheck: "false",
    "data-filter": id === "since" }))];
  const form = h("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const asked = {
        since: typed(form.querySelector("#since").value), until: typed(form.querySelector("#until").value),
        files: Object.fromEntries([...files.children].map((group) =>
          [group.querySelector("input").value.trim(), group.querySelector("textarea").value])),
      };
      const button = form.querySelector("button[type=submit]");
      button.disabled = true;
      filled(place, signal, async () => result(await post("/api/what-if", asked, signal)),
        "Asking the changed policy about each decision").finally(() => {
        button.disabled = false;
        place.scrollIntoView({ block: "nearest" });
      });
    },
  },
  h("div", { class: "by" }, h("div", { class: "field" }, h("label", { for: "of-policy" }, "File of the policy in force"), choice),
    time("since", "Since, UTC", query.get("since") ?? hours(1)),
    time("until", "Until, UTC", query.get("until") ?? hours(0)),
    h("div", { class: "field" }, h("label", { for: "upload" }, "Or read files of this computer"), upload)),
  files,
  h("p", { class: "acts foot" }, h("button", { type: "button", onclick: () => file("", "").name.focus() },
    "Add a file"), h("button", { type: "submit", class: "main" }, "Compare")));
  get("/api/policy/source", signal).then(({ files: found }) => { known = found; }).catch(() => null).then(() => {
    if (signal.aborted) return;
    const paths = Object.keys(known).sort();
    first = paths.find((path) => path.endsWith("authz/decision.rego")) ?? paths[0] ?? first;
    choice.replaceChildren(...paths.map((path) => h("option", { value: path, selected: path === first }, plain(path, 80))));
    choice.closest(".field").hidden = !paths.length;
    if (!files.children.length) file(first, known[first] ?? "");
  });
  main.append(h("p", { class: "lead" },
    "Choose a period and change a file of the policy. Each decision of the period is made again with it. ",
    "Those that flip are listed. Nothing is pushed, sent or kept."),
    h("section", { class: "card", "aria-label": "Question" }, form), place);
};

export const whatIf = { title: "What if", show };
