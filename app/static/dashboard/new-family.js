// A family of one's own, whose loss is text.

import { send } from "./api.js";
import { Failure, go, html, usePolled, useState, useTitle } from "./base.js";

const RIDGE = {
  name: "ridge", title: "Ridge regression", loss: "mean((A @ theta - y)**2) + weight * sum(theta**2)",
  parameters: { theta: { kind: "normal", shape: [10] } },
  draws: { A: { kind: "normal", shape: [20, 10] }, y: { kind: "normal", shape: [20] } },
  constants: { weight: 0.1 },
};
const PARTS = [
  ["parameters", "What an optimizer moves: each with how it starts and its shape."],
  ["draws", "What makes each task its own: drawn anew for every task."],
  ["constants", "Numbers that all tasks share."],
];

// JSON with an entry a line
const lines = part => `{\n${Object.entries(part).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`).join(",\n")}\n}`;

// "a = 1\n\nb = a" -> ["a = 1", "b = a"]
const written = text => text.split("\n").map(line => line.trim()).filter(Boolean);

const KINDS = [["expression", "a loss as text"], ["table", "a table of mine"]];

export function NewFamily({ query }) {
  useTitle("New family");
  const { data: tables } = usePolled("datasets");
  const [kind, setKind] = useState(query.get("dataset") ? "table" : "expression");
  const [dataset, setDataset] = useState(query.get("dataset") ?? "");
  const [settings, setSettings] = useState('{"kind": "regression", "loss": "squared"}');
  const table = dataset || tables?.data[0]?.name;
  const [value, set] = useState({ ...RIDGE, name: "", title: "", definitions: "", ...Object.fromEntries(PARTS.map(([part]) => [part, lines(RIDGE[part])])) });
  const [error, fail] = useState(null);
  const [busy, work] = useState(false);
  const change = name => event => set({ ...value, [name]: event.target.value });
  const wrong = Object.fromEntries(PARTS.map(([part]) => { try { JSON.parse(value[part] || "{}"); return [part, null]; } catch (problem) { return [part, problem.message]; } }));
  const submit = async event => {
    event.preventDefault();
    work(true);
    try {
      const tasks = kind === "table" ? { ...JSON.parse(settings), dataset: table } : { kind: "expression", loss: value.loss, definitions: written(value.definitions), ...Object.fromEntries(PARTS.map(([part]) => [part, JSON.parse(value[part] || "{}")])) };
      const family = await send("families", { name: value.name, title: value.title || value.name, tasks });
      go(`families/${family.name}`);
    } catch (problem) { fail(problem); } finally { work(false); }
  };
  return html`<a class="back" href="#/families">← Families</a><div class="head"><h1>New family</h1></div>
    <form class="card" onSubmit=${submit}><div class="field"><label for="family-of">What it is made of</label><select id="family-of" value=${kind} onChange=${event => setKind(event.target.value)}>${KINDS.map(([each, word]) => html`<option key=${each} value=${each}>${word}</option>`)}</select></div>
      ${kind === "table" ? html`<p class="soft">Each task is a group of the table's rows, and its loss is that of a linear model, or of a small network with <code>{"kind": "mlp", "hidden": [16]}</code>.</p>` : html`<p class="soft">The loss is one number, computed from the parameters, the draws and the constants. <code>@</code> is the matrix product; <code>mean</code>, <code>sum</code>, <code>exp</code>, <code>log</code>, <code>tanh</code> and others are known. What is filled in is ridge regression. A family never changes once it is made.</p>`}
      <div class="fields"><div class="field"><label for="family-name">Name</label><input id="family-name" value=${value.name} onInput=${change("name")} required placeholder="ridge" /></div><div class="field"><label for="family-title">Title</label><input id="family-title" value=${value.title} onInput=${change("title")} placeholder="Ridge regression" /></div>
      ${kind === "table" ? html`<div class="field"><label for="family-table">Table</label><select id="family-table" value=${table ?? ""} required onChange=${event => setDataset(event.target.value)}>${[...new Set([dataset, ...(tables?.data ?? []).map(each => each.name)])].filter(Boolean).map(each => html`<option key=${each} value=${each}>${each}</option>`)}</select><span class="hint">${tables && !tables.data.length ? html`There is none: <a href="#/datasets">bring one</a>.` : ""}</span></div>
      <div class="field wide"><label for="family-settings">Tasks</label><textarea id="family-settings" value=${settings} onInput=${event => setSettings(event.target.value)} spellcheck="false"></textarea></div>` : html`<div class="field wide"><label for="family-loss">Loss</label><textarea id="family-loss" value=${value.loss} onInput=${change("loss")} required spellcheck="false"></textarea></div>
      <div class="field wide"><label for="family-definitions">Definitions, optional</label><textarea id="family-definitions" rows="2" value=${value.definitions} onInput=${change("definitions")} spellcheck="false" placeholder="residual = A @ theta - y" aria-describedby="hint-definitions"></textarea><span class="hint" id="hint-definitions">One a line, <code>name = expression</code> or <code>name(argument, …) = expression</code>, for the loss to use; a function may be the right side of <code>odeint</code>.</span></div>
      ${PARTS.map(([part, hint]) => html`<div class="field wide" key=${part}><label for=${`family-${part}`}>${part[0].toUpperCase()}${part.slice(1)}</label><textarea id=${`family-${part}`} rows="4" value=${value[part]} onInput=${change(part)} spellcheck="false" aria-invalid=${wrong[part] ? "true" : null} aria-describedby=${`hint-${part}`}></textarea><span class="hint" id=${`hint-${part}`}>${wrong[part] ? `This is not JSON: ${wrong[part]}` : hint}</span></div>`)}`}</div>
      <${Failure} error=${error} /><div class="actions"><button class="primary" disabled=${busy || (kind === "expression" && Object.values(wrong).some(Boolean))}>Create the family</button><a class="button" href="#/families">Leave it</a></div></form>`;
}
