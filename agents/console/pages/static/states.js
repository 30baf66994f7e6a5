// The states of an area without contents: loading, empty, refused, out of reach. Each says what to do next.

import { login, Refused } from "./api.js";
import { h, icon } from "./dom.js";
import { code, name, short, whole } from "./text.js";

/** Show that the area is loading. */
export const loading = (what = "Loading") => h("p", { class: "state soft", role: "status" }, `${what}…`);

/** Show that the area is empty, and what to do about it. */
export const empty = (title, ...next) => h("div", { class: "state" }, h("p", { class: "strong" }, title),
  h("p", { class: "soft" }, next));

const remedies = (error) => error.remedy.filter((remedy) => remedy && typeof remedy.text === "string").map((remedy) =>
  h("p", { class: "remedy" }, icon("bulb"), h("span", null, whole(remedy.text),
    remedy.kind === "login" && [" ", h("a", { href: login(remedy) }, "Log in again")])));

const WORDS = {
  0: "The console's server does not answer. It may be starting again, or the way to it is interrupted.",
  404: "There is nothing here by this name.",
  429: "Too much was asked at once. Wait a few seconds.",
  502: "The console and its pages may be of different versions: reload the page.",
  503: "What this area reads cannot be reached now: the bus, the log, or the edge.",
};

/** Show why a request was refused or failed; `retry` is called when the person wants to try again. */
export const problem = (error, retry) => {
  if (error.status === 401)
    return h("div", { class: "state", role: "alert" }, h("p", { class: "strong" }, "Log in to look at this"),
      h("p", { class: "soft" }, "The console shows what your login may see. Your login is missing, or has ended."),
      h("p", null, h("a", { class: "button main", href: login() }, "Log in")));
  const denied = error.status === 403;
  return h("div", { class: "state", role: "alert" },
    h("p", { class: "strong" }, denied ? h("span", { class: "no" }, icon("cross"), " Denied by policy")
      : whole(error.title || WORDS[error.status] || "This did not work")),
    denied && error.title && h("p", null, whole(error.title)),
    error.detail && h("p", { class: "soft" }, whole(error.detail)),
    !denied && error.title && WORDS[error.status] && h("p", { class: "soft" }, WORDS[error.status]),
    error.reasons.length > 0 && h("p", null, "Reasons: ",
      error.reasons.map((reason, index) => [index > 0 && ", ", code(reason)])),
    remedies(error),
    error.decision && h("p", { class: "soft" }, "This refusal is recorded as message ",
      h("a", { href: `/decisions/${encodeURIComponent(error.decision)}` }, short(error.decision)), "."),
    error.code && !denied && h("p", { class: "soft" }, "Code: ", code(error.code)),
    retry && !denied && h("p", null, h("button", { type: "button", onclick: retry }, "Try again")));
};

/** Fill `place`: first with the loading state, then with the nodes that `load` returns, or with its error. */
export const filled = async (place, signal, load, what) => {
  place.replaceChildren(loading(what));
  place.setAttribute("aria-busy", "true");
  try {
    const made = await load();
    if (signal.aborted) return;
    place.replaceChildren(...[made].flat(Infinity).filter(Boolean));
    // A person who uses the keyboard stays on the area itself until there is a heading.
    if (document.activeElement?.id === "content") place.querySelector("h1")?.focus({ preventScroll: true });
  } catch (error) {
    if (signal.aborted) return;
    const shown = error.status === undefined ? new Refused(502, { title: "The answer is not what this page expects" }) : error;
    place.replaceChildren(problem(shown, () => filled(place, signal, load, what)));
    if (shown !== error) throw error;
  } finally {
    place.removeAttribute("aria-busy");
  }
};

/** Ask in a dialog before an action; `act(text)` performs it,
  and its failure is shown there. Returns whether it was done. */
export const confirmed = ({ title, about, label, hint, action, danger, required, act }) =>
  new Promise((done) => {
    const field = h("textarea", { id: "why", rows: "3", maxlength: "1000", required, "aria-describedby": "why-hint" });
    const outcome = h("div");
    const go = h("button", { type: "submit", class: danger ? "main danger" : "main" }, action);
    let finished = false;
    const dialog = h("dialog", { "aria-labelledby": "ask", onclose: () => { dialog.remove(); done(finished); } },
      h("form", {
        onsubmit: async (event) => {
          event.preventDefault();
          go.disabled = true;
          try {
            await act(field.value.trim());
            finished = true;
            dialog.close();
          } catch (error) {
            if (error.status === undefined) throw error;
            outcome.replaceChildren(problem(error));
          } finally {
            go.disabled = false;
          }
        },
      },
      h("h2", { id: "ask" }, title), about, h("label", { for: "why" }, label), field,
        h("p", { class: "soft", id: "why-hint" }, hint), outcome,
      h("div", { class: "acts" }, h("button", { type: "button", onclick: () => dialog.close() }, "Back"), go)));
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });

/** Show a state in words with its mark: colour is for what is denied, waits, or is verified. */
export const mark = (kind, text) =>
  h("span", { class: `mark-${kind}` }, kind === "no" ? icon("cross", 14) : kind === "ok" ? icon("check", 14)
    : kind === "wait" ? icon("wait", 14) : null, name(text));
