// What an evaluation measured: the verdict in words, the learned optimizer against every baseline.

import { get, open } from "./api.js";
import { Chart, LINES } from "./chart.js";
import { Failure, html, link, Loading, Progress, useEffect, useMemo, useNarrow, usePolled, useState, Verdict } from "./base.js";
import { duration, number, percent, verdictWords } from "./words.js";

const LABELS = { learned: "Learned", sgd: "SGD", nag: "NAG", rmsprop: "RMSprop", adam: "Adam", adamw: "AdamW", adam_default: "Adam at 0.001", schedule_free: "Schedule-Free AdamW", prodigy: "Prodigy", dog: "DoG", muon: "Muon", soap: "SOAP", lbfgs: "L-BFGS" };
export const labelOf = name => LABELS[name] ?? name;
const WHERE = { final: "at the end", area: "over the whole curve" };
const interval = pair => (pair ? `${number(pair[0])} to ${number(pair[1])}` : "–");

function Sentence({ report, metric, seconds }) {
  const found = (seconds ? report.seconds?.comparisons : report.comparisons)?.best_baseline?.[metric];
  if (!found) return null;
  return html`<p class="sentence">${WHERE[metric][0].toUpperCase() + WHERE[metric].slice(1)}${seconds ? " in equal time" : ""}, it <${Verdict} verdict=${found.verdict} />${" "}against <b>tuned ${labelOf(found.baseline)}</b>, the best baseline: ${number(found.ratio_of_means)} times its loss (95 % interval ${interval(found.ratio_interval)}), better on ${percent(found.share_won)} of the tasks${seconds && found.certain === false ? "; within the noise of the timing" : ""}.</p>`;
}

// Ratios of the learned optimizer's loss to each baseline's, with their intervals, on a logarithmic axis.
export function Forest({ rows }) {
  const small = useNarrow();
  const known = rows.filter(({ found }) => found?.ratio_of_means > 0 && found.ratio_interval?.every(value => value > 0));
  if (!known.length) return html`<p class="soft">The losses may be negative here, so there are no ratios to draw.</p>`;
  const low = Math.min(0.8, ...known.map(({ found }) => found.ratio_interval[0])) / 1.1, high = Math.max(1.25, ...known.map(({ found }) => found.ratio_interval[1])) * 1.1;
  const left = small ? 108 : 150, width = small ? 350 : 620, right = small ? 44 : 90, line = 26, x = value => left + (Math.log(value / low) / Math.log(high / low)) * (width - left - right);
  const marks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].filter(value => value > low && value < high);
  const height = known.length * line + 34;
  return html`<svg class="forest" viewBox="0 0 ${width} ${height}" role="img" aria-label=${`ratio of losses: ${known.map(({ label, found }) => `${label} ${number(found.ratio_of_means)}`).join(", ")}`}>
    ${marks.map(value => html`<line key=${value} class=${value === 1 ? "one" : ""} x1=${x(value)} x2=${x(value)} y1="4" y2=${height - 26} /><text class="faint" x=${x(value)} y=${height - 10} text-anchor="middle">${number(value)}×</text>`)}
    ${known.map(({ label, found }, row) => html`<g key=${label} class=${found.verdict}><line x1=${x(found.ratio_interval[0])} x2=${x(found.ratio_interval[1])} y1=${row * line + 18} y2=${row * line + 18} /><circle cx=${x(found.ratio_of_means)} cy=${row * line + 18} r="4.5" /></g>
      <text x=${left - 12} y=${row * line + 22} text-anchor="end">${label}</text><text class="faint" x=${width - right + 10} y=${row * line + 22}>${number(found.ratio_of_means)}</text>`)}</svg>`;
}

