// The registry: the optimizers of each family, version by version.

import { get } from "./api.js";
import { Empty, Failure, go, html, link, Loading, useEffect, useNow, usePolled, useState, useTitle, Verdict, When } from "./base.js";
import { evaluationOf, number } from "./words.js";

export function Best({ optimizer }) {
  const found = evaluationOf(optimizer)?.best_baseline.final;
  if (!found) return html`<span class="soft">${optimizer.tuned ? "a tuned baseline" : "not measured"}</span>`;
  return html`<span><${Verdict} verdict=${found.verdict} /> <span class="soft">against ${found.baseline}, ${number(found.ratio_of_means)}× its final loss</span></span>`;
}

export const Names = ({ optimizer }) => html`<span class="chips">${optimizer.aliases.map(alias => html`<span class="chip alias" key=${alias}>${alias}</span>`)}${optimizer.archived_at ? html`<span class="chip">archived</span>` : null}</span>`;

export function Optimizers({ query }) {
  useTitle("Optimizers");
  const family = query.get("family") ?? "", alias = query.get("alias") ?? "";
  const asked = new URLSearchParams({ limit: "100", ...(family ? { family } : {}), ...(alias ? { alias } : {}), ...(query.get("archived") ? { archived: "true" } : {}), ...(query.get("after") ? { after: query.get("after") } : {}) });
  const { data, error, loading, refresh } = usePolled(`optimizers?${asked}`, 15);
  const { data: families } = usePolled("families");
  const now = useNow(20);
  const groups = new Map();
  for (const optimizer of data?.data ?? []) groups.set(optimizer.family, [...(groups.get(optimizer.family) ?? []), optimizer]);
  const filter = change => { const next = new URLSearchParams(query); next.delete("after"); for (const [name, value] of Object.entries(change)) if (value) next.set(name, value); else next.delete(name); go("optimizers", next); };
  return html`<div class="head"><div class="title"><h1>Optimizers</h1></div></div>
    <form class="filters" role="search" onSubmit=${event => event.preventDefault()}><label>Family<select value=${family} onChange=${event => filter({ family: event.target.value })}><option value="">all</option>${(families?.data ?? []).map(each => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select></label>
      <label>Alias<select value=${alias} onChange=${event => filter({ alias: event.target.value })}><option value="">all versions</option>${[...new Set(["best", "latest", alias, ...(data?.data ?? []).flatMap(each => each.aliases)].filter(Boolean))].map(each => html`<option key=${each} value=${each}>${each}</option>`)}</select></label>
      <label class="check"><input type="checkbox" checked=${Boolean(query.get("archived"))} onChange=${event => filter({ archived: event.target.checked ? "true" : "" })} />archived, too</label></form>
    <${Failure} error=${error} retry=${refresh} />${loading ? html`<${Loading} what="optimizers" />` : null}
    ${data && !data.data.length ? html`<${Empty} title="No optimizer yet"><p>A training that succeeds registers its optimizer here, as the next version of its family.</p><a class="button primary" href="#/jobs/new">New job</a><//>` : null}
    ${[...groups].map(([name, found]) => html`<section class="card" key=${name}><header><h2>${name}</h2><a href=${link(`families/${name}`)}>the family</a></header>
      <ol class="versions">${found.map(optimizer => html`<li key=${optimizer.id}><a href=${link(`optimizers/${optimizer.reference}`)}><b>${optimizer.reference.split("@")[1] ? `version ${optimizer.version}` : optimizer.reference}</b></a><${Names} optimizer=${optimizer} /><span class="num" title="validation score: lower is better">${number(optimizer.validation_score)}</span><${Best} optimizer=${optimizer} /><span class="soft"><${When} at=${optimizer.created_at} now=${now} /></span></li>`)}</ol></section>`)}
    ${data?.has_more ? html`<div class="actions"><button type="button" onClick=${() => { const next = new URLSearchParams(query); next.set("after", data.next); go("optimizers", next); }}>Older</button></div>` : null}`;
}
