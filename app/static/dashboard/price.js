// What a job would cost, asked of the server while the form is filled: nothing is queued.

import { send } from "./api.js";
import { html, useEffect, useState } from "./base.js";
import { bytes, duration, number } from "./words.js";

const PAUSE_MILLISECONDS = 600; // after the last change
const PARTS = { training: "training", selection: "selection", tuning: "tuning the baselines", evaluation: "evaluation" };

export function Price({ body }) {
  const [found, set] = useState({});
  const asked = JSON.stringify(body);
  useEffect(() => {
    let current = true;
    const timer = setTimeout(() => send("jobs?dry_run=true", JSON.parse(asked)).then(
      price => { if (current) set({ price }); },
      error => { if (current) set({ error }); }), PAUSE_MILLISECONDS);
    return () => { current = false; clearTimeout(timer); };
  }, [asked]);
  const { price, error } = found;
  if (error) return html`<p class="problem" role="status">${error.message}</p>`;
  if (!price) return html`<p class="soft" role="status">The server is asked what this job would need …</p>`;
  const { seconds, queue } = price, parts = seconds ? Object.entries(PARTS).filter(([part]) => seconds[part] > 0) : [];
  const wait = queue.workers === 0 ? "no worker serves it" : queue.seconds === null ? `${number(queue.jobs)} before it` : queue.seconds < 1 ? "at once" : `in ${duration(queue.seconds)}`;
  return html`<section class="price" role="status" aria-label="what this job would need"><div class="stats">
      <div class="stat"><span>predicted time</span><b>${seconds ? duration(seconds.total) : "not known"}</b>${parts.length > 1 ? html`<small>${parts.map(([part, word]) => `${word} ${duration(seconds[part])}`).join(", ")}</small>` : null}</div>
      <div class="stat"><span>memory</span><b>${bytes(price.memory_bytes)}</b></div>
      <div class="stat"><span>begins</span><b>${wait}</b></div></div>
    ${price.advice ? html`<p class="soft">${price.advice}</p>` : null}${price.notes.map(note => html`<p class="soft" key=${note}>${note}</p>`)}
    ${seconds && price.error.p90 !== null ? html`<small>Nine of ten of your last ${number(price.error.jobs)} jobs took no more than ${number(price.error.p90)} times what was predicted.</small>` : null}</section>`;
}
