// One stream for all tabs. A browser gives an origin six connections, and a SharedWorker's address cannot be set under
// `trusted-types 'none'`: so the tab that holds a lock reads the stream and tells the others. Tabs that are hidden for
// 30 seconds let go.

import { events } from "./stream.js";

const LOCK = "sealbus-live";
const HIDDEN = 30_000;
const QUIET = 6_000;
const LONGEST = 8_000;
const ALONE = 2;

const channel = navigator.locks && typeof BroadcastChannel === "function" ? new BroadcastChannel(LOCK) : null;
const listeners = new Map();
const known = new Map();
let last = "";
let heard = 0;
let holds = false;
let alone = 0;
let running = null;

/** The state of the stream: `connecting`, `open`, `lost` or `over`. */
export let state = "connecting";

/** Call `tell` with the data of each event of a type, until `signal`. Types: those of the stream, and `state`. */
export const on = (type, tell, signal) => {
  if (!listeners.has(type)) listeners.set(type, new Set());
  listeners.get(type).add(tell);
  signal?.addEventListener("abort", () => listeners.get(type).delete(tell), { once: true });
  if (known.has(type)) tell(JSON.parse(known.get(type)));
};

const turn = (now) => {
  if (state === now || state === "over") return;
  state = now;
  for (const tell of listeners.get("state") ?? []) tell(now);
};

const take = ({ type, id, data }) => {
  heard = Date.now();
  if (id) last = id;
  if (type === "state") return turn(data);
  if (type === "hello" || type === "map" || type === "over") known.set(type, data);
  turn(type === "over" ? "over" : "open");
  if (type === "over") running?.abort();
  const callbacks = listeners.get(type);
  if (!callbacks?.size) return;
  const read = JSON.parse(data);
  for (const callback of callbacks) callback(read);
};

const share = (event) => {
  if (alone < ALONE) channel?.postMessage(event);
  take(event);
};

/** Check whether other tabs wait for the lock. Without waiting tabs, nothing is copied for them. */
const look = async () => {
  const { pending } = await navigator.locks.query();
  alone = pending.some(({ name }) => name === LOCK) ? 0 : alone + 1;
};

const pause = (wait, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, wait);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });

const read = async (signal) => {
  holds = true;
  alone = 0;
  try {
    for (let wait = 500; !signal.aborted && state !== "over"; wait = Math.min(wait * 2, LONGEST)) {
      try {
        for await (const event of events("/api/live", last, signal)) {
          wait = 500;
          share(event);
          if (signal.aborted) return;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401 || error.status === 403)
          return share({ type: "over", id: "", data: JSON.stringify({ status: error.status, code: error.code,
            detail: error.detail || error.title }) });
      }
      share({ type: "state", id: "", data: "lost" });
      await pause(wait * (0.5 + Math.random() / 2), signal);
    }
  } finally {
    holds = false;
  }
};

const start = async () => {
  if (running || state === "over") return;
  running = new AbortController();
  const { signal } = running;
  try {
    if (channel) await navigator.locks.request(LOCK, { signal }, () => read(signal));
    else await read(signal);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
  running = null;
  if (!document.hidden) start();
};

/** Follow the stream again after its end, with a new login. */
export const again = () => {
  if (state !== "over") return;
  known.delete("over");
  state = "connecting";
  start();
};

/** Begin to follow the stream; once for the page. */
export const follow = () => {
  let hiding;
  channel?.addEventListener("message", ({ data }) => {
    if (!data.asks) take(data);
    else if (holds) {
      alone = 0;
      for (const [type, text] of known) channel.postMessage({ type, id: "", data: text });
    }
  });
  channel?.postMessage({ asks: true });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => running?.abort(), HIDDEN);
    else start();
  });
  setInterval(() => {
    if (state === "open" && Date.now() - heard > QUIET) turn("lost");
    if (channel && holds) look();
  }, 2_000);
  start();
};
