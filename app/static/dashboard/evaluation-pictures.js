// Pictures of an evaluation beside its curves: ratios, task by task, time to target, what training costs.

import { Chart, ticks, widthOf } from "./chart.js";
import { html, link, useMemo, useNarrow } from "./base.js";
import { duration, number, percent, tickText } from "./words.js";

const LABELS = { learned: "Learned", sgd: "SGD", nag: "NAG", rmsprop: "RMSprop", adam: "Adam", adamw: "AdamW", adam_default: "Adam at 0.001", schedule_free: "Schedule-Free AdamW", prodigy: "Prodigy", dog: "DoG", muon: "Muon", soap: "SOAP", lbfgs: "L-BFGS" };
export const labelOf = name => LABELS[name] ?? name;

const ROOM = 10; // between two labels of an axis

// Ticks between two numbers on a logarithmic axis, as many as have room: 1, 2 and 5, else powers of ten, else few of them.
function spaced(low, high, x, text = tickText) {
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) powers.push(power);
  const choices = [[1, 2, 5], [1]].map(leads => powers.flatMap(power => leads.map(lead => Number(`${lead}e${power}`))));
  for (let apart = 2; apart <= powers.length; apart += 1) choices.push(powers.filter(power => power % apart === 0).map(power => Number(`1e${power}`)));
  for (let wanted = 5; wanted > 1; wanted -= 1) if (high / low < 12) choices.unshift(ticks(low, high, false, 7 - wanted));
  const shown = choices.map(found => found.filter(value => value >= low && value <= high)).filter(found => found.length > 1 || (found.length && high / low > 12));
  const fits = found => found.every((value, place) => !place || x(value) - x(found[place - 1]) >= (widthOf(text(value)) + widthOf(text(found[place - 1]))) / 2 + ROOM);
  return shown.find(fits) ?? [];
}

// Ratios of the learned optimizer's loss to each baseline's, with their intervals, on a logarithmic axis.
export function Forest({ rows }) {
  const small = useNarrow();
  const known = rows.filter(({ found }) => found?.ratio_of_means > 0 && found.ratio_interval?.every(value => value > 0));
  if (!known.length) return html`<p class="soft">The losses may be negative here, so there are no ratios to draw.</p>`;
  const low = Math.min(0.8, ...known.map(({ found }) => found.ratio_interval[0])) / 1.1, high = Math.max(1.25, ...known.map(({ found }) => found.ratio_interval[1])) * 1.1;
  // on a phone a label stands above its whisker
  const size = 12.5, widest = Math.ceil(Math.max(...known.map(({ label }) => widthOf(label, size)))), figures = Math.ceil(Math.max(...known.map(({ found }) => widthOf(number(found.ratio_of_means), size))));
  const width = small ? 350 : 700, left = small ? 12 : widest + 20, right = figures + 20, line = small ? 42 : 26, down = small ? 30 : 18, x = value => left + (Math.log(value / low) / Math.log(high / low)) * (width - left - right);
  const times = value => `${tickText(value)}×`, marks = [...new Set([1, ...spaced(low, high, x, times)])].filter((value, _, all) => value === 1 || !all.includes(1) || Math.abs(x(value) - x(1)) > widthOf(times(value)) / 2 + widthOf("1×") / 2 + ROOM / 2);
  const height = known.length * line + 34, missing = rows.filter(row => row.found?.lost).map(({ label }) => label);
  return html`<svg class="forest" viewBox="0 0 ${width} ${height}" role="img" aria-label=${`ratio of losses: ${known.map(({ label, found }) => `${label} ${number(found.ratio_of_means)}`).join(", ")}`}>
    ${marks.map(value => html`<line key=${value} class=${value === 1 ? "one" : ""} x1=${x(value)} x2=${x(value)} y1="4" y2=${height - 26} /><text class="faint" x=${x(value)} y=${height - 10} text-anchor="middle">${times(value)}</text>`)}
    ${known.map(({ label, found }, row) => html`<g key=${label} class=${found.verdict}><line x1=${x(found.ratio_interval[0])} x2=${x(found.ratio_interval[1])} y1=${row * line + down} y2=${row * line + down} /><circle cx=${x(found.ratio_of_means)} cy=${row * line + down} r="4.5" /></g>
      <text x=${small ? 0 : left - 12} y=${row * line + (small ? 16 : 22)} text-anchor=${small ? "start" : "end"}>${label}</text><text class="faint" x=${width - 2} y=${row * line + down + 4} text-anchor="end">${number(found.ratio_of_means)}</text>`)}</svg>
    ${missing.length ? html`<p class="soft">Not drawn, for their mean loss diverged: ${missing.join(", ")}.</p>` : null}`;
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
  const size = 380, left = 30 + widthOf("5e−4") + 12, bottom = 46, span = Math.log(drawn.high / drawn.low);
  const at = value => (value === null ? 1 : Math.log(value / drawn.low) / span), x = value => left + at(value) * (size - left - 12), y = value => size - bottom - at(value) * (size - bottom - 12);
  const marks = spaced(drawn.low, drawn.high, x);
  return html`<section class="card">${head}<svg class="scatter" viewBox="0 0 ${size} ${size}" role="img" aria-label=${`loss of each task, learned against ${labelOf(baseline)}. ${sentence}`}>
      ${marks.map(mark => html`<line key=${mark} x1=${x(mark)} x2=${x(mark)} y1="12" y2=${size - bottom} /><line x1=${left} x2=${size - 12} y1=${y(mark)} y2=${y(mark)} /><text class="faint" x=${x(mark)} y=${size - bottom + 16} text-anchor="middle">${tickText(mark)}</text><text class="faint" x=${left - 7} y=${y(mark) + 4} text-anchor="end">${tickText(mark)}</text>`)}
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
    ${[[even.trainings > 1 ? `training and selection, ${number(even.trainings)} trainings of its sweep` : "training and selection", short(even.training_seconds === null ? null : even.training_seconds + (even.selection_seconds ?? 0))], [`a run to that loss, learned`, short(even.learned_seconds)], [`a run, tuned ${labelOf(even.baseline)}`, short(even.baseline_seconds)], ["saved by each run", short(even.saved_seconds)], ["tuning the baseline on one task", short(even.tuning_seconds)]].map(([word, value]) => html`<div class="stat" key=${word}><span>${word}</span><b>${value}</b></div>`)}</div></section>`;
}
