// The console's own JSON interface. Every wait has a deadline. Each request for a change has a header that forms cannot send.

const WITHIN = 30_000;
const LONG = 180_000;

/** An error answer of the server: its status and its problem document. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.title || `status ${status}`);
    this.status = status;
    this.code = String(body?.code ?? "");
    this.title = String(body?.title ?? "");
    this.detail = String(body?.detail ?? "");
    this.remedy = Array.isArray(body?.remedy) ? body.remedy : [];
    this.reasons = Array.isArray(body?.reasons) ? body.reasons : [];
    this.decision = typeof body?.message === "string" ? body.message : "";
  }
}

const ask = async (path, { signal, within = WITHIN, ...options } = {}) => {
  const deadline = AbortSignal.timeout(within);
  let answer, body;
  try {
    answer = await fetch(path, { ...options, signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      cache: "no-store" });
    body = await answer.json().catch(() => null);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, { title: deadline.aborted ? "No answer in time" : "The console cannot be reached" });
  }
  if (!answer.ok) throw new Refused(answer.status, body);
  if (body === null) throw new Refused(502, { title: "This is no answer of the console" });
  return body;
};

/** Build a path with a query from the values that are set. */
export const path = (base, query) => {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return set.length ? `${base}?${new URLSearchParams(set)}` : base;
};

/** Get JSON. */
export const get = (where, signal) => ask(where, { signal });

/** Post JSON, and return the JSON that answers it. */
export const post = (where, body, signal) =>
  ask(where, { method: "POST", headers: { "content-type": "application/json", "x-sealbus-console": "1" },
    body: JSON.stringify(body), signal, within: LONG });

/** Return the path of a login that leads back to this page; `needs` is a remedy that asks for another login. */
export const login = (needs = {}) => {
  const acr = Array.isArray(needs.acr) ? needs.acr.join(" ") : needs.acr;
  return path("/login", { to: location.pathname + location.search, acr, max_age: needs.max_age });
};
