// Server-sent events read by fetch: unlike EventSource, this tells a refusal from a lost
// connection, and can continue after the last event.

import { Refused } from "./api.js";

const QUIET = 20_000;
const LARGEST = 8 * 1024 * 1024;

const parsed = (block) => {
  const event = { type: "message", id: "", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const field = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + (line[at + 1] === " " ? 2 : 1));
    if (field === "event") event.type = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += event.data ? `\n${value}` : value;
  }
  return event;
};

/** Yield the events of a stream until it ends. Throws Refused, or an error if nothing comes for 20 seconds. */
export async function* events(where, last, signal) {
  const broken = new AbortController();
  const stop = () => broken.abort();
  let timer = setTimeout(stop, QUIET);
  signal.addEventListener("abort", stop, { once: true });
  try {
    const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
    const answer = await fetch(where, { headers, signal: broken.signal, cache: "no-store" });
    if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let kept = "";
    for (;;) {
      const { done, value } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      timer = setTimeout(stop, QUIET);
      const blocks = (kept + value.replaceAll("\r", "")).split("\n\n");
      kept = blocks.pop();
      if (kept.length > LARGEST) throw new Error("an event without an end");
      for (const block of blocks) {
        const event = parsed(block);
        if (event.data) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    broken.abort();
  }
}
