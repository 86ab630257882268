// One job: its state, its live curve, what it measured, its recipe, its events.

import { address, download, follow } from "./api.js";
import { Code, Copy, Failure, html, link, Loading, Progress, Status, useEffect, useMemo, useNow, usePolled, useRef, useState, useTitle, When } from "./base.js";
import { CurveCard, upTo } from "./curve.js";
import { Evaluation } from "./evaluation.js";
import { ACTIVE, againLink, JobActions, KIND_WORDS } from "./jobs.js";
import { Recipe } from "./recipe.js";
import { SearchPicture, Trials } from "./sweep.js";
import { bytes, duration, moment, number, shortId } from "./words.js";

const STREAMED_STEPS = 20_000; // a longer curve is asked for in parts: its stream would begin with all of it
const MOST_EVENTS = 400;

// The job's events as they come: points for the curve, everything else for the log.
function useEvents(job, metrics, changed) {
  const [events, set] = useState([]);
  const live = useMemo(() => {
    const listeners = new Set();
    return { points: { step: [], loss: [], validation: [] }, listen: listener => { listeners.add(listener); return () => listeners.delete(listener); }, tell: () => { for (const listener of listeners) listener(); } };
  }, [job?.id]);
  const latest = useRef(changed);
  latest.current = changed;
  const id = job?.id;
  const attempt = job?.attempt;
  useEffect(() => {
    if (!id) return undefined;
    const abort = new AbortController();
    let gathered = [], timer;
    set([]);
    live.points = { step: [], loss: [], validation: [] };
    follow(id, ({ kind, data, id: at }) => {
      if (kind === "metrics") {
        const { points } = live;
        for (const name of ["step", "loss", "validation"]) points[name].push(...data[name]);
        live.tell();
        return;
      }
      if (kind === "resumed") live.points = upTo(live.points, data.from_step);
      if (kind === "status" && !at) return; // how it stands: the page has that already
      gathered.push({ kind, data, at });
      timer ??= setTimeout(() => { timer = undefined; const found = gathered; gathered = []; set(before => [...before, ...found].slice(-MOST_EVENTS)); latest.current(); }, 150);
    }, abort.signal, { metrics });
    return () => { abort.abort(); clearTimeout(timer); };
  }, [id, attempt, metrics]);
  return { events, live };
}

const WORDS = {
  status: data => `${data.status}${data.reason ? `: ${data.reason}` : ""}`,
  log: data => data.message,
  checkpoint: data => `checkpoint at step ${number(data.step)}`,
  resumed: data => (data.from_step ? `goes on from step ${number(data.from_step)}` : "begins anew"),
  rolled_back: data => `rolled back from step ${number(data.step)} to step ${number(data.best_step)}: validation ${number(data.score)} against a best of ${number(data.best_score)}`,
  start_ended: data => `start ${data.start} of ${data.starts}: score ${number(data.score)}${data.chosen ? `; start ${data.chosen} goes on` : ""}`,
  stopped_early: data => `stopped early: ${data.validations} validations brought no new best since step ${number(data.best_step)}`,
  done: data => `${data.status}${data.reason ? `: ${data.reason}` : ""}`,
};

function Log({ events, job }) {
  const list = useRef(null);
  const stuck = useRef(true);
  useEffect(() => { if (stuck.current && list.current) list.current.scrollTop = list.current.scrollHeight; }, [events.length]);
  const attempts = [...new Set(events.map(({ at }) => Number(at?.split("-")[0]) || 1))];
  return html`<section class="card"><header><h2>Events</h2><small>${job.attempt > 1 ? `${job.attempt} attempts` : "attempt 1"}</small></header>
    ${events.length ? html`<ol class="log" tabindex="0" aria-label="events" ref=${list} onScroll=${() => { const { scrollTop, scrollHeight, clientHeight } = list.current; stuck.current = scrollHeight - scrollTop - clientHeight < 30; }}>
      ${events.map(({ kind, data, at }) => html`<li key=${at ?? kind} class=${data.level === "error" || data.status === "failed" ? "error" : ""}><span title="attempt-sequence">${at ?? ""}</span><span>${kind === "log" || kind === "status" || kind === "done" ? "" : html`<span class="hidden">${kind}: </span>`}${(WORDS[kind] ?? JSON.stringify)(data)}</span></li>`)}</ol>`
    : html`<p class="soft">${job.status === "queued" ? "The first event comes when a worker takes the job." : "No events yet."}</p>`}
    ${attempts.length > 1 ? html`<small>An event's number begins with its attempt.</small>` : null}</section>`;
}

