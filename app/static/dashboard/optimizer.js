// One optimizer: its versions, its aliases, its card, and the line that uses it.

import { address, ask, download, get, send, text } from "./api.js";
import { Anatomy } from "./anatomy.js";
import { Code, Confirm, Copy, Failure, html, link, Loading, Scroll, useEffect, useNow, usePolled, useRef, useState, useTitle, When } from "./base.js";
import { About } from "./optimizer-about.js";
import { Markdown } from "./markdown.js";
import { Best, Names } from "./optimizers.js";
import { SettingRows, settingsOf } from "./recipe.js";
import { bytes, number } from "./words.js";

const RESERVED = ["latest", "best"];

// Validation scores by version; the lowest is the best.
function History({ optimizers, current }) {
  const known = [...optimizers].reverse().filter(each => each.validation_score !== null);
  if (known.length < 2) return null;
  const width = 620, height = 130, scores = known.map(each => each.validation_score), low = Math.min(...scores), high = Math.max(...scores), span = high - low || 1;
  const x = place => 40 + place * (width - 80) / (known.length - 1), y = score => 26 + (high - score) / span * (height - 62);
  return html`<svg class="forest" viewBox="0 0 ${width} ${height}" role="img" aria-label=${`validation scores: ${known.map(each => `version ${each.version} ${number(each.validation_score)}`).join(", ")}`}>
    <polyline points=${known.map((each, place) => `${x(place)},${y(each.validation_score)}`).join(" ")} fill="none" stroke="var(--line-1)" stroke-width="1.5" />
    ${known.map((each, place) => html`<g key=${each.id}><circle cx=${x(place)} cy=${y(each.validation_score)} r=${each.id === current ? 6 : 4} fill=${each.id === current ? "var(--warm)" : "var(--line-1)"} /></g><text x=${x(place)} y=${y(each.validation_score) - 10} text-anchor="middle">${number(each.validation_score)}</text><text class="faint" x=${x(place)} y=${height - 4} text-anchor="middle">${each.version}</text>`)}</svg>`;
}

// What of one version is not as in another: scores and verdicts first, then the recipes of their trainings.
function Difference({ optimizer, others }) {
  const [chosen, choose] = useState(null);
  const other = others.find(each => each.id === chosen) ?? others.find(each => each.version < optimizer.version && !each.tuned) ?? others[0];
  const { data: mine } = usePolled(optimizer.job && `jobs/${optimizer.job}`), { data: theirs } = usePolled(other.job && `jobs/${other.job}`);
  const jobs = mine && theirs ? [mine, theirs] : null;
  const rows = jobs ? settingsOf(jobs).filter(row => row.differs) : [];
  const facts = [["validation score", each => number(each.validation_score)], ["against the best tuned baseline", each => html`<${Best} optimizer=${each} />`], ["size", each => bytes(each.size_bytes)]];
  return html`<section class="card"><header><h2>What changed</h2><div class="actions"><label class="check"><span>since</span><select value=${other.id} onChange=${event => choose(event.target.value)}>${others.map(each => html`<option key=${each.id} value=${each.id}>version ${each.version}${each.tuned ? " (tuned baseline)" : ""}</option>`)}</select></label>
      ${jobs && jobs.every(job => job.kind === "meta_train") ? html`<a class="button small" href=${link("compare", jobs.map(job => ["job", job.id]))}>Compare their curves</a>` : null}</div></header>
    ${jobs ? html`<${Scroll} label="two versions side by side"><table><thead><tr><th scope="col"><span class="hidden">setting</span></th><th scope="col">version ${optimizer.version}</th><th scope="col">version ${other.version}</th></tr></thead><tbody>
      ${facts.map(([name, of]) => html`<tr key=${name}><th scope="row">${name}</th><td>${of(optimizer)}</td><td>${of(other)}</td></tr>`)}<${SettingRows} rows=${rows} jobs=${jobs} /></tbody></table><//>${rows.length ? null : html`<p class="soft">Their jobs have the same settings.</p>`}` : html`<${Loading} what="their jobs" />`}</section>`;
}

