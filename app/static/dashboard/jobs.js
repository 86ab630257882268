// The list of jobs: live, filtered by the address, each training with the evaluation that it asked for as one row.

import { get, send } from "./api.js";
import { Chip, Confirm, Empty, Failure, go, html, link, Loading, Progress, Sparkline, Status, useEffect, useMemo, useNow, usePolled, useRef, useState, useTitle, Verdict, When } from "./base.js";
import { Code } from "./base.js";
import { changesShown, duration, labelsOf, number, shortId, shownAs } from "./words.js";

export const ACTIVE = new Set(["queued", "running", "cancelling"]);
export const KIND_WORDS = { meta_train: "training", evaluate: "evaluation", preview: "preview", sweep: "sweep" };
const STATUSES = ["queued", "running", "cancelling", "succeeded", "failed", "cancelled"];
const LISTED = ["status", "kind", "family"];
const MOST_CHIPS = 5;
const MOST_LINES = 32; // that /curves gives at once

// What the list asks the server for, from the address of the page.
function listing(query) {
  const asked = new URLSearchParams({ limit: query.get("limit") ?? "25" });
  for (const [name, value] of query) if ((LISTED.includes(name) || name === "after" || name.startsWith("metadata.")) && value) asked.set(name, value);
  return asked.toString();
}

// Specs never change: they are fetched with the first page, and one by one for jobs that come later.
function useSpecs(jobs, path) {
  const specs = useRef(new Map());
  const [, seen] = useState(0);
  useEffect(() => {
    if (!jobs) return;
    const missing = jobs.filter(job => !specs.current.has(job.id));
    if (!missing.length) return;
    const keep = found => { for (const job of found) specs.current.set(job.id, job.spec); seen(count => count + 1); };
    if (missing.length > 3) get(`jobs?${path}`).then(page => keep(page.data), () => {});
    else Promise.all(missing.map(job => get(`jobs/${job.id}`))).then(keep, () => {});
  }, [jobs]);
  return specs.current;
}

// Curves of the trainings in view: those of running ones again every ten seconds.
function useLines(jobs) {
  const [lines, set] = useState(new Map());
  const trainings = (jobs ?? []).filter(job => job.kind === "meta_train" && job.progress.step > 1);
  const known = useRef(new Map());
  const wanted = trainings.filter(job => known.current.get(job.id) !== job.status).map(job => job.id);
  const running = trainings.filter(job => job.status === "running").map(job => job.id).join(" ");
  const load = ids => {
    if (!ids.length || document.hidden) return;
    for (let at = 0; at < ids.length; at += MOST_LINES) {
      get(`curves?${new URLSearchParams([...ids.slice(at, at + MOST_LINES).map(id => ["job", id]), ["max_points", "32"]])}`).then(found => {
        set(before => { const after = new Map(before); for (const line of found.data) after.set(line.job, line); return after; });
      }, () => {});
    }
  };
  useEffect(() => {
    for (const job of trainings) known.current.set(job.id, job.status);
    load(wanted);
  }, [wanted.join(" ")]);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => load(running.split(" ")), 10_000);
    return () => clearInterval(timer);
  }, [running]);
  return lines;
}

// Verdicts by the evaluation's job; asked for again when another job has ended.
function useVerdicts(jobs) {
  const [verdicts, set] = useState(new Map());
  const ended = (jobs ?? []).filter(job => job.kind === "evaluate" && job.status === "succeeded").length + (jobs ?? []).filter(job => job.evaluation).length;
  useEffect(() => {
    if (!ended) return;
    get("optimizers?limit=100").then(page => set(new Map(page.data.flatMap(optimizer => optimizer.evaluations.map(found => [found.job, { ...found, reference: optimizer.reference }])))), () => {});
  }, [ended]);
  return verdicts;
}

export const chipsOf = (job, spec, families) => {
  const family = families?.find(each => each.name === job.family);
  return changesShown({ ...job, spec }, family).map(change => ({ ...change, valueText: shownAs(change.name, change.value), usualText: shownAs(change.name, change.usual) }));
};

// A link to the form, filled with what this job changed.
export const againLink = job => link("jobs/new", { from: job.id });