function linesOf(job, family) {
  const { spec } = job;
  const body = { kind: job.kind, ...(job.kind === "evaluate" ? { optimizer: job.optimizer } : { family: job.family }) };
  return { body, curl: `curl -s ${address("jobs")}/${job.id}/${{ meta_train: "curve.csv", sweep: "search" }[job.kind] ?? "report.json"}`,
    python: `import gradsmith\nclient = gradsmith.Client("${address("").replace(/\/$/, "")}")\njob = client.jobs.get("${job.id}")\n${{ meta_train: "curve = client.jobs.curve(job)", sweep: "search = client.sweeps.get(job)" }[job.kind] ?? "report = client.jobs.report(job)"}` };
}

function Exports({ job }) {
  const { curl, python } = linesOf(job);
  const id = job.id;
  const files = job.kind === "meta_train"
    ? [["Curve, PNG", `jobs/${id}/curve.png`, "png"], ["Curve, CSV", `jobs/${id}/curve.csv`, "csv"], ["Job, JSON", `jobs/${id}`, "json"]]
    : job.kind === "sweep" ? [["Search, PNG", `jobs/${id}/search.png`, "png"], ["Search, JSON", `jobs/${id}/search`, "json"], ["Job, JSON", `jobs/${id}`, "json"]]
    : [["Report, PNG", `jobs/${id}/report.png`, "png"], ["Report, JSON", `jobs/${id}/report.json`, "json"], ["Job, JSON", `jobs/${id}`, "json"]];
  const [error, fail] = useState(null);
  return html`<section class="card"><h2>Take it with you</h2><div class="actions">${files.map(([word, path, ending]) => html`<button type="button" key=${word} class="small" onClick=${() => download(path, `${id}.${ending}`, "*/*").then(() => fail(null), fail)}>${word}</button>`)}</div>
    <${Failure} error=${error} /><${Code} title="curl" text=${curl} /><${Code} title="Python" text=${python} /></section>`;
}