function Alias({ optimizer, aliases, changed }) {
  const [name, set] = useState("");
  const [error, fail] = useState(null);
  const move = async (alias, known) => {
    await send(`families/${encodeURIComponent(optimizer.family)}/aliases/${encodeURIComponent(alias)}`, { optimizer: optimizer.id }, "PUT", known ? { "If-Match": known.etag } : { "If-None-Match": "*" });
    changed();
  };
  const remove = async known => { await ask(`families/${encodeURIComponent(optimizer.family)}/aliases/${encodeURIComponent(known.alias)}`, { method: "DELETE", headers: { "If-Match": known.etag } }); changed(); };
  const create = event => { event.preventDefault(); move(name, undefined).then(() => { set(""); fail(null); }, fail); };
  return html`<section class="card"><h2>Aliases</h2><p class="soft">An alias is a name that you move. <code>latest</code> and <code>best</code> move by themselves.</p>
    ${aliases.length ? html`<table><thead><tr><th scope="col">alias</th><th scope="col">names</th><th scope="col"><span class="hidden">actions</span></th></tr></thead><tbody>${aliases.map(known => html`<tr key=${known.alias}><th scope="row">${known.alias}</th><td>version ${known.version}</td><td><div class="actions">
      ${known.optimizer === optimizer.id ? html`<span class="soft">this one</span>` : html`<${Confirm} className="small" label="Move here" title=${`Move ${known.alias} to version ${optimizer.version}?`} confirm="Move it" action=${() => move(known.alias, known)}><p><b>${optimizer.family}@${known.alias}</b> names version ${known.version} now. Whoever loads it gets version ${optimizer.version} from then on. If somebody else moved it meanwhile, nothing is changed.</p><//>`}
      <${Confirm} className="small danger" label="Delete" title=${`Delete ${known.alias}?`} confirm="Delete it" action=${() => remove(known)}><p>Programs that load <b>${optimizer.family}@${known.alias}</b> will not find it. No optimizer is deleted.</p><//></div></td></tr>`)}</tbody></table>` : null}
    <form class="actions" onSubmit=${create}><label class="check"><span>new alias</span><input value=${name} onInput=${event => set(event.target.value)} pattern="[a-z][a-z0-9_.\\-]*" required placeholder="prod" aria-label="name of the new alias" /></label><button disabled=${!name || RESERVED.includes(name)}>Create for version ${optimizer.version}</button></form><${Failure} error=${error} /></section>`;
}

export function OptimizerView({ id }) {
  const { data: optimizer, error, loading, refresh } = usePolled(`optimizers/${encodeURIComponent(id)}/record`, 15);
  const family = optimizer?.family;
  const { data: all, refresh: again } = usePolled(family ? `optimizers?limit=100&family=${encodeURIComponent(family)}` : null);
  const { data: aliases, refresh: reread } = usePolled(family ? `families/${encodeURIComponent(family)}/aliases?limit=100` : null);
  const [card, setCard] = useState(null);
  const [shape, setShape] = useState(null);
  const [problem, fail] = useState(null);
  const now = useNow(20);
  useTitle(optimizer?.reference ?? "Optimizer");
  useEffect(() => { if (optimizer) text(`optimizers/${optimizer.id}/card.md`, "*/*").then(setCard, fail); }, [optimizer?.id]);
  useEffect(() => { if (optimizer?.evaluations.length) get(`optimizers/${optimizer.id}/anatomy.json`).then(setShape, () => setShape(null)); }, [optimizer?.id, optimizer?.evaluations.length]);
  if (loading) return html`<${Loading} what="the optimizer" />`;
  if (!optimizer) return html`<a class="back" href="#/optimizers">← Optimizers</a><h1>Optimizer</h1><${Failure} error=${error} retry=${refresh} />`;
  const here = address("").replace(/\/$/, "");
  const python = `import gradsmith\n\noptimizer = gradsmith.LearnedOptimizer(model.parameters(), "${optimizer.reference}")`;
  return html`<a class="back" href="#/optimizers">← Optimizers</a>
    <div class="head"><div class="title"><h1>${optimizer.reference}</h1><${Names} optimizer=${optimizer} /></div><div class="actions">${optimizer.job ? html`<a class="button" href=${link(`jobs/${optimizer.job}`)}>Its job</a>` : null}<button type="button" onClick=${() => download(`optimizers/${optimizer.id}/weights`, `${optimizer.reference}.safetensors`, "*/*").catch(fail)}>Download the weights</button></div></div>
    <section class="card"><div class="stats"><div class="stat"><span>validation score</span><b>${number(optimizer.validation_score)}</b></div><div class="stat"><span>against the best tuned baseline</span><b><${Best} optimizer=${optimizer} /></b></div><div class="stat"><span>size</span><b>${bytes(optimizer.size_bytes)}</b></div><div class="stat"><span>made</span><b><${When} at=${optimizer.created_at} now=${now} /></b></div></div>
      ${optimizer.pays ? html`<p class="sentence">${optimizer.pays.answer}</p>` : null}
      ${optimizer.automatic ? null : html`<p class="soft">It is no better than parameters that never move, so <code>latest</code> and <code>best</code> do not name it.</p>`}
      <${Code} title="in your training loop; the version is pinned" text=${python} /><${Code} title="where it is" text=${`export GRADSMITH_URL=${here}`} /></section>
    ${"archived_at" in optimizer ? html`<${About} optimizer=${optimizer} changed=${() => { refresh(); again(); }} now=${now} />` : null}
    <div class="two"><section class="card"><h2>Versions</h2>${all ? html`<${History} optimizers=${all.data} current=${optimizer.id} /><ol class="versions">${all.data.map(each => html`<li key=${each.id}><a href=${link(`optimizers/${each.reference}`)} aria-current=${each.id === optimizer.id ? "true" : null}>${each.id === optimizer.id ? html`<b>version ${each.version}</b>` : `version ${each.version}`}</a><${Names} optimizer=${each} /><span class="num">${number(each.validation_score)}</span><${Best} optimizer=${each} /><span class="soft"><${When} at=${each.created_at} now=${now} /></span></li>`)}</ol>` : html`<${Loading} />`}</section>
      <${Alias} optimizer=${optimizer} aliases=${aliases?.data ?? []} changed=${() => { refresh(); again(); reread(); }} /></div>
    ${optimizer.job && all?.data.some(each => each.id !== optimizer.id && each.job) ? html`<${Difference} key=${optimizer.id} optimizer=${optimizer} others=${all.data.filter(each => each.id !== optimizer.id && each.job)} />` : null}
    ${shape ? html`<${Anatomy} found=${shape} />` : null}
    <section class="card"><h2>Card</h2><${Failure} error=${problem} />${card ? html`<${Markdown} text=${card} />` : problem ? null : html`<${Loading} what="the card" />`}</section>`;
}
