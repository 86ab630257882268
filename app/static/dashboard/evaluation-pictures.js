// Pictures of an evaluation beside its curves: ratios, task by task, time to target, what training costs.

import { Chart } from "./chart.js";
import { html, link, useMemo, useNarrow } from "./base.js";
import { duration, number, percent } from "./words.js";

const LABELS = { learned: "Learned", sgd: "SGD", nag: "NAG", rmsprop: "RMSprop", adam: "Adam", adamw: "AdamW", adam_default: "Adam at 0.001", schedule_free: "Schedule-Free AdamW", prodigy: "Prodigy", dog: "DoG", muon: "Muon", soap: "SOAP", lbfgs: "L-BFGS" };
export const labelOf = name => LABELS[name] ?? name;

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

// Powers of ten, with 2 and 5 between them where there is room.
function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) for (const lead of high / low > 500 ? [1] : [1, 2, 5]) { const at = Number((lead * 10 ** power).toPrecision(6)); if (at >= low && at <= high) found.push(at); }
  const skip = Math.ceil(found.length / 6);
  return found.filter((_, place) => place % skip === 0);
}

// Each task by both losses: below the diagonal the learned optimizer is better. A diverged run is a cross at the edge.
export function Scatter({ pairs, metric }) {
  const { learned, best_baseline: tuned, baseline } = pairs;
  const drawn = useMemo(() => {
    const both = learned.map((mine, task) => [tuned[task], mine]);
    const finite = both.flat().filter(value => value !== null);
    if (!finite.length || finite.some(value => value <= 0)) return null;
    return { both, low: Math.min(...finite) / 1.3, high: Math.max(...finite) * 1.3 };
  }, [pairs]);
  const better = learned.filter((mine, task) => mine !== null && (tuned[task] === null || mine < tuned[task])).length;
  const lost = [learned, tuned].map(losses => losses.filter(loss => loss === null).length);
  const sentence = `Better on ${number(better)} of ${number(learned.length)} tasks.${lost.some(Boolean) ? ` Diverged: learned ${number(lost[0])}, ${labelOf(baseline)} ${number(lost[1])}.` : ""}`;
  const head = html`<header><h2>Task by task <small>${metric === "final" ? "loss at the end" : "mean loss of the curve"}</small></h2></header>`;
  if (!drawn) return html`<section class="card">${head}<p>${sentence}</p><p class="soft">Losses that may be negative have no logarithmic picture.</p></section>`;
  const size = 380, left = 58, bottom = 46, span = Math.log(drawn.high / drawn.low);
  const at = value => (value === null ? 1 : Math.log(value / drawn.low) / span), x = value => left + at(value) * (size - left - 12), y = value => size - bottom - at(value) * (size - bottom - 12);
  const marks = decades(drawn.low, drawn.high);
  return html`<section class="card">${head}<svg class="scatter" viewBox="0 0 ${size} ${size}" role="img" aria-label=${`loss of each task, learned against ${labelOf(baseline)}. ${sentence}`}>
      ${marks.map(mark => html`<line key=${mark} x1=${x(mark)} x2=${x(mark)} y1="12" y2=${size - bottom} /><line x1=${left} x2=${size - 12} y1=${y(mark)} y2=${y(mark)} /><text class="faint" x=${x(mark)} y=${size - bottom + 16} text-anchor="middle">${number(mark)}</text><text class="faint" x=${left - 7} y=${y(mark) + 4} text-anchor="end">${number(mark)}</text>`)}
      <line class="one" x1=${x(drawn.low)} y1=${y(drawn.low)} x2=${x(drawn.high)} y2=${y(drawn.high)} />
      ${drawn.both.map(([theirs, mine], task) => (theirs === null || mine === null ? html`<path key=${task} class="loses" d=${`M${x(theirs) - 4} ${y(mine) - 4}l8 8m0-8l-8 8`} />` : html`<circle key=${task} class=${mine < theirs ? "wins" : "loses"} cx=${x(theirs).toFixed(1)} cy=${y(mine).toFixed(1)} r="3" />`))}
      <text x=${(left + size) / 2} y=${size - 6} text-anchor="middle">tuned ${labelOf(baseline)}</text><text transform=${`translate(12 ${(size - bottom) / 2}) rotate(-90)`} text-anchor="middle">learned</text></svg>
    <p class="soft">${sentence} Below the diagonal the learned optimizer is better.</p></section>`;
}

// The share of problems that each solves within a factor of the quickest's time, up to a factor of 4.
export function Profile({ found, names, styles, bySeconds }) {
  const profiles = found[bySeconds ? "seconds" : "steps"], shown = names.filter(name => profiles[name]);
  const data = useMemo(() => [found.ratio, ...shown.map(name => profiles[name].profile)], [found, bySeconds, names.join()]);
  const last = found.targets.at(-1);
  return html`<section class="card"><header><h2>Time to target <small>share of problems solved within a factor of the quickest's ${bySeconds ? "seconds" : "steps"}</small></h2></header>
    <${Chart} series=${shown.map(name => styles.get(name))} data=${data} xLabel="times as long as the quickest" height=${290} low=${0} label=${`performance profile up to ${found.up_to} times the quickest: ${shown.map(name => `${labelOf(name)} scores ${number(profiles[name].score)}`).join(", ")}`} />
    <p class="soft">${number(found.problems)} problems: each task with each loss that tuned ${labelOf(found.baseline)} reached on other tasks.${last ? ` The last target, a loss of ${number(last.loss)}, is reached on ${percent(last.reached.learned)} of the tasks.` : ""} Mean height: ${shown.slice(0, 3).map(name => `${labelOf(name)} ${number(profiles[name].score)}`).join(", ")}.</p></section>`;
}

const NEVER = { does_not_reach: "it does not reach the baseline's final loss on the median task" };
const short = seconds => (seconds === null || seconds === undefined ? "–" : seconds < 1 ? `${number(1000 * seconds)} ms` : duration(seconds));

// After how many runs the seconds that a run saves are those that training took.
export function BreakEven({ even }) {
  const answer = even.never ? `Training never pays for itself: ${NEVER[even.never] ?? "a run takes as long as the baseline's"}.`
    : even.runs === null ? "How long training took is not known." : `Training pays for itself after ${number(even.runs)} runs.`;
  return html`<section class="card"><h2>Break-even</h2><p class="sentence">${answer}</p><div class="stats">
    ${[["training and selection", short(even.training_seconds === null ? null : even.training_seconds + (even.selection_seconds ?? 0))], [`a run to that loss, learned`, short(even.learned_seconds)], [`a run, tuned ${labelOf(even.baseline)}`, short(even.baseline_seconds)], ["saved by each run", short(even.saved_seconds)], ["tuning the baseline on one task", short(even.tuning_seconds)]].map(([word, value]) => html`<div class="stat" key=${word}><span>${word}</span><b>${value}</b></div>`)}</div></section>`;
}