export function JobView({ id }) {
  const { data: job, error, loading, refresh } = usePolled(`jobs/${id}`, found => (found && ACTIVE.has(found.status) ? 2 : found?.kind === "meta_train" && found.status === "succeeded" && found.spec.evaluate ? 5 : 0));
  const { data: families } = usePolled("families");
  const now = useNow(5);
  const metrics = job ? ACTIVE.has(job.status) && job.kind === "meta_train" && job.progress.total <= STREAMED_STEPS : undefined;
  const following = job && metrics !== undefined ? job : null;
  const { events, live } = useEvents(following, Boolean(metrics), refresh);
  useTitle(job ? `${job.family} ${KIND_WORDS[job.kind]}` : "Job");
  if (loading) return html`<${Loading} what="the job" />`;
  if (!job) return html`<a class="back" href="#/jobs">← Jobs</a><h1>Job</h1><${Failure} error=${error} retry=${refresh} /><div class="actions"><a class="button" href="#/jobs">All jobs</a></div>`;
  const family = families?.data.find(each => each.name === job.family);
  const { step, total, eta_seconds } = job.progress;
  const took = job.started_at ? ((job.finished_at ? Date.parse(job.finished_at) : now) - Date.parse(job.started_at)) / 1000 : null;
  const reported = ["meta_train", "sweep"].includes(job.kind) ? job.evaluation : job.status === "succeeded" ? job.id : null;
  return html`<a class="back" href="#/jobs">← Jobs</a>
    <div class="head"><div class="title"><h1>${job.family} <span class="soft">${KIND_WORDS[job.kind]}</span></h1><${Status} status=${job.status} /></div>
      <div class="actions"><${JobActions} job=${job} changed=${refresh} small=${false} />${ACTIVE.has(job.status) ? null : html`<a class="button" href=${againLink(job)}>Run again with changes</a>`}
        ${job.kind === "meta_train" ? html`<a class="button" href=${link("compare", { job: job.id })}>Compare</a>` : null}
        ${job.optimizer ? html`<a class="button" href=${link(`optimizers/${job.optimizer}`)}>Optimizer</a>` : null}</div></div>
    ${error ? html`<${Failure} error=${error} retry=${refresh} />` : null}
    ${job.status_reason ? html`<p class=${job.status === "failed" ? "failure" : "soft"}>${job.status_reason}</p>` : null}
    <section class="card"><div class="stats">
      <div class="stat" hidden=${!total}><span>${{ meta_train: "meta-steps", sweep: "trainings" }[job.kind] ?? "parts"}</span><b>${number(step)}<small> of ${number(total)}</small></b></div>
      <div class="stat"><span>${job.status === "running" ? "running for" : "took"}</span><b>${duration(took)}</b></div>
      ${job.price?.predicted_seconds ? html`<div class="stat" title=${job.price.rests_on.join("; ")}><span>predicted</span><b>${duration(job.price.predicted_seconds)}</b></div>` : null}
      ${job.status === "running" ? html`<div class="stat"><span>left</span><b>${duration(eta_seconds)}</b></div>` : null}
      ${job.queue_position !== null ? html`<div class="stat"><span>before it in the queue</span><b>${job.queue_position}</b></div>` : null}
      <div class="stat"><span>started</span><b><${When} at=${job.started_at ?? job.created_at} now=${now} /></b></div>
      <div class="stat"><span>seed</span><b class="seed">${String(job.spec.seed ?? "–")}</b></div></div>
      ${ACTIVE.has(job.status) ? html`<${Progress} value=${step} max=${total} label="progress" />` : null}
      <div class="chips"><span class="mono soft">${job.id}</span><${Copy} text=${job.id} label="copy the id" />${Object.entries(job.metadata).map(([name, value]) => html`<a class="chip label" key=${name} href=${link("jobs", { [`metadata.${name}`]: value })}>${name}=${value}</a>`)}
        ${job.parent ? html`<a href=${link(`jobs/${job.parent}`)}>its training ${shortId(job.parent)}</a>` : null}${job.sweep ? html`<a href=${link(`jobs/${job.sweep}`)}>its sweep ${shortId(job.sweep)}</a>` : null}</div></section>
    ${job.kind === "meta_train" && (step > 0 || !ACTIVE.has(job.status)) ? html`<${CurveCard} key=${job.id} job=${job} live=${live} big=${!metrics} />` : null}
    ${job.kind === "sweep" ? html`${step > 0 ? html`<${SearchPicture} job=${job} />` : null}<${Trials} job=${job} />` : null}
    ${reported ? html`<${Evaluation} key=${reported} id=${reported} training=${reported !== job.id} />` : null}
    <div class="two"><${Recipe} job=${job} family=${family} /><div class="two-right"><${Log} events=${events} job=${job} /><${Exports} job=${job} />
      <section class="card"><h2>Where it ran</h2><dl class="facts">${[["created", moment(job.created_at)], ["started", moment(job.started_at)], ["finished", moment(job.finished_at)], ...Object.entries(job.runtime).map(([name, value]) => name.endsWith("_bytes") && typeof value === "number" ? [name.slice(0, -6), bytes(value)] : [name, typeof value === "object" ? JSON.stringify(value) : String(value)])].map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl></section></div></div>`;
}
