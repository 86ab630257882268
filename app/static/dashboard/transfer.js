// What optimizers do on families that they were not trained on: trained on x tested on.

import { html, link, Scroll, useMemo, usePolled, Verdict } from "./base.js";
import { labelOf } from "./evaluation-pictures.js";
import { number, shown } from "./words.js";

const named = (family, overrides) => [family, ...Object.entries(overrides ?? {}).map(([name, value]) => `${name} ${shown(value)}`)].join(", ");

// Of each pair the evaluation with the lowest ratio, of learned optimizers alone.
function cellsOf(optimizers) {
  const found = new Map();
  for (const optimizer of optimizers.filter(each => !each.tuned)) for (const evaluation of optimizer.evaluations) {
    const trained = named(optimizer.family, optimizer.overrides), tested = named(evaluation.family, evaluation.overrides), place = JSON.stringify([trained, tested]);
    const { final } = evaluation.best_baseline, before = found.get(place);
    if (!before || (final.ratio_of_means ?? Infinity) < (before.final.ratio_of_means ?? Infinity)) found.set(place, { trained, tested, final, optimizer, job: evaluation.job, families: [optimizer.family, evaluation.family] });
  }
  return [...found.values()];
}

export function Transfer({ family }) {
  const { data } = usePolled("optimizers?limit=100", 30);
  const { trained, tested, at } = useMemo(() => {
    const cells = cellsOf(data?.data ?? []).filter(cell => cell.families.includes(family));
    const first = (one, other) => Number(other === family) - Number(one === family) || one.localeCompare(other);
    return { trained: [...new Set(cells.map(cell => cell.trained))].sort(first), tested: [...new Set(cells.map(cell => cell.tested))].sort(first), at: new Map(cells.map(cell => [JSON.stringify([cell.trained, cell.tested]), cell])) };
  }, [data, family]);
  if (!data) return null;
  const elsewhere = link("jobs/new", { kind: "evaluate", optimizer: `${family}@best` });
  return html`<section class="card"><header><h2>Transfer <small>final loss against the best tuned baseline of the family that it is tested on</small></h2><a class="button small" href=${elsewhere}>Measure elsewhere</a></header>
    ${trained.length ? html`<${Scroll} label="transfer between families"><table class="matrix"><thead><tr><th scope="col">trained on ↓ tested on →</th>${tested.map(name => html`<th scope="col" key=${name}>${name}</th>`)}</tr></thead><tbody>${trained.map(mine => html`<tr key=${mine}><th scope="row">${mine}</th>${tested.map(theirs => {
      const cell = at.get(JSON.stringify([mine, theirs]));
      return cell ? html`<td key=${theirs} class=${`cell ${cell.final.verdict}-ground`}><a href=${link(`jobs/${cell.job}`)}><b>${number(cell.final.ratio_of_means)}×</b> ${labelOf(cell.final.baseline)}</a><small><${Verdict} verdict=${cell.final.verdict} />, ${cell.optimizer.reference}</small></td>` : html`<td key=${theirs} class="soft">–</td>`;
    })}</tr>`)}</tbody></table><//>` : html`<p class="soft">Nothing is measured yet. A training measures its optimizer on its own family; an evaluation of another family fills a cell of this table.</p>`}</section>`;
}
