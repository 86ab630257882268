// The service itself: stores, workers, queue, versions, from /readyz and /metrics.

import { ask, get, Refused, text } from "./api.js";
import { Failure, html, Loading, Scroll, useEffect, useState, useTitle } from "./base.js";
import { Doctor } from "./doctor.js";
import { bytes, duration, number } from "./words.js";

// Prometheus' text format: [{name, labels, value}]
export function parsed(metrics) {
  return metrics.split("\n").filter(line => line && !line.startsWith("#")).map(line => {
    const found = /^([a-z_A-Z0-9:]+)(?:\{(.*)\})? (\S+)/.exec(line);
    return found && { name: found[1], labels: Object.fromEntries([...(found[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value])), value: Number(found[3]) };
  }).filter(Boolean);
}

function useSystem() {
  const [found, set] = useState({ loading: true });
  const round = async () => {
    try {
      const [metrics, families, ready] = await Promise.all([
        text("metrics", "text/plain"),
        get("families"),
        get("readyz").catch(error => { if (error instanceof Refused) return { status: "unavailable", checks: error.problem.checks ?? {} }; throw error; }),
      ]);
      set({ metrics: parsed(metrics), ready, problems: families.problems });
    } catch (error) { set(before => ({ ...before, loading: false, error })); }
  };
  useEffect(() => { round(); const timer = setInterval(() => { if (!document.hidden) round(); }, 5000); return () => clearInterval(timer); }, []);
  return { ...found, refresh: round };
}

export function System() {
  useTitle("System");
  const { metrics, ready, problems, error, loading, refresh } = useSystem();
  if (loading) return html`<${Loading} what="the system" />`;
  if (!metrics) return html`<h1>System</h1><${Failure} error=${error} retry=${refresh} />`;
  const one = (name, labels = {}) => metrics.find(each => each.name === name && Object.entries(labels).every(([label, value]) => each.labels[label] === value));
  const value = (name, labels) => one(name, labels)?.value;
  const all = name => metrics.filter(each => each.name === name);
  const queues = ["cpu", "gpu"];
  const workers = all("gradsmith_workers").reduce((sum, each) => sum + each.value, 0);
  const queued = all("gradsmith_jobs").filter(each => each.labels.status === "queued").reduce((sum, each) => sum + each.value, 0);
  const running = all("gradsmith_jobs").filter(each => each.labels.status === "running").reduce((sum, each) => sum + each.value, 0);
  const info = one("gradsmith_info")?.labels ?? {};
  const findings = [
    ...(workers === 0 && queued > 0 ? [`${number(queued)} jobs wait and no worker serves them: start one with \`gradsmith-server worker\`.`] : []),
    ...(value("gradsmith_jobs_overdue") ? [`${number(value("gradsmith_jobs_overdue"))} running jobs have lost their worker; they go on as soon as that is noticed.`] : []),
    ...(value("gradsmith_disk_free_bytes") < 1e9 ? [`Only ${bytes(value("gradsmith_disk_free_bytes"))} are free where the data folder is.`] : []),
    ...problems.map(({ plugin, reason }) => `The plug-in ${plugin} could not be loaded: ${reason}`),
    ...queues.flatMap(queue => { const idle = value("gradsmith_workers", { queue, state: "idle" }) ?? 0, waited = value("gradsmith_queue_age_seconds", { device: queue }) ?? 0; return idle && waited > 60 ? [`${number(idle)} workers of the queue ${queue} are idle while a job has waited for ${duration(waited)}: is the API's dispatcher running?`] : []; }),
    ...Object.entries(ready?.checks ?? {}).filter(([, said]) => said !== "ok").map(([store, said]) => `${store}: ${said}`),
  ];
  const speeds = all("gradsmith_worker_meta_steps_per_second");
  return html`<div class="head"><h1>System</h1><span class=${`status ${ready?.status === "ok" ? "succeeded" : "failed"}`}><span class="dot"></span>${ready?.status}</span></div>
    <${Failure} error=${error} retry=${refresh} />
    <section class="card"><h2>Findings</h2>${findings.length ? html`<ul>${findings.map(each => html`<li key=${each}>${each}</li>`)}</ul>` : html`<p class="soft">The service's own figures show nothing wrong.</p>`}</section>
    <${Doctor} />
    <section class="card"><div class="stats"><div class="stat"><span>workers</span><b>${number(workers)}</b></div><div class="stat"><span>running jobs</span><b>${number(running)}</b></div><div class="stat"><span>queued jobs</span><b>${number(queued)}</b></div><div class="stat"><span>database</span><b>${bytes(value("gradsmith_database_bytes"))}</b></div><div class="stat"><span>Redis</span><b>${bytes(value("gradsmith_redis_bytes"))}</b></div><div class="stat"><span>disk free</span><b>${bytes(value("gradsmith_disk_free_bytes"))}</b></div></div></section>
    <div class="two"><section class="card"><h2>Queues</h2><${Scroll} label="queues"><table><thead><tr><th scope="col">queue</th><th class="num" scope="col">idle workers</th><th class="num" scope="col">busy</th><th class="num" scope="col">queued</th><th class="num" scope="col">running</th><th class="num" scope="col">longest wait</th></tr></thead><tbody>${queues.map(queue => html`<tr key=${queue}><th scope="row">${queue}</th><td class="num">${number(value("gradsmith_workers", { queue, state: "idle" }))}</td><td class="num">${number(value("gradsmith_workers", { queue, state: "busy" }))}</td><td class="num">${number(value("gradsmith_jobs", { device: queue, status: "queued" }))}</td><td class="num">${number(value("gradsmith_jobs", { device: queue, status: "running" }))}</td><td class="num">${duration(value("gradsmith_queue_age_seconds", { device: queue }))}</td></tr>`)}</tbody></table><//>
      ${speeds.length ? html`<${Scroll} label="workers that train"><table><thead><tr><th scope="col">worker that trains</th><th class="num" scope="col">meta-steps a second</th></tr></thead><tbody>${speeds.map(each => html`<tr key=${each.labels.worker}><th scope="row" class="mono">${each.labels.worker}</th><td class="num">${number(each.value)}</td></tr>`)}</tbody></table><//>` : null}</section>
    <section class="card"><h2>Versions and stores</h2><dl class="facts"><dt>Gradsmith</dt><dd>${info.version ?? "–"}</dd><dt>schema</dt><dd>${info.schema ?? "–"}</dd>${Object.entries(ready?.checks ?? {}).map(([store, said]) => [html`<dt>${store}</dt>`, html`<dd class=${said === "ok" ? "up" : "down"}>${said}</dd>`])}<dt>jobs that ended</dt><dd>${number(all("gradsmith_jobs").filter(each => ["succeeded", "failed", "cancelled"].includes(each.labels.status)).reduce((sum, each) => sum + each.value, 0))}</dd><dt>workers lost</dt><dd>${number(value("gradsmith_lost_workers"))}</dd></dl></section></div>`;
}
