// The parts that every view is made of.

import { h, render, Fragment } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";
import { connection, get, Refused, Unreachable } from "./api.js";
import { ago, moment } from "./words.js";

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

// #/jobs/ID?a=1 -> { path: ["jobs", "ID"], query: URLSearchParams }
export function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}
export const link = (path, query) => {
  const text = query ? new URLSearchParams(query).toString() : "";
  return `#/${path}${text ? `?${text}` : ""}`;
};
export const go = (path, query, replace = false) => {
  const target = link(path, query);
  if (replace) { history.replaceState(null, "", target); dispatchEvent(new HashChangeEvent("hashchange")); } else location.hash = target;
};

// A document that is asked for again after `seconds(document)`; never while nobody looks.
export function usePolled(path, seconds = 0) {
  const [state, set] = useState({ path, data: undefined, error: undefined });
  const again = useRef(() => {});
  const wait = useRef(seconds);
  wait.current = seconds;
  useEffect(() => {
    if (!path) return undefined;
    let timer, ended = false, failures = 0, busy = false;
    const abort = new AbortController();
    const round = async () => {
      clearTimeout(timer);
      if (busy) return;
      busy = true;
      let data, error;
      try {
        data = await get(path, abort.signal);
        failures = 0;
      } catch (problem) {
        error = problem;
        failures += 1;
      }
      busy = false;
      if (ended) return;
      set(before => {
        if (before.path === path && before.data === data && before.error === error) return before;
        return { path, data: error ? (before.path === path ? before.data : undefined) : data, error };
      });
      const away = error instanceof Unreachable || error?.status === 429 || error?.status >= 500;
      const pause = away ? Math.min(30, 2 ** failures) : typeof wait.current === "function" ? wait.current(data) : wait.current;
      if (pause && (!error || away) && !document.hidden) timer = setTimeout(round, 1000 * pause);
    };
    const seen = () => { if (!document.hidden && (wait.current || connection.state === "away")) round(); };
    again.current = round;
    round();
    document.addEventListener("visibilitychange", seen);
    addEventListener("online", seen);
    return () => { ended = true; clearTimeout(timer); abort.abort(); document.removeEventListener("visibilitychange", seen); removeEventListener("online", seen); };
  }, [path]);
  const current = state.path === path ? state : { data: undefined, error: undefined };
  return { ...current, loading: current.data === undefined && current.error === undefined, refresh: () => again.current() };
}

// Whether the window is as narrow as a phone's.
export function useNarrow() {
  const query = useMemo(() => matchMedia("(max-width: 44rem)"), []);
  const [narrow, set] = useState(query.matches);
  useEffect(() => {
    const changed = () => set(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, [query]);
  return narrow;
}

// A clock that ticks for relative times.
export function useNow(seconds = 10) {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), 1000 * seconds);
    return () => clearInterval(timer);
  }, [seconds]);
  return now;
}

export const useTitle = title => useEffect(() => { document.title = title ? `${title} · Gradsmith` : "Gradsmith"; }, [title]);

export const When = ({ at, now }) => (at ? html`<time datetime=${at} title=${moment(at)}>${ago(at, now)}</time>` : "–");
export const Status = ({ status }) => html`<span class=${`status ${status}`}><span class="dot" aria-hidden="true"></span>${status}</span>`;
export const Verdict = ({ verdict }) => html`<span class=${`verdict ${verdict}`}>${verdict}</span>`;
export const Chip = ({ change }) => html`<span class="chip" title=${change.usual === undefined ? null : `the family's recipe: ${change.usualText}`}><b>${change.name}</b> ${change.valueText}</span>`;

export function Progress({ value, max, label }) {
  const share = max ? Math.min(1, value / max) : 0;
  return html`<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax=${max || 1} aria-valuenow=${value} aria-label=${label}><i style=${{ width: `${100 * share}%` }}></i></div>`;
}

export function Copy({ text, label = "copy" }) {
  const [done, set] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no permission, or plain HTTP
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    set(true);
    setTimeout(() => set(false), 1500);
  };
  return html`<button type="button" class="small quiet" onClick=${copy}>${done ? "copied" : label}</button>`;
}

export const Code = ({ title, text }) => html`<div class="code"><div class="code-head"><span>${title}</span><${Copy} text=${text} /></div><pre tabindex="0" aria-label=${title}>${text}</pre></div>`;

