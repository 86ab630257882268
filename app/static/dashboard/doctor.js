// What the doctor finds on the server's machine: what is wrong first, and the next step beside it.

import { get, Refused } from "./api.js";
import { Failure, html, Loading, Scroll, useEffect, useNow, useState, When } from "./base.js";

const RANKS = { fail: 0, warn: 1, ok: 2 };
const WORDS = { fail: "failed", warn: "look at it", ok: "ok" };
const STATUS = { fail: "failed", warn: "cancelling", ok: "succeeded" };

// Commands stand between backquotes.
const Told = ({ text }) => text.split("`").map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));

export function Doctor() {
  const [found, show] = useState(null), [error, fail] = useState(null), [busy, work] = useState(false), [all, showAll] = useState(false);
  const now = useNow(10);
  const look = async signal => {
    work(true);
    fail(null);
    try { show(await get("doctor", signal)); } catch (problem) { if (!signal?.aborted) fail(problem); } finally { if (!signal?.aborted) work(false); }
  };
  useEffect(() => { const abort = new AbortController(); look(abort.signal); return () => abort.abort(); }, []);
  const refused = error instanceof Refused && error.status === 403;
  const checks = [...found?.checks ?? []].sort((one, other) => RANKS[one.outcome] - RANKS[other.outcome]), wrong = checks.filter(each => each.outcome !== "ok"), well = checks.length - wrong.length;
  return html`<section class="card" id="doctor" aria-busy=${busy}><header><h2>The doctor ${found ? html`<small>looked <${When} at=${found.examined_at} now=${now} /></small>` : null}</h2>
      ${refused ? null : html`<button type="button" class="small" disabled=${busy} onClick=${() => look()}>${busy ? "Looking …" : "Look again"}</button>`}</header>
    ${refused ? html`<p class="soft">What it finds names folders and processes of the server's machine: a key with the scope <code>admin</code> of the workspace <code>default</code> shows it.</p>` : html`<${Failure} error=${error} />`}
    ${!found && busy ? html`<${Loading} what="what the doctor finds, some seconds" />` : null}
    ${found && !wrong.length ? html`<p class="soft">All ${well} checks passed.</p>` : null}
    ${found && (wrong.length || all) ? html`<${Scroll} label="findings of the doctor"><table><thead><tr><th scope="col">check</th><th scope="col">outcome</th><th scope="col">found</th></tr></thead><tbody>${(all ? checks : wrong).map(each => html`<tr key=${each.check + each.found}><th scope="row">${each.check}</th><td><span class=${`status ${STATUS[each.outcome]}`}><span class="dot" aria-hidden="true"></span>${WORDS[each.outcome]}</span></td><td class="told">${html`<${Told} text=${each.found} />`}${each.advice ? html`<br /><span class="soft">→ <${Told} text=${each.advice} /></span>` : null}</td></tr>`)}</tbody></table><//>` : null}
    ${well ? html`<div class="actions"><button type="button" class="small quiet" aria-expanded=${all} onClick=${() => showAll(!all)}>${all ? "Hide" : "Show"} the ${well} that passed</button></div>` : null}</section>`;
}
