// Several jobs: their curves in one picture, their recipes side by side. The address holds the whole of it.

import { Chart, LINES, smoothed } from "./chart.js";
import { Code, Copy, Empty, Failure, go, html, link, Loading, Scroll, Status, useEffect, useMemo, usePolled, useState, useTitle, Verdict } from "./base.js";
import { address, get } from "./api.js";
import { SettingRows, settingsOf } from "./recipe.js";
import { evaluationOf, flat, number, shortId, shownAs } from "./words.js";

const MOST = 12;

function useJobs(ids) {
  const [found, set] = useState({ jobs: [], error: null, loading: true });
  useEffect(() => {
    let current = true;
    if (!ids.length) { set({ jobs: [], error: null, loading: false }); return undefined; }
    Promise.all(ids.map(id => get(`jobs/${id}`))).then(jobs => { if (current) set({ jobs, error: null, loading: false }); }, error => { if (current) set({ jobs: [], error, loading: false }); });
    return () => { current = false; };
  }, [ids.join(" ")]);
  return found;
}

export function Compare({ query }) {
  useTitle("Compare");
  const ids = query.getAll("job").slice(0, MOST);
  const log = query.get("scale") !== "linear", all = query.get("all") === "1";
  const { jobs, error, loading } = useJobs(ids);
  const { data: recent } = usePolled("jobs?kind=meta_train&limit=50&brief=true");
  const { data: optimizers } = usePolled(ids.length ? "optimizers?limit=100" : null);
  const trainings = jobs.filter(job => job.kind === "meta_train");
  const active = trainings.some(job => job.status === "running");
  const { data: lines, error: noLines } = usePolled(trainings.length ? `curves?${new URLSearchParams([...trainings.map(job => ["job", job.id]), ["max_points", "800"]])}` : null, active ? 5 : 0);
  const change = pairs => { const next = new URLSearchParams(query); for (const [name, value] of Object.entries(pairs)) { next.delete(name); for (const each of [value].flat()) if (each) next.append(name, each); } go("compare", next); };
  const labels = useMemo(() => {
    const parts = new Map(jobs.map(job => [job.id, new Map(flat({ ...job.spec.recipe, tasks_of: job.spec.family?.tasks }))]));
    const names = [...new Set([...parts.values()].flatMap(part => [...part.keys()]))].filter(name => new Set([...parts.values()].map(part => JSON.stringify(part.get(name)))).size > 1).slice(0, 2);
    return new Map(jobs.map(job => [job.id, `${job.family} ${names.map(name => `${name.split(".").at(-1)}=${shownAs(name, parts.get(job.id).get(name))}`).join(" ")} …${job.id.slice(-4)}`]));
  }, [jobs]);
  const drawn = useMemo(() => {
    const found = lines?.data.filter(line => line.step.length) ?? [];
    const steps = [...new Set(found.flatMap(line => line.step))].sort((a, b) => a - b);
    const columns = [], series = [];
    found.forEach((line, place) => {
      const known = new Map(line.step.map((step, at) => [step, at])), mean = smoothed(line.loss, 9), color = LINES[place % LINES.length];
      columns.push(steps.map(step => (known.has(step) ? mean[known.get(step)] : null)));
      series.push({ label: labels.get(line.job) ?? shortId(line.job), color, width: 2 });
    });
    return { data: [steps, ...columns], series, positive: columns.every(column => column.every(value => value === null || value > 0)) };
  }, [lines, labels]);
  const rows = useMemo(() => settingsOf(jobs), [jobs]);
  const few = rows.filter(row => all || row.differs);
  const others = (recent?.data ?? []).filter(job => !ids.includes(job.id));
  const madeBy = new Map((optimizers?.data ?? []).map(optimizer => [optimizer.job, optimizer]));
  return html`<div class="head"><div class="title"><h1>Compare</h1></div><div class="actions">${ids.length ? html`<${Copy} text=${location.href} label="copy this address" />` : null}</div></div>
    <form class="filters" onSubmit=${event => event.preventDefault()}><label>Add a training<select value="" disabled=${ids.length >= MOST} onChange=${event => event.target.value && change({ job: [...ids, event.target.value] })}><option value="">choose a job</option>${others.map(job => html`<option key=${job.id} value=${job.id}>${job.family}, ${job.status}, …${job.id.slice(-6)}</option>`)}</select></label></form>
    <${Failure} error=${error ?? noLines} />${loading ? html`<${Loading} what="the jobs" />` : null}
    ${!ids.length ? html`<${Empty} title="Nothing chosen yet"><p>Add trainings above, or mark them in the list of jobs. The address of this page then holds your choice, to share or to keep.</p><//>` : null}
    ${trainings.length && lines ? html`<section class="card"><header><h2>Loss <small>mean of nine drawn points</small></h2><span class="segments" role="group" aria-label="scale"><button type="button" aria-pressed=${log && drawn.positive} disabled=${!drawn.positive} onClick=${() => change({ scale: "" })}>log</button><button type="button" aria-pressed=${!log || !drawn.positive} onClick=${() => change({ scale: "linear" })}>linear</button></span></header>
      ${drawn.series.length ? html`<${Chart} series=${drawn.series} data=${drawn.data} log=${log && drawn.positive} xLabel="meta-step" height=${340} label=${`loss by meta-step of ${drawn.series.map(each => each.label).join(", ")}`} />` : html`<p class="soft">None of these has points yet.</p>`}</section>` : null}
    ${jobs.length ? html`<section class="card"><header><h2>Side by side</h2><label class="check"><input type="checkbox" checked=${all} onChange=${() => change({ all: all ? "" : "1" })} />settings that are the same, too</label></header>
      <${Scroll} label="jobs side by side"><table><thead><tr><th scope="col"><span class="hidden">setting</span></th>${jobs.map(job => html`<th scope="col" key=${job.id}><a href=${link(`jobs/${job.id}`)}>${job.family} …${job.id.slice(-6)}</a> <button type="button" class="small quiet" aria-label=${`leave out ${job.family} …${job.id.slice(-6)}`} onClick=${() => change({ job: ids.filter(id => id !== job.id) })}>✕</button></th>`)}</tr></thead><tbody>
        <tr><th scope="row">status</th>${jobs.map(job => html`<td key=${job.id}><${Status} status=${job.status} /></td>`)}</tr>
        <tr><th scope="row">validation score</th>${jobs.map(job => html`<td key=${job.id}>${number(madeBy.get(job.id)?.validation_score)}</td>`)}</tr>
        <tr><th scope="row">final loss against the best tuned baseline</th>${jobs.map(job => { const found = evaluationOf(madeBy.get(job.id))?.best_baseline.final; return html`<td key=${job.id}>${found ? html`<${Verdict} verdict=${found.verdict} /> ${number(found.ratio_of_means)}× ${found.baseline}` : "–"}</td>`; })}</tr>
        <${SettingRows} rows=${few} jobs=${jobs} /></tbody></table><//>
      ${!few.length ? html`<p class="soft">Their settings are the same.</p>` : null}
      <${Code} title="the same from a program" text=${`curl -s '${address("curves")}?${ids.map(id => `job=${id}`).join("&")}'`} /></section>` : null}`;
}