export function JobActions({ job, changed, small = true }) {
  const size = small ? "small" : "";
  if (ACTIVE.has(job.status)) {
    return html`<${Confirm} label="Cancel" className=${`${size} danger`} disabled=${job.status === "cancelling"} title="Cancel this job?" confirm="Cancel the job" action=${async () => { await send(`jobs/${job.id}/cancel`); changed(); }}>
      <p>${KIND_WORDS[job.kind]} on <b>${job.family}</b>, ${number(job.progress.step)} of ${number(job.progress.total)} done. Cancelling writes no checkpoint; a retry begins at the last one.</p><//>`;
  }
  if (["failed", "cancelled"].includes(job.status)) return html`<${Retry} job=${job} changed=${changed} size=${size} />`;
  return null;
}

function Retry({ job, changed, size }) {
  const [error, fail] = useState(null);
  const retry = () => send(`jobs/${job.id}/retry`).then(() => { fail(null); changed(); }, fail);
  return html`<button type="button" class=${size} onClick=${retry}>Retry</button><${Failure} error=${error} />`;
}

function State({ job, child, now }) {
  const { step, total, eta_seconds } = job.progress;
  const took = job.started_at ? ((job.finished_at ? Date.parse(job.finished_at) : now) - Date.parse(job.started_at)) / 1000 : null;
  if (job.status === "running") return html`<${Progress} value=${step} max=${total} label=${`progress of ${job.id}`} /><span class="soft">${number(step)} of ${number(total)}${eta_seconds === null ? "" : `, ${duration(eta_seconds)} left`}</span>`;
  if (job.status === "queued") return html`<span class="soft">${job.queue_position === 0 ? "next in the queue" : job.queue_position === null ? "waits" : `${job.queue_position} before it`}</span>`;
  if (child && ACTIVE.has(child.status)) return html`<${Progress} value=${child.progress.step} max=${child.progress.total} label=${`progress of the evaluation of ${job.id}`} /><span class="soft">${child.status === "running" ? `evaluation: ${number(child.progress.step)} of ${number(child.progress.total)}${child.progress.eta_seconds === null ? "" : `, ${duration(child.progress.eta_seconds)} left`}` : "evaluation waits"}</span>`;
  return took === null ? null : html`<span class="soft">took ${duration(took)}</span>`;
}

function Outcome({ verdict }) {
  if (!verdict) return null;
  const { final } = verdict.best_baseline;
  return html`<span><${Verdict} verdict=${final.verdict} /> <span class="soft">against ${final.baseline}, ${number(final.ratio_of_means)}× its final loss</span></span>`;
}

// A sweep's trials as one line: how many there are in each state, and what each changed.
function Trials({ job, trials }) {
  const states = STATUSES.map(status => [status, trials.filter(trial => trial.status === status).length]).filter(([, count]) => count);
  const of = trial => Object.entries(trial.trial?.values ?? {}).map(([name, value]) => `${name.split(".").at(-1)} ${shownAs(name, value)}`).join(", ") || shortId(trial.id);
  return html`<details class="reason"><summary>${trials.length} trials: ${states.map(([status, count]) => `${count} ${status}`).join(", ")}</summary><ul class="chips" aria-label=${`trials of ${job.family} ${shortId(job.id)}`}>${trials.map(trial => html`<li key=${trial.id}><a class="chip" href=${link(`jobs/${trial.id}`)}><${Status} status=${trial.status} /> ${of(trial)}</a></li>`)}</ul></details>`;
}

