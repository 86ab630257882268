// The public API and nothing else: whatever the dashboard shows, a program can fetch.

const ROOT = new URL("./", document.baseURI);
const KEY = "gradsmith.key";
const REMEMBERED = 200;

export const address = path => new URL(path, ROOT).href;

// The key is in a header, never in an address; it is kept in this tab until the tab closes.
export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: token => { sessionStorage.setItem(KEY, token); remembered.clear(); },
  forget: () => { sessionStorage.removeItem(KEY); remembered.clear(); },
};

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    Object.assign(this, { status, code: problem.code, errors: problem.errors ?? [], problem });
  }
}
export class Unreachable extends Error {}

// Who wants to know how the connection is: "ok", "away", or a Refused that asks for a key.
const listeners = new Set();
export const connection = { state: "ok", watch: listener => { listeners.add(listener); return () => listeners.delete(listener); } };
function tell(state) {
  if (connection.state === state) return;
  connection.state = state;
  for (const listener of [...listeners]) listener(state);
}

const remembered = new Map(); // address -> [ETag, document]
export const traffic = { requests: 0 };

export async function ask(path, { method = "GET", body, accept = "application/json", headers = {}, signal } = {}) {
  const token = key.get();
  const sent = { Accept: accept, ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  traffic.requests += 1;
  let answer;
  try {
    answer = await fetch(address(path), { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    tell("away");
    throw new Unreachable("The server does not answer.");
  }
  if (answer.ok || answer.status === 304) {
    tell("ok");
    return answer;
  }
  let problem = {};
  try { problem = await answer.json(); } catch { /* a proxy's page */ }
  const refused = new Refused(answer.status, problem);
  if (answer.status === 401) tell(refused);
  else if ([502, 503, 504].includes(answer.status)) { tell("away"); throw new Unreachable(refused.message); }
  else tell("ok");
  throw refused;
}

// A document; what was not changed since it was asked for last costs a 304.
export async function get(path, signal) {
  const known = remembered.get(path);
  const answer = await ask(path, { headers: known ? { "If-None-Match": known[0] } : {}, signal });
  if (answer.status === 304) return known[1];
  const found = await answer.json();
  const tag = answer.headers.get("ETag");
  remembered.delete(path);
  if (tag) remembered.set(path, [tag, found]);
  if (remembered.size > REMEMBERED) remembered.delete(remembered.keys().next().value);
  return found;
}

export const text = async (path, accept = "text/plain") => (await ask(path, { accept })).text();
export const send = async (path, body, method = "POST", headers = {}) => {
  const answer = await ask(path, { method, body, headers });
  return answer.status === 204 ? null : answer.json();
};

// A picture or a file: neither <img> nor <a> can send the key, so it is fetched here.
export const blobUrl = async (path, accept) => URL.createObjectURL(await (await ask(path, { accept })).blob());
export async function download(path, name, accept) {
  save(await (await ask(path, { accept })).blob(), name);
}
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
export async function open(path, accept) {
  if (!key.get()) { window.open(address(path), "_blank", "noopener"); return; }
  window.open(await blobUrl(path, accept), "_blank");
}

const sleep = (milliseconds, signal) => new Promise(resolve => {
  const timer = setTimeout(resolve, milliseconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

const seen = signal => new Promise(resolve => {
  const look = () => { if (document.hidden && !signal.aborted) return; document.removeEventListener("visibilitychange", look); signal.removeEventListener("abort", look); resolve(); };
  document.addEventListener("visibilitychange", look);
  signal.addEventListener("abort", look);
  look();
});

// Ends when `signal` does, or when nobody looks: browsers allow six connections to a server, over all tabs together.
function whileSeen(signal) {
  const abort = new AbortController();
  const end = () => { if (signal.aborted || document.hidden) { abort.abort(); stop(); } };
  const stop = () => { document.removeEventListener("visibilitychange", end); signal.removeEventListener("abort", end); };
  document.addEventListener("visibilitychange", end);
  signal.addEventListener("abort", end);
  end();
  return { signal: abort.signal, stop };
}

// A job's events, from the first on, across broken connections: nothing is lost and nothing comes twice.
// A job that was retried has a `done` for each attempt: the last is that of the attempt the opening `status` names.
export async function follow(job, onEvent, signal, { metrics = true } = {}) {
  let last = null, pause = 1000, attempt = 1;
  while (!signal.aborted) {
    await seen(signal);
    const round = whileSeen(signal);
    try {
      const answer = await ask(`jobs/${job}/events${metrics ? "" : "?metrics=false"}`, { accept: "text/event-stream", headers: last ? { "Last-Event-ID": last } : {}, signal: round.signal });
      if (answer.status === 204) return;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const event = { kind: "message", data: "" };
          for (const line of block.split("\n")) {
            const at = line.indexOf(":"), name = line.slice(0, at), told = line.slice(at + 1).trimStart();
            if (name === "event") event.kind = told;
            else if (name === "data") event.data += told;
            else if (name === "id") event.id = told;
            else if (name === "retry") pause = Number(told) || pause;
          }
          if (!event.data) continue;
          if (event.id) last = event.id;
          const data = JSON.parse(event.data);
          if (event.kind === "status" && !event.id) attempt = data.attempt ?? attempt;
          onEvent({ ...event, data });
          if (event.kind === "done" && !(Number(event.id?.split("-")[0]) < attempt)) { reader.cancel(); return; }
        }
      }
    } catch (error) {
      if (signal.aborted || error instanceof Refused) return;
      if (round.signal.aborted) continue;
    } finally { round.stop(); }
    await sleep(pause, signal);
  }
}