// What may be wider than the window: it scrolls by itself, and the keyboard reaches it.
export function Scroll({ label, children }) {
  const box = useRef(null);
  const [wide, widen] = useState(false), [more, see] = useState(false);
  const look = () => { if (!box.current) return; const { scrollLeft, scrollWidth, clientWidth } = box.current; widen(scrollWidth > clientWidth + 1); see(scrollWidth > clientWidth + scrollLeft + 1); };
  useEffect(() => {
    const watch = new ResizeObserver(look);
    for (const each of [box.current, ...box.current.children]) watch.observe(each);
    return () => watch.disconnect();
  }, []);
  return html`${wide ? html`<small class="wider" aria-hidden="true">${more ? "scroll for more →" : "← scroll back"}</small>` : null}<div class=${more ? "scroll more" : "scroll"} tabindex="0" role="group" aria-label=${label} ref=${box} onScroll=${look}>${children}</div>`;
}

export const Loading = ({ what = "" }) => html`<div class="loading" role="status"><span class="spinner" aria-hidden="true"></span>Loading ${what} …</div>`;
export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

export function Failure({ error, retry }) {
  if (!error || (error instanceof Refused && error.status === 401)) return null;
  return html`<div class="failure" role="alert"><strong>${error instanceof Unreachable ? "The server does not answer." : error.problem?.title ?? "This did not work."}</strong>
    <p>${error.message}</p>${error.errors?.length ? html`<ul>${error.errors.map(each => html`<li><code>${each.pointer || each.location}</code> ${each.message}</li>`)}</ul>` : null}
    ${retry ? html`<button type="button" onClick=${retry}>Try again</button>` : null}</div>`;
}

// A question before something that cannot be undone. `action` may fail: what it says stays in the dialog.
// impossible: it tells why, and there is nothing to agree to
export function Confirm({ label, className = "", title, children, action, confirm, disabled, impossible }) {
  const dialog = useRef(null);
  const [error, fail] = useState(null);
  const [busy, work] = useState(false);
  const [asking, ask] = useState(false);
  useLayoutEffect(() => { if (asking) dialog.current.showModal(); }, [asking]);
  const run = async () => {
    work(true);
    fail(null);
    try {
      await action();
      dialog.current?.close();
    } catch (problem) { fail(problem); } finally { work(false); }
  };
  return html`<button type="button" class=${className} disabled=${disabled} onClick=${() => { fail(null); ask(true); }}>${label}</button>
    ${asking ? html`<dialog ref=${dialog} aria-label=${title} onClose=${() => ask(false)}><h2>${title}</h2><div>${children}</div><${Failure} error=${error} />
      <div class="actions">${impossible ? null : html`<button type="button" class="primary" disabled=${busy} onClick=${run}>${confirm ?? label}</button>`}
      <button type="button" onClick=${() => dialog.current.close()}>Leave it</button></div></dialog>` : null}`;
}

// A small line of losses, on a logarithmic axis where it can be.
export function Sparkline({ step, loss, total, label }) {
  const width = 120, height = 28;
  const all = step.map((x, i) => [x, loss[i]]).filter(([, y]) => y !== null && Number.isFinite(y));
  // lowest and highest of a stretch come in pairs: their middle is what a small line can show
  const known = all.length < 12 ? all : all.slice(1).map(([x, y], i) => [x, y > 0 && all[i][1] > 0 ? Math.sqrt(y * all[i][1]) : (y + all[i][1]) / 2]);
  if (known.length < 2) return html`<svg class="spark" viewBox="0 0 ${width} ${height}" aria-hidden="true"></svg>`;
  const log = known.every(([, y]) => y > 0);
  const ys = known.map(([, y]) => (log ? Math.log10(y) : y));
  const low = Math.min(...ys), high = Math.max(...ys), span = high - low || 1, last = Math.max(total || 0, known.at(-1)[0]) || 1;
  const points = known.map(([x], i) => `${(x / last * (width - 4) + 2).toFixed(1)},${(height - 3 - (ys[i] - low) / span * (height - 6)).toFixed(1)}`);
  return html`<svg class="spark" viewBox="0 0 ${width} ${height}" role="img" aria-label=${label}><polyline points=${points.join(" ")} /><circle cx=${points.at(-1).split(",")[0]} cy=${points.at(-1).split(",")[1]} r="2" /></svg>`;
}