function JobRow({ job, child, trials, spec, line, verdict, families, chosen, choose, now, changed }) {
  const chips = spec ? chipsOf(job, spec, families) : [];
  const labels = Object.entries(job.metadata);
  const rest = chips.length - MOST_CHIPS;
  return html`<li class="row" data-job=${job.id}>
    ${job.kind === "meta_train" ? html`<label class="check"><span class="hidden">compare ${job.family} ${shortId(job.id)}</span><input type="checkbox" checked=${chosen} onChange=${() => choose(job.id)} /></label>` : html`<span></span>`}
    <div class="name"><a href=${link(`jobs/${job.id}`)}>${job.family}${job.kind === "meta_train" ? "" : html` <span class="soft">${KIND_WORDS[job.kind]}</span>`}</a>
      <div class="meta"><${Status} status=${job.status} /><${When} at=${job.created_at} now=${now} /><span class="mono" title=${job.id}>…${job.id.slice(-6)}</span>${job.attempt > 1 ? html`<span>attempt ${job.attempt}</span>` : null}</div></div>
    <div class="what chips">${chips.slice(0, MOST_CHIPS).map(change => html`<${Chip} key=${change.name} change=${change} />`)}${rest > 0 ? html`<span class="chip">+${rest}</span>` : null}
      ${spec && spec.seed !== undefined ? html`<span class="chip"><b>seed</b> ${String(spec.seed).length > 8 ? `…${String(spec.seed).slice(-5)}` : spec.seed}</span>` : null}
      ${labels.map(([name, value]) => html`<a key=${name} class="chip label" href=${link("jobs", { [`metadata.${name}`]: value })} title="show the jobs with this label">${name}=${value}</a>`)}</div>
    <div class="spark-cell">${line ? html`<${Sparkline} step=${line.step} loss=${line.loss} total=${job.progress.total} label=${`loss so far, now ${number(line.loss.at(-1))}`} />` : null}</div>
    <div class="state"><${State} job=${job} child=${child} now=${now} /><${Outcome} verdict=${verdict} /></div>
    <div class="actions"><${JobActions} job=${child && ACTIVE.has(child.status) ? child : job} changed=${changed} />${ACTIVE.has(job.status) || (child && ACTIVE.has(child.status)) ? null : html`<a class="button small" href=${againLink(job)} aria-label=${`Run ${job.family} ${shortId(job.id)} again, with changes`}>Again</a>`}</div>
    ${trials.length ? html`<${Trials} job=${job} trials=${trials} />` : null}
    ${job.status_reason || child?.status_reason ? html`<div class="reason">${[job.status_reason, child?.status_reason].filter(Boolean).join("; ")}</div>` : null}</li>`;
}

const FIRST = `import gradsmith
client = gradsmith.Client()
job = client.jobs.create(family="quadratic")
client.jobs.wait(job)
optimizer = client.optimizers.get("quadratic@best")`;

function FirstRun() {
  return html`<${Empty} title="Nothing has been trained yet">
    <p>A job trains an optimizer for a family of tasks, then compares it with tuned Adam, SGD and others on tasks that it never saw. The smallest family takes about half a minute.</p>
    <div class="actions"><a class="button primary" href=${link("jobs/new", { family: "quadratic" })}>Train your first optimizer</a><a class="button" href="#/families">See the families</a></div>
    <${Code} title="or from Python" text=${FIRST} /><//>`;
}

// A label as a filter of the server: `key=value`, taken with Enter or on leaving the field.
function LabelFilter({ add }) {
  const [text, write] = useState("");
  const take = event => { const [found] = Object.entries(labelsOf(event.target.value)); if (found?.[1]) { write(""); add(...found); } };
  return html`<label>Label<input value=${text} onInput=${event => write(event.target.value)} onChange=${take} placeholder="experiment=first" /></label>`;
}