export function Evaluation({ id, training }) {
  const { data: job, error: missing } = usePolled(`jobs/${id}`, found => (found && ["queued", "running", "cancelling"].includes(found.status) ? 2 : 0));
  const [report, set] = useState(null);
  const [error, fail] = useState(null);
  useEffect(() => { if (job?.status === "succeeded") get(`jobs/${id}/report.json`).then(set, fail); }, [id, job?.status]);
  if (missing || error) return html`<section class="card"><h2>Evaluation</h2><${Failure} error=${missing ?? error} /></section>`;
  if (job && job.status !== "succeeded") {
    const { step, total, eta_seconds } = job.progress;
    return html`<section class="card"><header><h2>Evaluation</h2><a href=${link(`jobs/${id}`)}>its job</a></header><p class="soft">${job.status}${job.status_reason ? `: ${job.status_reason}` : ""}${eta_seconds === null ? "" : `, ${duration(eta_seconds)} left`}</p>${["queued", "running"].includes(job.status) ? html`<${Progress} value=${step} max=${total} label="progress of the evaluation" />` : null}</section>`;
  }
  return report ? html`<${Report} id=${id} report=${report} training=${training} />` : html`<section class="card"><h2>Evaluation</h2><${Loading} what="the report" /></section>`;
}

function Report({ id, report, training }) {
  const [bySeconds, setSeconds] = useState(false);
  const [metric, setMetric] = useState("final");
  const [untuned, showUntuned] = useState(true);
  const tiers = report.tiers ?? { tuned: Object.keys(report.optimizers).filter(name => name !== "learned"), untuned: [] };
  const names = ["learned", ...tiers.tuned, ...(untuned ? tiers.untuned : [])].filter(name => report.optimizers[name]);
  const steps = report.seconds?.step;
  const timed = Boolean(steps) && names.every(name => steps[name]);
  const gradient = report.seconds?.gradient?.median ?? 0;
  const drawn = useMemo(() => {
    const curves = names.map(name => report.optimizers[name].curve);
    const banded = ["learned", report.comparisons?.best_baseline?.[metric]?.baseline].filter(name => names.includes(name));
    const scale = name => (bySeconds && timed ? steps[name].median + gradient : 1);
    const places = bySeconds && timed ? [...new Set(names.flatMap(name => report.optimizers[name].curve.step.map(step => Number((step * scale(name)).toPrecision(6)))))].sort((a, b) => a - b) : curves[0].step;
    const at = (name, column) => {
      const values = report.optimizers[name].curve[column];
      if (!(bySeconds && timed)) return values;
      const known = new Map(report.optimizers[name].curve.step.map((step, index) => [Number((step * scale(name)).toPrecision(6)), values[index]]));
      return places.map(place => known.get(place) ?? null);
    };
    const series = names.map((name, place) => ({ label: labelOf(name), color: name === "learned" ? "--line-2" : LINES.filter(each => each !== "--line-2")[(place + 6) % 7], width: name === "learned" ? 2.6 : 1.5, dash: tiers.untuned.includes(name) ? [5, 4] : undefined }));
    const data = [places, ...names.map(name => at(name, "mean"))];
    const bands = [];
    for (const name of banded) {
      if (!report.optimizers[name].curve.q10) continue;
      const { color } = series[names.indexOf(name)];
      for (const column of ["q90", "q10"]) { series.push({ label: `${labelOf(name)} ${column === "q90" ? "90" : "10"} %`, color, width: 0.6, faint: true, silent: true }); data.push(at(name, column)); }
      bands.push({ series: [series.length - 1, series.length], color });
    }
    return { series, data, bands, positive: data.slice(1).every(column => column.every(value => value === null || value > 0)) };
  }, [report, bySeconds, metric, untuned]);
  const rows = [...tiers.tuned, ...(untuned ? tiers.untuned : [])].filter(name => report.comparisons?.[name]).map(name => ({ name, label: `${labelOf(name)}${tiers.untuned.includes(name) ? " (untuned)" : ""}`, found: report.comparisons[name][metric] }));
  const title = report.comparisons ? "Evaluation" : "Preview";
  const { break_even: even } = report;
  return html`<section class="card" aria-labelledby="evaluation-title"><header><h2 id="evaluation-title">${title} <small>${number(report.test_tasks ?? report.tuning_tasks)} tasks that ${report.test_tasks ? "training never saw" : "baselines were tuned on"}, ${number(report.horizon)} steps, loss on ${report.on === "held_out" ? "held-out data" : "training data"}</small></h2>
      <div class="actions">${training ? html`<a href=${link(`jobs/${id}`)}>its job</a>` : null}<button type="button" class="small" onClick=${() => open(`jobs/${id}/report.html`, "text/html")}>Full report</button></div></header>
    ${report.comparisons ? html`<div class="sentences"><${Sentence} report=${report} metric="final" /><${Sentence} report=${report} metric="area" /><${Sentence} report=${report} metric="final" seconds=${true} /></div>` : null}
    ${even ? html`<p class="soft">${even.never ? `Training never pays for itself: ${even.never === "does_not_reach" ? "it does not reach the baseline's final loss on the median task" : "a run takes as long as the baseline's"}.` : even.runs === null ? "" : `Training pays for itself after ${number(even.runs)} runs: each saves ${duration(even.saved_seconds) === "under 1 s" ? `${number(1000 * even.saved_seconds)} ms` : duration(even.saved_seconds)}.`}</p>` : null}
    <div class="actions"><span class="segments" role="group" aria-label="compare by"><button type="button" aria-pressed=${!bySeconds} onClick=${() => setSeconds(false)}>by steps</button><button type="button" aria-pressed=${bySeconds} disabled=${!timed} onClick=${() => setSeconds(true)}>by seconds</button></span>
      ${tiers.untuned.length ? html`<label class="check"><input type="checkbox" checked=${untuned} onChange=${() => showUntuned(!untuned)} />untuned baselines</label>` : null}</div>
    <${Chart} series=${drawn.series} data=${drawn.data} bands=${drawn.bands} log=${drawn.positive} xLabel=${bySeconds ? "seconds of one task" : "step"} height=${340} label=${`mean loss of ${names.map(labelOf).join(", ")}; the shaded bands are the middle 80 % of the tasks`} />
    ${report.comparisons ? html`<div class="card-head"><h3>Its loss as a multiple of each baseline's <small>below 1 it is better; whiskers are 95 % intervals</small></h3><span class="segments" role="group" aria-label="measure"><button type="button" aria-pressed=${metric === "final"} onClick=${() => setMetric("final")}>at the end</button><button type="button" aria-pressed=${metric === "area"} onClick=${() => setMetric("area")}>whole curve</button></span></div>
    <${Forest} rows=${rows} />` : null}
    <div class="scroll" tabindex="0" role="group" aria-label="losses"><table><thead><tr><th scope="col">optimizer</th><th scope="col">tuned to</th><th class="num" scope="col">final loss</th><th class="num" scope="col">95 %</th><th class="num" scope="col">ratio</th><th class="num" scope="col">tasks won</th><th class="num" scope="col">diverged</th><th scope="col">verdict</th></tr></thead><tbody>
      ${names.map(name => { const { final, area, diverged } = report.optimizers[name], shown = metric === "final" ? final : area, tuned = report.tuning?.[name], found = report.comparisons?.[name]?.[metric]; return html`<tr key=${name} class=${name === "learned" ? "learned" : ""}><th scope="row">${labelOf(name)}</th><td class="soft">${tuned ? `${number(tuned.learning_rate[metric])}, ${tuned.schedule?.[metric] ?? "constant"}` : tiers.untuned.includes(name) ? "published defaults" : ""}</td><td class="num">${number(shown.mean)}</td><td class="num">${interval(shown.interval)}</td><td class="num">${number(found?.ratio_of_means)}</td><td class="num">${percent(found?.share_won)}</td><td class="num">${number(diverged ?? 0)}</td><td>${found ? html`<${Verdict} verdict=${found.verdict} />` : ""}</td></tr>`; })}</tbody></table></div></section>`;
}
