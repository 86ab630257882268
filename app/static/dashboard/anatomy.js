// What an optimizer does (appendix B of the paper): its update for each gradient, and its updates over a run.

import { Chart } from "./chart.js";
import { labelOf } from "./evaluation-pictures.js";
import { html, useMemo } from "./base.js";
import { number } from "./words.js";

const ORDER = ["learned", "adam", "rmsprop"], COLOURS = { learned: "--line-2", adam: "--line-1", rmsprop: "--line-3" };
const MOST = 3;

const placeOf = ({ part, index }) => `${part}${index?.length ? `[${index.join(", ")}]` : ""}`;
const seriesOf = names => names.map(name => ({ label: labelOf(name), color: COLOURS[name] ?? "--line-4", width: name === "learned" ? 2.4 : 1.4 }));

function Small({ title, names, x, columns, xLabel }) {
  const data = useMemo(() => [x, ...columns], [x]);
  return html`<figure><figcaption>${title}</figcaption><${Chart} quiet=${true} series=${seriesOf(names)} data=${data} xLabel=${xLabel} height=${180} label=${`${title}: updates of ${names.map(labelOf).join(", ")} by ${xLabel}`} /></figure>`;
}

// found: `anatomy` of a report, or the answer of /optimizers/{id}/anatomy
export function Anatomy({ found }) {
  const names = [...new Set([...ORDER, ...Object.keys(found.updates)])].filter(name => found.updates[name]);
  const steps = useMemo(() => found.updates[names[0]][0].map((_, step) => step + 1), [found]);
  const said = name => { const tuned = found.optimizers[name]; return tuned ? ` at ${number(tuned.learning_rate)}${tuned.schedule === "constant" ? "" : `, ${tuned.schedule}`} (${tuned.tuned ? "tuned" : "torch's default"})` : ""; };
  return html`<section class="card"><h2>Updates <small>of single coordinates on one held-out task</small></h2>
    <p class="chips">${seriesOf(names).map(({ label, color }, place) => html`<span class="key" key=${label}><svg viewBox="0 0 14 3" aria-hidden="true"><rect width="14" height="3" style=${{ fill: `var(${color})` }} /></svg>${label}${said(names[place])}</span>`)}</p>
    <h3>By the gradient that comes next</h3>
    <div class="small-charts">${found.responses.slice(0, 2 * MOST).map((each, place) => html`<${Small} key=${place} title=${`${placeOf(found.coordinates[each.coordinate])}, ${each.after ? `after ${number(each.after)} gradients` : "before any gradient"}`} names=${names.filter(name => each.update[name])} x=${each.gradient} columns=${names.filter(name => each.update[name]).map(name => each.update[name])} xLabel="gradient" />`)}</div>
    <h3>Over the first ${number(found.steps)} steps of a run</h3>
    <div class="small-charts">${found.coordinates.slice(0, 2 * MOST).map((each, place) => html`<${Small} key=${place} title=${placeOf(each)} names=${names} x=${steps} columns=${names.map(name => found.updates[name][place])} xLabel="step" />`)}</div></section>`;
}
