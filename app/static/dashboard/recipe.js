// A job's recipe, with what is not as the family has it marked; and recipes of several jobs side by side.

import { html, Scroll, useState } from "./base.js";
import { changesShown, flat, same, shownAs } from "./words.js";

// Settings of several jobs: [{name, values, differs}], in the order of their specs.
export function settingsOf(jobs) {
  const parts = jobs.map(({ spec, metadata }) => new Map(flat({ tasks: spec.family?.tasks, ...spec.recipe && { recipe: spec.recipe }, evaluation: spec.evaluation, resources: spec.resources, seed: spec.seed, metadata })));
  const names = [...new Set(parts.flatMap(part => [...part.keys()]))].filter(Boolean);
  return names.map(name => ({ name, values: parts.map(part => part.get(name)), differs: parts.some(part => !same(part.get(name), parts[0].get(name))) }));
}

// Rows of a table, a setting each; what differs is marked.
export const SettingRows = ({ rows, jobs }) => rows.map(row => html`<tr key=${row.name} class=${row.differs && jobs.length > 1 ? "changed" : ""}><th scope="row" class="mono">${row.name}</th>${row.values.map((value, place) => html`<td key=${jobs[place].id}>${value === undefined ? "–" : shownAs(row.name, value)}</td>`)}</tr>`);

export function Recipe({ job, family }) {
  const changes = changesShown(job, family);
  const [all, setAll] = useState(false);
  const { spec } = job;
  const groups = [["Tasks", "tasks", spec.family?.tasks], ["Recipe", "recipe", spec.recipe], ["Evaluation", "evaluation", spec.evaluation ?? spec.plan], ["Resources", "resources", spec.resources]];
  const changedAt = (part, name) => changes.find(change => change.part === part && (name === change.path.join(".") || name.startsWith(`${change.path.join(".")}.`)));
  const rows = groups.map(([title, prefix, part]) => [title, flat(part ?? {}).filter(([name]) => name).map(([name, value]) => ({ name, value, change: changedAt(prefix, name) })).filter(({ change }) => !change?.swept).concat(changes.filter(change => change.swept && change.part === prefix).map(change => ({ name: change.path.join("."), value: change.value, change })))]).filter(([, found]) => found.length);
  const few = rows.map(([title, found]) => [title, all ? found : found.filter(({ change }) => change)]).filter(([, found]) => found.length);
  return html`<section class="card"><header><h2>Recipe</h2><div class="actions"><small>${changes.length ? `${changes.length} changed` : "as the family has it"}</small>
    <button type="button" class="small" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? "only what was changed" : "show all"}</button></div></header>
    ${few.length ? html`<${Scroll} label="settings of the job"><table><thead><tr><th scope="col">setting</th><th scope="col">this job</th><th scope="col">the family</th></tr></thead><tbody>
      ${few.map(([title, found]) => [html`<tr class="group" key=${title}><th colspan="3" scope="colgroup">${title}</th></tr>`, ...found.map(({ name, value, change }) => html`<tr key=${`${title} ${name}`} class=${change ? "changed" : ""}><th scope="row" class="mono">${name}</th><td>${shownAs(name, value)}</td><td class="soft">${change ? shownAs(name, change.usual) : "the same"}</td></tr>`)])}</tbody></table><//>` : html`<p class="soft">Nothing was changed: every setting is the family's.</p>`}</section>`;
}
