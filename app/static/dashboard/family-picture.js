// A family at a glance: the mean losses of the newest preview or evaluation on it, drawn when somebody scrolls there.

import { get } from "./api.js";
import { LINES } from "./chart.js";
import { html, link, useEffect, useMemo, usePolled, useRef, useState } from "./base.js";
import { labelOf } from "./evaluation-pictures.js";

const WIDTH = 300, HEIGHT = 96, MOST_LINES = 4;

// The newest measurement of each family, a preview before an evaluation: two short lists for the whole catalogue.
export function useMeasured() {
  const { data: previews } = usePolled("jobs?kind=preview&status=succeeded&limit=100&brief=true");
  const { data: evaluations } = usePolled("jobs?kind=evaluate&status=succeeded&limit=100&brief=true");
  return useMemo(() => {
    if (!previews || !evaluations) return null;
    const found = new Map();
    for (const job of [...previews.data, ...evaluations.data]) if (!found.has(job.family)) found.set(job.family, job);
    return found;
  }, [previews, evaluations]);
}

// The learned optimizer first, then the baselines that end lowest.
function linesOf(report) {
  const lines = Object.entries(report.optimizers).map(([name, { curve }]) => ({ name, step: curve.step, mean: curve.mean })).filter(({ mean }) => mean.every(value => value !== null && Number.isFinite(value)));
  return lines.sort((one, other) => (other.name === "learned") - (one.name === "learned") || one.mean.at(-1) - other.mean.at(-1)).slice(0, MOST_LINES);
}

function Lines({ report, family }) {
  const lines = linesOf(report), all = lines.flatMap(({ mean }) => mean);
  if (!lines.length) return html`<p class="soft">Every run diverged.</p>`;
  const log = all.every(value => value > 0), scale = log ? Math.log : value => value;
  const low = scale(Math.min(...all)), high = scale(Math.max(...all)), last = Math.max(...lines.map(({ step }) => step.at(-1))) || 1;
  const points = ({ step, mean }) => mean.map((value, at) => `${(3 + step[at] / last * (WIDTH - 6)).toFixed(1)},${(5 + (high - scale(value)) / (high - low || 1) * (HEIGHT - 10)).toFixed(1)}`).join(" ");
  const colour = (name, at) => (name === "learned" ? "--line-2" : LINES.filter(each => each !== "--line-2")[at]);
  return html`<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${`mean losses on ${family}, lowest at the end: ${[...lines].sort((one, other) => one.mean.at(-1) - other.mean.at(-1)).map(({ name }) => labelOf(name)).join(", ")}`}>${[...lines].reverse().map(line => html`<polyline key=${line.name} points=${points(line)} fill="none" stroke=${`var(${colour(line.name, lines.indexOf(line))})`} stroke-width=${line.name === "learned" ? 2.4 : 1.5} vector-effect="non-scaling-stroke" />`)}</svg>
    <small>${lines.map(({ name }, at) => html`<span class="key" key=${name}><svg viewBox="0 0 14 3" aria-hidden="true"><rect width="14" height="3" fill=${`var(${colour(name, at)})`} /></svg>${labelOf(name)}</span>`)}</small>`;
}

// job: what measured it last; null while that is not known
export function FamilyPicture({ family, job, known }) {
  const box = useRef(null);
  const [seen, see] = useState(false), [report, show] = useState(null), [gone, lose] = useState(false);
  useEffect(() => {
    const watch = new IntersectionObserver(entries => { if (entries.some(entry => entry.isIntersecting)) { see(true); watch.disconnect(); } }, { rootMargin: "200px" });
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  useEffect(() => { if (seen && job) get(`jobs/${job.id}/report.json`).then(show, () => lose(true)); }, [seen, job?.id]);
  return html`<div class="glance" ref=${box}>${report ? html`<${Lines} report=${report} family=${family} />`
    : !known || (job && !gone) ? html`<p class="soft">…</p>`
    : html`<p class="soft"><span>Nothing measured yet. <a href=${link("jobs/new", { family, kind: "preview" })} aria-label=${`Preview ${family}`}>Preview it</a>: some seconds.</span></p>`}</div>`;
}
