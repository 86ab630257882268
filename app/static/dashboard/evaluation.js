// What an evaluation measured: the verdict in words, the learned optimizer against every baseline.

import { get, open } from "./api.js";
import { Chart, LINES } from "./chart.js";
import { Failure, html, link, Loading, Progress, Scroll, useEffect, useMemo, usePolled, useState, Verdict } from "./base.js";
import { Anatomy } from "./anatomy.js";
import { BreakEven, Forest, labelOf, Profile, Scatter } from "./evaluation-pictures.js";
import { duration, number, percent } from "./words.js";

const WHERE = { final: "at the end", area: "over the whole curve" };
const interval = pair => (pair?.some(value => value !== null) ? `${number(pair[0])} to ${number(pair[1])}` : "–");

function Sentence({ report, metric, seconds }) {
  const found = (seconds ? report.seconds?.comparisons : report.comparisons)?.best_baseline?.[metric];
  if (!found) return null;
  return html`<p class="sentence">${WHERE[metric][0].toUpperCase() + WHERE[metric].slice(1)}${seconds ? " in equal time" : ""}, it <${Verdict} verdict=${found.verdict} />${" "}against <b>tuned ${labelOf(found.baseline)}</b>, the best baseline: ${number(found.ratio_of_means)} times its loss (95 % interval ${interval(found.ratio_interval)}), better on ${percent(found.share_won)} of the tasks${seconds && found.certain === false ? "; within the noise of the timing" : ""}.</p>`;
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

const DASHES = { tuned: [undefined, [12, 3], [9, 3, 2, 3]], untuned: [[5, 4], [2, 3]], family: [[14, 4, 2, 4], [1, 5]] };

// How each optimizer is drawn: the learned one thick, untuned ones dashed; the same in every picture, and no two alike.
function stylesOf(tiers) {
  const others = LINES.filter(each => each !== "--line-2");
  const styles = new Map([["learned", { label: labelOf("learned"), color: "--line-2", width: 2.6 }]]);
  for (const [tier, dashes] of Object.entries(DASHES)) {
    const from = styles.size - 1; // a tier goes on where the one before it ended
    (tiers[tier] ?? []).forEach((name, place) => styles.set(name, { label: labelOf(name), color: others[(from + place) % others.length], width: 1.5, dash: dashes[Math.floor(place / others.length) % dashes.length] }));
  }
  return styles;
}

// The loss above which a curve leaves the picture, and those that do: [{name, most}]; one that diverges would hide the others.
const MOST_TIMES = 10;
function leaving(curves) {
  const finite = curves.map(({ mean }) => mean.filter(value => value !== null));
  const begins = finite.flatMap(mean => mean.slice(0, 1)), low = Math.min(...finite.map(mean => mean.reduce((one, other) => Math.min(one, other), Infinity)));
  const start = Math.max(...begins), most = low > 0 ? MOST_TIMES * start : start + (MOST_TIMES - 1) * (start - low);
  const left = curves.map(({ name }, place) => ({ name, most: finite[place].reduce((one, other) => Math.max(one, other), -Infinity) })).filter(each => each.most > most);
  return { most: left.length && most > low ? most : undefined, left: most > low ? left : [], gone: curves.filter(({ mean }) => mean.at(-1) === null).map(({ name }) => name) };
}

// Mean losses over steps or seconds, of the runs that the verdict compares, with the middle 80 % of the tasks.
function drawnOf(report, names, styles, metric, secondsOf) {
  const curveOf = name => (metric === "area" && report.optimizers[name].area_curve) || report.optimizers[name].curve;
  const placeOf = name => (secondsOf ? curveOf(name).step.map(step => Number((step * secondsOf(name)).toPrecision(6))) : curveOf(name).step);
  const places = secondsOf ? [...new Set(names.flatMap(placeOf))].sort((a, b) => a - b) : curveOf(names[0]).step;
  const at = (name, column) => {
    if (!secondsOf) return curveOf(name)[column];
    const known = new Map(placeOf(name).map((place, index) => [place, curveOf(name)[column][index]]));
    return places.map(place => known.get(place) ?? null);
  };
  const series = names.map(name => ({ ...styles.get(name), ends: curveOf(name).mean.at(-1) === null })), data = [places, ...names.map(name => at(name, "mean"))], bands = [];
  for (const name of ["learned", report.comparisons?.best_baseline?.[metric]?.baseline].filter(each => names.includes(each))) {
    if (!curveOf(name).q10) continue;
    const { color } = styles.get(name);
    for (const column of ["q90", "q10"]) { series.push({ label: `${labelOf(name)} ${column === "q90" ? "90" : "10"} %`, color, width: 0.6, faint: true, silent: true }); data.push(at(name, column)); }
    bands.push({ series: [series.length - 1, series.length], color });
  }
  return { series, data, bands, ...leaving(names.map(name => ({ name, mean: curveOf(name).mean }))), positive: data.slice(1).every(column => column.every(value => value === null || value > 0)) };
}

function Report({ id, report, training }) {
  const [wanted, setSeconds] = useState(false);
  const [metric, setMetric] = useState("final");
  const [untuned, showUntuned] = useState(true);
  const tiers = { tuned: Object.keys(report.optimizers).filter(name => name !== "learned"), untuned: [], ...report.tiers };
  const names = ["learned", ...tiers.tuned, ...(untuned ? tiers.untuned : []), ...(tiers.family ?? [])].filter(name => report.optimizers[name]);
  const steps = report.seconds?.step, gradient = report.seconds?.gradient?.median ?? 0;
  const timed = Boolean(steps) && names.every(name => steps[name]);
  const bySeconds = wanted && timed;
  const styles = useMemo(() => stylesOf(tiers), [report]);
  const drawn = useMemo(() => drawnOf(report, names, styles, metric, bySeconds ? name => steps[name].median + gradient : null), [report, bySeconds, metric, untuned]);
  const compared = bySeconds ? report.seconds.comparisons : report.comparisons;
  const rows = names.filter(name => compared?.[name]?.[metric]).map(name => ({ name, label: `${labelOf(name)}${tiers.untuned.includes(name) ? " (untuned)" : ""}`, found: { ...compared[name][metric], lost: report.optimizers[name][metric].mean === null || compared[name][metric].ratio_of_means === 0 } }));
  const title = report.comparisons ? "Evaluation" : "Preview", { held_out: held } = report;
  const choice = (label, value, set, options) => html`<span class="segments" role="group" aria-label=${label}>${options.map(([each, word, disabled]) => html`<button type="button" key=${word} aria-pressed=${value === each} disabled=${disabled} onClick=${() => set(each)}>${word}</button>`)}</span>`;
  return html`<section class="card" aria-labelledby="evaluation-title"><header><h2 id="evaluation-title">${title} <small>${number(report.test_tasks ?? report.tuning_tasks)} tasks that ${report.test_tasks ? "training never saw" : "baselines were tuned on"}, ${number(report.horizon)} steps, loss on ${report.on === "held_out" ? "held-out data" : "training data"}</small></h2>
      <div class="actions">${training ? html`<a href=${link(`jobs/${id}`)}>its job</a>` : null}<button type="button" class="small" onClick=${() => open(`jobs/${id}/report.html`, "text/html")}>Full report</button></div></header>
    ${report.comparisons ? html`<div class="sentences"><${Sentence} report=${report} metric="final" /><${Sentence} report=${report} metric="area" /><${Sentence} report=${report} metric="final" seconds=${true} /></div>` : null}
    <div class="actions">${choice("compare by", bySeconds, setSeconds, [[false, "by steps"], [true, "by seconds", !timed]])}${choice("measure", metric, setMetric, [["final", "at the end"], ["area", "whole curve"]])}
      ${tiers.untuned.length ? html`<label class="check"><input type="checkbox" checked=${untuned} onChange=${() => showUntuned(!untuned)} />untuned baselines</label>` : null}</div>
    <${Chart} series=${drawn.series} data=${drawn.data} bands=${drawn.bands} log=${drawn.positive} most=${drawn.most} xLabel=${bySeconds ? "seconds of one task" : "step"} height=${340} label=${`mean loss of ${names.map(labelOf).join(", ")}; the shaded bands are the middle 80 % of the tasks`} />
    ${drawn.left.length || drawn.gone.length ? html`<p class="soft leaves">${drawn.left.length ? `Above the picture, which ends at ${number(drawn.most)}: ${drawn.left.map(({ name, most }) => `${labelOf(name)} (up to ${number(most)})`).join(", ")}. ` : ""}${drawn.gone.length ? `Diverged, with no mean at the end: ${drawn.gone.map(labelOf).join(", ")}.` : ""}</p>` : null}
    ${report.comparisons ? html`<h3>Its loss as a multiple of each baseline's${bySeconds ? ", in equal time" : ""} <small>below 1 it is better; whiskers are 95 % intervals</small></h3><${Forest} rows=${rows} />` : null}
    <${Scroll} label="losses"><table><thead><tr><th scope="col">optimizer</th><th scope="col">tuned to</th><th class="num" scope="col">${metric === "final" ? "final loss" : "mean loss"}</th><th class="num" scope="col">95 %</th><th class="num" scope="col">ratio</th><th class="num" scope="col">tasks won</th><th class="num" scope="col">diverged</th>${held ? html`<th class="num" scope="col">held-out loss</th><th class="num" scope="col">accuracy</th>` : null}<th scope="col">verdict</th></tr></thead><tbody>
      ${names.map(name => { const { final, area, diverged } = report.optimizers[name], shown = metric === "final" ? final : area, tuned = report.tuning?.[name], found = compared?.[name]?.[metric], lost = shown.mean === null || found?.ratio_of_means === 0; return html`<tr key=${name} class=${name === "learned" ? "learned" : ""}><th scope="row">${labelOf(name)}</th><td class="soft">${tuned ? `${number(tuned.learning_rate[metric])}, ${tuned.schedule?.[metric] ?? "constant"}` : tiers.untuned.includes(name) ? "published defaults" : ""}</td><td class="num">${lost ? html`<span class="loses">diverged</span>` : number(shown.mean)}</td><td class="num">${lost ? "–" : interval(shown.interval)}</td><td class="num">${lost ? "–" : number(found?.ratio_of_means)}</td><td class="num">${percent(found?.share_won)}</td><td class="num">${diverged ? html`<b class="loses">${number(diverged)}</b>` : "0"}</td>${held ? html`<td class="num">${number(held[name]?.loss)}</td><td class="num">${percent(held[name]?.accuracy)}</td>` : null}<td>${found ? html`<${Verdict} verdict=${found.verdict} />` : ""}</td></tr>`; })}</tbody></table><//></section>
    ${report.paired || report.time_to_target ? html`<div class="two">${report.paired ? html`<${Scatter} pairs=${report.paired[metric]} metric=${metric} />` : null}
      ${report.time_to_target ? html`<${Profile} found=${report.time_to_target} names=${names} styles=${styles} bySeconds=${bySeconds} />` : null}</div>` : null}
    ${report.break_even ? html`<${BreakEven} even=${report.break_even} />` : null}
    ${report.anatomy && !training ? html`<${Anatomy} found=${report.anatomy} />` : null}`;
}
