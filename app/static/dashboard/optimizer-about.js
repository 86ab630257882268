// An optimizer in its users' own words, where it comes from, and whether lists pass over it.

import { ask, send } from "./api.js";
import { Confirm, Failure, go, html, link, useState, When } from "./base.js";

const RESERVED = new Set(["latest", "best"]);

// What goes when it goes, and what stands in the way, before anybody agrees.
function Delete({ optimizer }) {
  const needing = [...optimizer.aliases.filter(each => !RESERVED.has(each)).map(each => html`the alias <b>${optimizer.family}@${each}</b>`), ...optimizer.evaluations.map(({ job }) => html`the evaluation <a href=${link(`jobs/${job}`)}>${job}</a>`)];
  const remove = async () => { await ask(`optimizers/${optimizer.id}`, { method: "DELETE" }); go("optimizers", { family: optimizer.family }); };
  return html`<${Confirm} className="small danger" label="Delete" title=${`Delete ${optimizer.reference}?`} confirm="Delete it" impossible=${needing.length > 0} action=${remove}>
    ${needing.length ? html`<p>It is needed by ${needing.map((each, at) => html`${at ? ", " : ""}${each}`)}, so it cannot be deleted. Archive it: lists, <code>latest</code> and <code>best</code> then pass over it.</p>`
    : html`<p>Its record, its card and its weights go for good: nobody can load <b>${optimizer.reference}</b> from here again, and no other optimizer gets that version. The job that made it stays, with its curve.</p>`}<//>`;
}

export function About({ optimizer, changed, now }) {
  const [text, write] = useState(null);
  const [error, fail] = useState(null);
  const { description, archived_at: archived, uploaded } = optimizer;
  const change = body => send(`optimizers/${optimizer.id}`, body, "PATCH").then(() => { write(null); fail(null); changed(); });
  const save = event => { event.preventDefault(); change({ description: text }).catch(fail); };
  return html`<section class="card"><header><h2>About</h2><div class="actions">
      ${text === null ? html`<button type="button" class="small" onClick=${() => write(description)}>${description ? "Edit" : "Describe it"}</button>` : null}
      ${archived ? html`<button type="button" class="small" onClick=${() => change({ archived: false }).catch(fail)}>Bring it back</button>`
      : html`<${Confirm} className="small danger" label="Archive" title=${`Archive ${optimizer.reference}?`} confirm="Archive it" action=${() => change({ archived: true })}><p>Lists, <code>latest</code> and <code>best</code> pass over it from then on. Its id, its version and your aliases still name it, and you can bring it back.</p><//>`}<${Delete} optimizer=${optimizer} /></div></header>
    ${archived ? html`<p class="failure" role="status">Archived <${When} at=${archived} now=${now} />: lists, <code>latest</code> and <code>best</code> pass over it.</p>` : null}
    ${text !== null ? html`<form onSubmit=${save}><label>In your own words<textarea value=${text} maxlength="2000" onInput=${event => write(event.target.value)} onKeyDown=${event => { if (event.key === "Escape") write(null); }}></textarea></label><div class="actions"><button class="primary">Save</button><button type="button" onClick=${() => write(null)}>Leave it</button></div></form>`
    : description ? html`<p class="own-words">${description}</p>` : html`<p class="soft">Nobody has described it yet.</p>`}
    ${uploaded ? html`<p class="soft">It was not made here: it was brought <${When} at=${uploaded.at} now=${now} />${uploaded.source ? html` from ${uploaded.source}` : ""}. What its file says of itself, nobody has checked here.</p>` : null}
    <${Failure} error=${error} /></section>`;
}