export function Jobs({ query }) {
  useTitle("Jobs");
  const asked = listing(query);
  const { data, error, loading, refresh } = usePolled(`jobs?${asked}&brief=true`, page => (page?.data.some(job => ACTIVE.has(job.status)) ? 2 : 8));
  const { data: families } = usePolled("families");
  const now = useNow(5);
  const jobs = data?.data;
  const specs = useSpecs(jobs, asked);
  const lines = useLines(jobs);
  const verdicts = useVerdicts(jobs);
  const [chosen, setChosen] = useState([]);
  const words = (query.get("q") ?? "").toLowerCase();
  const filter = change => {
    const next = new URLSearchParams(query);
    for (const [name, value] of Object.entries(change)) if (value) next.set(name, value); else next.delete(name);
    if (!("after" in change)) next.delete("after");
    go("jobs", next, "q" in change);
  };
  const rows = useMemo(() => {
    if (!jobs) return [];
    const children = new Map(jobs.filter(job => job.parent).map(job => [job.parent, job]));
    const here = new Set(jobs.map(job => job.id));
    const trials = new Map();
    for (const job of jobs) if (job.sweep && here.has(job.sweep)) trials.set(job.sweep, [...(trials.get(job.sweep) ?? []), job]);
    return jobs.filter(job => !(job.parent && here.has(job.parent)) && !(job.sweep && here.has(job.sweep))).map(job => ({ job, child: children.get(job.id), trials: trials.get(job.id) ?? [] }));
  }, [jobs]);
  const matching = rows.filter(({ job, child }) => !words || JSON.stringify([job.id, child?.id, job.family, job.status, job.kind, job.metadata, chipsOf(job, specs.get(job.id), families?.data).map(change => [change.name, change.valueText])]).toLowerCase().includes(words));
  const choose = id => setChosen(before => (before.includes(id) ? before.filter(each => each !== id) : [...before, id]));
  const filtered = [...query.keys()].some(name => name !== "after");
  const labels = [...query].filter(([name]) => name.startsWith("metadata."));
  const names = [...new Set([...(families?.data ?? []).map(family => family.name), query.get("family")].filter(Boolean))];
  return html`<div class="head"><div class="title"><h1>Jobs</h1></div><div class="actions">
      ${chosen.length ? html`<a class="button" href=${link("compare", chosen.map(id => ["job", id]))}>Compare ${chosen.length}</a>` : null}<a class="button primary" href="#/jobs/new">New job</a></div></div>
    <form class="filters" role="search" onSubmit=${event => event.preventDefault()}>
      <label>Family<select value=${query.get("family") ?? ""} onChange=${event => filter({ family: event.target.value })}><option value="">all</option>${names.map(name => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
      <label>Status<select value=${query.get("status") ?? ""} onChange=${event => filter({ status: event.target.value })}><option value="">all</option>${STATUSES.map(status => html`<option key=${status} value=${status}>${status}</option>`)}</select></label>
      <label>Kind<select value=${query.get("kind") ?? ""} onChange=${event => filter({ kind: event.target.value })}><option value="">all</option>${Object.entries(KIND_WORDS).map(([kind, word]) => html`<option key=${kind} value=${kind}>${word}</option>`)}</select></label>
      <label>Find on this page<input type="search" value=${query.get("q") ?? ""} onInput=${event => filter({ q: event.target.value })} placeholder="id, label, setting" /></label>
      <${LabelFilter} add=${(name, value) => filter({ [`metadata.${name}`]: value })} />
      ${labels.map(([name, value]) => html`<button type="button" key=${name} class="small" onClick=${() => filter({ [name]: "" })} aria-label=${`remove the filter ${name.replace("metadata.", "")}=${value}`}>${name.replace("metadata.", "")}=${value} ✕</button>`)}
      ${filtered ? html`<a class="button" href="#/jobs">Clear</a>` : null}</form>
    <${Failure} error=${error} retry=${refresh} />
    ${loading ? html`<${Loading} what="jobs" />` : null}
    ${jobs && !jobs.length && !filtered && !query.get("after") ? html`<${FirstRun} />` : null}
    ${jobs && !matching.length && (jobs.length || filtered) ? html`<${Empty} title="No job matches"><p>Change or clear the filters.</p><//>` : null}
    ${matching.length ? html`<ul class="rows" aria-label="Jobs">${matching.map(({ job, child, trials }) => html`<${JobRow} key=${job.id} job=${job} child=${child} trials=${trials} spec=${specs.get(job.id)} line=${lines.get(job.id)}
      verdict=${verdicts.get(job.kind === "evaluate" ? job.id : job.evaluation)} families=${families?.data} chosen=${chosen.includes(job.id)} choose=${choose} now=${now} changed=${refresh} />`)}</ul>` : null}
    ${data && (data.has_more || query.get("after")) ? html`<div class="actions">${query.get("after") ? html`<button type="button" onClick=${() => history.back()}>Newer</button>` : null}
      ${data.has_more ? html`<button type="button" onClick=${() => filter({ after: data.next })}>Older</button>` : null}</div>` : null}`;
}
