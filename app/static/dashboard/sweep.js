// The trials of a sweep: what each changed, and how it stands.

import { blobUrl } from "./api.js";
import { Failure, html, link, Loading, Progress, Scroll, Status, useEffect, usePolled, useState, Verdict } from "./base.js";
import { ACTIVE } from "./jobs.js";
import { evaluationOf, number, shownAs } from "./words.js";

const MOST_COMPARED = 12;

// Scores by trial and by field, as the server draws them; anew whenever a trial has ended.
export function SearchPicture({ job }) {
  const [picture, show] = useState(null), [error, fail] = useState(null);
  useEffect(() => {
    let address, gone = false;
    blobUrl(`jobs/${job.id}/search.png`, "image/png").then(found => { address = found; if (gone) URL.revokeObjectURL(found); else show(found); }, fail);
    return () => { gone = true; if (address) URL.revokeObjectURL(address); };
  }, [job.id, job.progress.step, job.status]);
  return html`<section class="card"><h2>The search</h2><${Failure} error=${error} />${picture ? html`<div class="paper"><img src=${picture} alt=${`validation scores of ${job.progress.step} trainings`} /></div>` : null}</section>`;
}

export function Trials({ job }) {
  const { data, error, loading, refresh } = usePolled(`jobs?sweep=${job.id}&limit=100&brief=true`, ACTIVE.has(job.status) ? 2 : 0);
  const { data: optimizers } = usePolled("optimizers?limit=100", ACTIVE.has(job.status) ? 10 : 0);
  if (loading) return html`<${Loading} what="the trials" />`;
  const trials = (data?.data ?? []).filter(each => each.trial).sort((one, other) => one.trial.rung - other.trial.rung || one.trial.number - other.trial.number);
  const names = [...new Set(trials.flatMap(each => Object.keys(each.trial.values)))];
  const madeBy = new Map((optimizers?.data ?? []).map(optimizer => [optimizer.job, optimizer]));
  const scored = trials.filter(each => madeBy.get(each.id)?.validation_score !== undefined).sort((one, other) => madeBy.get(one.id).validation_score - madeBy.get(other.id).validation_score);
  const best = scored[0]?.id;
  return html`<section class="card"><header><h2>Trials <small>${number(trials.length)} so far</small></h2>${trials.length > 1 ? html`<a class="button small" href=${link("compare", (scored.length > 1 ? scored : trials).slice(0, MOST_COMPARED).map(each => ["job", each.id]))}>Compare ${scored.length > 1 ? "the best" : "them"}</a>` : null}</header><${Failure} error=${error} retry=${refresh} />
    <${Scroll} label="trials of the sweep"><table><thead><tr><th scope="col">trial</th>${names.map(name => html`<th scope="col" key=${name}>${name.replace("recipe.", "")}</th>`)}<th scope="col">status</th><th class="num" scope="col">validation score</th><th scope="col">verdict</th></tr></thead><tbody>
      ${trials.map(each => { const made = madeBy.get(each.id), final = evaluationOf(made)?.best_baseline.final; return html`<tr key=${each.id} class=${each.id === best ? "learned" : ""}><th scope="row"><a href=${link(`jobs/${each.id}`)}>${each.trial.number}${each.trial.rung ? `, rung ${each.trial.rung}` : ""}</a></th>${names.map(name => html`<td key=${name}>${name in each.trial.values ? shownAs(name, each.trial.values[name]) : "–"}</td>`)}<td><${Status} status=${each.status} />${each.status === "running" ? html`<${Progress} value=${each.progress.step} max=${each.progress.total} label=${`progress of trial ${each.trial.number}`} />` : null}</td><td class="num">${number(made?.validation_score)}</td><td>${final ? html`<${Verdict} verdict=${final.verdict} />` : ""}</td></tr>`; })}</tbody></table><//></section>`;
}
