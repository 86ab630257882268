// The loss of a training: live, thinned by the server, fetched anew for the part that somebody looks at.

import { get, save } from "./api.js";
import { Chart, pictureOf, smoothed } from "./chart.js";
import { Empty, Failure, html, Loading, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./base.js";
import { number } from "./words.js";

const MOST_POINTS = 2000;
const SMOOTHINGS = [[1, "none"], [5, "5 points"], [25, "25 points"], [100, "100 points"]];

const empty = () => ({ step: [], loss: [], validation: [] });

// Points that came after the last one known; a resumed job takes some back.
function joined(before, after) {
  if (!after.step.length) return before;
  const last = before.step.at(-1) ?? -1, first = after.step.findIndex(step => step > last);
  if (first < 0) return before;
  const columns = {};
  for (const name of ["step", "loss", "validation"]) columns[name] = before[name].concat(after[name].slice(first));
  return columns;
}

export function upTo(points, step) {
  const end = points.step.findIndex(each => each > step);
  return end < 0 ? points : { step: points.step.slice(0, end), loss: points.loss.slice(0, end), validation: points.validation.slice(0, end) };
}

// Every known point of a live curve in at most MOST_POINTS: the lowest and the highest of each stretch.
export function thinned(points, most) {
  const count = points.step.length;
  if (count <= most) return points;
  const stretches = Math.floor(most / 2), kept = [];
  for (let stretch = 0; stretch < stretches; stretch += 1) {
    const from = Math.floor(stretch * count / stretches), to = Math.floor((stretch + 1) * count / stretches);
    let low = from, high = from;
    for (let at = from; at < to; at += 1) { if (points.loss[at] < points.loss[low]) low = at; if (points.loss[at] > points.loss[high]) high = at; }
    kept.push(...(low === high ? [low] : [Math.min(low, high), Math.max(low, high)]));
  }
  return { step: kept.map(at => points.step[at]), loss: kept.map(at => points.loss[at]), validation: kept.map(at => points.validation[at]) };
}

// live: a ref whose current is { points, listen }, fed by the stream of the job's view
export function CurveCard({ job, live, big }) {
  const [stored, store] = useState(null);       // the part in view, from the server
  const [validated, keep] = useState(empty());  // every validation
  const [range, setRange] = useState(null);
  const [error, fail] = useState(null);
  const [log, setLog] = useState(true);
  const [smooth, setSmooth] = useState(null);
  const [, tick] = useState(0);
  const box = useRef(null);
  const windows = job.spec.recipe ? Math.max(1, Math.round(job.spec.recipe.horizon / job.spec.recipe.unroll_steps)) : 1;
  const running = job.status === "running";
  const streamed = live && !big && running;
  const looking = useRef({ part: null, abort: null });
  const load = async () => {
    looking.current.abort?.abort();
    const { part } = looking.current, { signal } = looking.current.abort = new AbortController();
    const asked = new URLSearchParams({ job: job.id, max_points: MOST_POINTS });
    if (part) { asked.set("from_step", Math.max(0, Math.floor(part[0]))); asked.set("to_step", Math.ceil(part[1])); }
    try {
      const [line] = (await get(`curves?${asked}`, signal)).data;
      store({ ...line, part: part?.join("-") });
      fail(null);
      if (line.total_points > line.step.length && !part) {
        const found = await get(`jobs/${job.id}/curve.json?validated=true&max_points=${MOST_POINTS}`, signal);
        keep({ step: found.step, loss: found.loss, validation: found.validation });
      }
    } catch (problem) { if (!signal.aborted) fail(problem); }
  };
  // The detail is asked for before the picture moves: the server works while the browser draws.
  const zoom = part => { looking.current.part = part; load(); setRange(part); };
  useLayoutEffect(() => {
    load();
    const timer = running && !streamed ? setInterval(load, 3000) : null;
    return () => { looking.current.abort.abort(); clearInterval(timer); };
  }, [job.id, job.status, job.attempt, streamed]);
  useLayoutEffect(() => { if (stored && stored.part === range?.join("-")) performance.mark("gradsmith-detail-drawn"); }, [stored]);
  useEffect(() => {
    if (!streamed) return undefined;
    let waiting = false;
    // at most four pictures a second, however fast the points come
    return live.listen(() => { if (!waiting) { waiting = true; setTimeout(() => { waiting = false; tick(count => count + 1); }, 250); } });
  }, [streamed, live]);
  const known = streamed && !range ? joined(upTo(stored ?? empty(), live.points.step[0] ? live.points.step[0] - 1 : Infinity), live.points) : stored ?? empty();
  const drawn = thinned(known, MOST_POINTS);
  const streamedAfter = known === stored ? 0 : known.step.filter(step => step > (stored?.step.at(-1) ?? 0)).length;
  const whole = (stored?.total_points ?? 0) <= (stored?.step.length ?? 0) || streamed;
  const width = smooth ?? (whole && known.step.length > 4 * windows ? windows : 1);
  const data = useMemo(() => {
    const validations = known.step.map((step, at) => [step, known.validation[at]]).filter(([, value]) => value !== null);
    // those outside the part in view too: the best so far is the best of all before
    const all = new Map([...validated.step.map((step, at) => [step, validated.validation[at]]), ...validations]);
    const steps = [...new Set([...drawn.step, ...all.keys()])].sort((a, b) => a - b);
    const losses = new Map(drawn.step.map((step, at) => [step, drawn.loss[at]]));
    const loss = steps.map(step => losses.get(step) ?? null), validation = steps.map(step => all.get(step) ?? null);
    let best = Infinity;
    const bests = validation.map(value => { if (value !== null && value < best) best = value; return Number.isFinite(best) ? best : null; });
    return { columns: [steps, loss, smoothed(loss, width), validation, bests], best, allPositive: [...loss, ...validation].every(value => value === null || value > 0) };
  }, [known.step.length, known.step.at(-1), drawn.step.length, validated, width, stored]);
  const asLog = log && data.allPositive;
  const { columns } = data;
  const series = [
    { label: "training", color: "--line-1", width: 1, faint: width > 1 },
    { label: width > 1 ? `mean of ${width}` : "mean", color: "--line-1", width: 2, show: width > 1 },
    { label: "validation", color: "--line-2", points: true },
    { label: "best", color: "--line-3", width: 1.5, dash: [6, 4] },
  ];
  const span = range ?? [known.step[0] ?? 0, known.step.at(-1) ?? 1];
  const closer = factor => { const middle = (span[0] + span[1]) / 2, half = Math.max(2, (span[1] - span[0]) * factor / 2); return [Math.max(1, middle - half), middle + half]; };
  const move = share => { const by = (span[1] - span[0]) * share; return [Math.max(1, span[0] + by), span[1] + by]; };
  const keys = event => {
    const to = { "+": closer(0.5), "-": closer(2), ArrowLeft: move(-0.25), ArrowRight: move(0.25), 0: null, Escape: null }[event.key];
    if (to === undefined || event.target.tagName === "SELECT") return;
    event.preventDefault();
    zoom(to);
  };
  const title = `loss of ${job.family} by meta-step`;
  const svg = async () => save(new Blob([(await import("./chart-svg.js")).svgOf({ series, data: columns, log: asLog, range, xLabel: "meta-step", title })], { type: "image/svg+xml" }), `${job.id}.svg`);
  const inside = step => !range || (step >= range[0] && step <= range[1]);
  const csv = () => save(new Blob([["step,training,mean,validation,best", ...[...columns[0].keys()].filter(at => inside(columns[0][at])).map(at => columns.map(column => column[at] ?? "").join(","))].join("\n")], { type: "text/csv" }), `${job.id}-drawn.csv`);
  const last = at => { for (let place = at.length - 1; place >= 0; place -= 1) if (at[place] !== null) return at[place]; return null; };
  if (error && !stored) return html`<section class="card"><h2>Loss</h2><${Failure} error=${error} retry=${load} /></section>`;
  if (!stored) return html`<section class="card"><h2>Loss</h2><${Loading} what="the curve" /></section>`;
  if (!known.step.length) return html`<section class="card"><h2>Loss</h2><p class="soft">${running ? "The first points come when the first meta-step is done." : "This job has no points."}</p></section>`;
  return html`<section class="card" aria-labelledby="loss-title"><header><h2 id="loss-title">Loss ${running ? html`<small>${streamed ? "live" : "every 3 s"}</small>` : null}</h2>
    <div class="actions"><label class="check"><span>smoothing</span><select class="small" value=${width} onChange=${event => setSmooth(Number(event.target.value))}>${[...SMOOTHINGS, ...(SMOOTHINGS.some(([size]) => size === width) ? [] : [[width, `${width}: a trajectory`]])].map(([size, word]) => html`<option key=${size} value=${size}>${word}</option>`)}</select></label>
      <span class="segments" role="group" aria-label="scale"><button type="button" aria-pressed=${asLog} disabled=${!data.allPositive} onClick=${() => setLog(true)}>log</button><button type="button" aria-pressed=${!asLog} onClick=${() => setLog(false)}>linear</button></span>
      <span class="segments" role="group" aria-label="zoom"><button type="button" aria-label="zoom in" onClick=${() => zoom(closer(0.5))}>+</button><button type="button" aria-label="zoom out" onClick=${() => zoom(closer(2))}>−</button><button type="button" disabled=${!range} onClick=${() => zoom(null)}>all</button></span></div></header>
    <div ref=${box} tabindex="0" role="group" aria-label="loss curve: + and - zoom, arrows move, 0 shows all" onKeyDown=${keys}>
      <${Chart} series=${series} data=${columns} log=${asLog} range=${range} xLabel="meta-step" onZoom=${part => zoom(part)} label=${`${title}: now ${number(last(columns[1]))}, best validation ${number(last(columns[4]))}`} /></div>
    <div class="actions"><small>${number(stored.total_points + streamedAfter)} points${known.step.length > drawn.step.length || !whole ? `, ${number(drawn.step.length)} drawn: the lowest and highest of each stretch` : ""}. Drag to zoom, double-click for all.</small>
      <button type="button" class="small quiet" onClick=${async () => save(await pictureOf(box.current), `${job.id}.png`)}>PNG</button><button type="button" class="small quiet" onClick=${svg}>SVG</button><button type="button" class="small quiet" onClick=${csv}>CSV of what is drawn</button></div></section>`;
}
