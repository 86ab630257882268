// The catalogue of families, and one of them.

import { address } from "./api.js";
import { Code, Empty, Failure, html, link, Loading, Scroll, useMemo, usePolled, useState, useTitle } from "./base.js";
import { Evaluation } from "./evaluation.js";
import { FamilyPicture, useMeasured } from "./family-picture.js";
import { Transfer } from "./transfer.js";
import { evaluationOf, flat, number, shownAs } from "./words.js";

function useBests() {
  const { data } = usePolled("optimizers?alias=best&limit=100");
  return useMemo(() => new Map((data?.data ?? []).map(optimizer => [optimizer.family, optimizer])), [data]);
}

export function Families() {
  useTitle("Families");
  const { data, error, loading, refresh } = usePolled("families");
  const bests = useBests(), measured = useMeasured();
  const [words, find] = useState("");
  const matching = (data?.data ?? []).filter(family => `${family.name} ${family.title} ${family.description}`.toLowerCase().includes(words.toLowerCase())).sort((one, other) => Number(other.declared) - Number(one.declared));
  return html`<div class="head"><div class="title"><h1>Families</h1></div><div class="actions"><a class="button primary" href="#/families/new">New family</a></div></div>
    <p class="soft">A family is a distribution of tasks. An optimizer is trained on some of its tasks and measured on others.</p>
    <form class="filters" role="search" onSubmit=${event => event.preventDefault()}><label>Find<input type="search" value=${words} onInput=${event => find(event.target.value)} /></label></form>
    <${Failure} error=${error} retry=${refresh} />${loading ? html`<${Loading} what="families" />` : null}
    ${(data?.problems ?? []).map(problem => html`<p class="failure" key=${problem.plugin}><b>${problem.plugin}</b>: ${problem.reason}</p>`)}
    ${data && !matching.length ? html`<${Empty} title="No family matches" />` : null}
    <div class="grid">${matching.map(family => { const best = bests.get(family.name), verdict = evaluationOf(best)?.best_baseline.final; return html`<section class="card" key=${family.name}><header><h2><a href=${link(`families/${family.name}`)}>${family.name}</a></h2>${family.declared ? html`<span class="chip">yours</span>` : family.plugin ? html`<span class="chip">${family.plugin}</span>` : null}</header>
      <${FamilyPicture} family=${family.name} job=${measured?.get(family.name)} known=${measured !== null} />
      <p><b>${family.title}</b></p><p class="soft">${family.description}</p><dl class="facts"><dt>parameters a task</dt><dd>${number(family.coordinates_per_task)}</dd><dt>trained for</dt><dd>${number(family.recipe.meta_steps)} meta-steps of ${number(family.recipe.tasks)} ${family.recipe.tasks === 1 ? "task" : "tasks"}</dd><dt>best</dt><dd>${best ? html`<a href=${link(`optimizers/${best.reference}`)}>${best.reference}</a>${verdict ? html` <span class=${verdict.verdict}>${verdict.verdict}</span>` : ""}` : "none yet"}</dd></dl>
      <div class="actions"><a class="button small" href=${link("jobs/new", { family: family.name })} aria-label=${`Train on ${family.name}`}>Train</a><a class="button small" href=${link("jobs", { family: family.name })} aria-label=${`Jobs of ${family.name}`}>Jobs</a></div></section>`; })}</div>`;
}

const Table = ({ title, part, schema }) => html`<section class="card"><h2>${title}</h2><${Scroll} label=${title}><table><tbody>${flat(part).map(([setting, value]) => html`<tr key=${setting}><th scope="row" class="mono" title=${schema?.properties?.[setting]?.description ?? null}>${setting}</th><td>${shownAs(setting, value)}</td></tr>`)}</tbody></table><//></section>`;

// What a preview measured last: tuned baselines on a few tasks of the family.
function Previewed({ family }) {
  const { data } = usePolled(`jobs?kind=preview&status=succeeded&limit=1&brief=true&family=${encodeURIComponent(family.name)}`);
  if (!data) return null;
  if (data.data.length) return html`<${Evaluation} id=${data.data[0].id} training=${true} />`;
  return html`<section class="card"><header><h2>Preview</h2><a class="button small" href=${link("jobs/new", { family: family.name, kind: "preview" })}>See how tuned baselines do</a></header><p class="soft">A preview tunes Adam on a few tasks, in seconds: you see whether the family is what you meant before you train for minutes.</p></section>`;
}

export function FamilyView({ id }) {
  const { data: family, error, loading, refresh } = usePolled(`families/${encodeURIComponent(id)}`);
  const bests = useBests();
  useTitle(id);
  if (loading) return html`<${Loading} what="the family" />`;
  if (!family) return html`<a class="back" href="#/families">← Families</a><h1>Family</h1><${Failure} error=${error} retry=${refresh} />`;
  const best = bests.get(family.name);
  const here = address("").replace(/\/$/, "");
  return html`<a class="back" href="#/families">← Families</a>
    <div class="head"><div class="title"><h1>${family.name}</h1><span class="soft">${family.title}</span></div><div class="actions"><a class="button primary" href=${link("jobs/new", { family: family.name })}>Train</a><a class="button" href=${link("jobs/new", { family: family.name, kind: "preview" })}>Preview</a><a class="button" href=${link("jobs", { family: family.name })}>Jobs</a><a class="button" href=${link("optimizers", { family: family.name })}>Optimizers</a></div></div>
    <section class="card"><p>${family.description}</p><div class="stats"><div class="stat"><span>parameters a task</span><b>${number(family.coordinates_per_task)}</b></div><div class="stat"><span>kind</span><b>${family.tasks.kind}</b></div><div class="stat"><span>best optimizer</span><b>${best ? html`<a href=${link(`optimizers/${best.reference}`)}>${best.reference}</a>` : "none yet"}</b></div></div></section>
    <${Previewed} family=${family} /><${Transfer} family=${family.name} />
    <div class="two"><div class="two-right"><${Table} title="Tasks" part=${family.tasks} schema=${family.schemas.tasks} /><${Table} title="Evaluation" part=${family.evaluation} schema=${family.schemas.evaluation} />
      <section class="card"><h2>From a program</h2><${Code} title="Python" text=${`import gradsmith\nclient = gradsmith.Client("${here}")\njob = client.jobs.create(family="${family.name}")`} /><${Code} title="curl" text=${`curl -s -X POST ${here}/jobs -H 'Content-Type: application/json' -d '${JSON.stringify({ kind: "meta_train", family: family.name })}'`} /></section></div>
      <${Table} title="Recipe" part=${family.recipe} schema=${family.schemas.recipe} /></div>`;
}
