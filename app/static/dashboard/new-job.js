// The form for a job: every setting from the family's JSON schema, with its default; only what was changed is sent.

import { address, send } from "./api.js";
import { Code, Failure, go, html, Loading, useEffect, useMemo, usePolled, useState, useTitle } from "./base.js";
import { Price } from "./price.js";
import { changesOf, labelsOf, same, shown } from "./words.js";

const FIRST = ["meta_steps", "horizon", "unroll_steps", "tasks", "meta_learning_rate", "objective"];
const SWEPT = { properties: { recipe: { description: 'such as {"meta_steps": [300, 1000], "meta_learning_rate": {"low": 0.001, "high": 0.03, "log": true}}' } } };
const KINDS = [["meta_train", "train an optimizer"], ["evaluate", "measure an optimizer"], ["preview", "see how tuned baselines do"], ["sweep", "try many recipes"]];

// What a schema says of one setting: {type, low, high, choices, optional}
function described(schema, defs) {
  if (schema.$ref) return described({ ...defs[schema.$ref.split("/").at(-1)], ...schema, $ref: undefined }, defs);
  const options = schema.anyOf ?? schema.oneOf;
  if (options) {
    const real = options.filter(each => each.type !== "null");
    if (real.length === 1) return { ...described({ ...schema, ...real[0], anyOf: undefined, oneOf: undefined }, defs), optional: real.length < options.length };
    return { type: "json", hint: schema.description };
  }
  const hint = schema.description;
  if (schema.enum || schema.const !== undefined) return { type: "choice", choices: schema.enum ?? [schema.const], hint };
  if (schema.type === "integer" || schema.type === "number") return { type: schema.type, low: schema.minimum ?? schema.exclusiveMinimum, high: schema.maximum ?? schema.exclusiveMaximum, hint };
  if (schema.type === "boolean") return { type: "boolean", hint };
  if (schema.type === "array") {
    const inner = schema.items ? described(schema.items, defs) : { type: "json" };
    return inner.type === "choice" ? { type: "choices", choices: inner.choices, hint } : ["integer", "number"].includes(inner.type) ? { type: "numbers", hint } : { type: "json", hint };
  }
  return schema.type === "string" ? { type: "text", hint } : { type: "json", hint };
}

function Field({ id, name, schema, defs, usual, value, set }) {
  const told = useMemo(() => described(schema, defs), [schema]);
  const current = value === undefined ? usual : value;
  const changed = value !== undefined && !same(value, usual);
  const [text, write] = useState(null);
  const [wrong, complain] = useState(null);
  const parse = (raw, read) => { write(raw); try { set(read(raw)); complain(null); } catch (error) { complain(error.message); } };
  const common = { id, "aria-describedby": told.hint ? `${id}-hint` : null, "aria-invalid": wrong ? "true" : null };
  const control = () => {
    switch (told.type) {
      case "choice": return html`<select ...${common} value=${String(current)} onChange=${event => set(told.choices.find(choice => String(choice) === event.target.value) ?? null)}>${told.optional ? html`<option value="null">none</option>` : null}${told.choices.map(choice => html`<option key=${choice} value=${String(choice)}>${String(choice)}</option>`)}</select>`;
      case "boolean": return html`<span class="check"><input ...${common} type="checkbox" checked=${Boolean(current)} onChange=${event => set(event.target.checked)} /></span>`;
      case "integer": case "number": return html`<input ...${common} type="number" step=${told.type === "integer" ? 1 : "any"} min=${told.low} max=${told.high} required=${!told.optional} value=${text ?? (current ?? "")} placeholder=${told.optional ? "none" : ""} onInput=${event => parse(event.target.value, raw => (raw === "" ? (told.optional ? null : usual) : Number(raw)))} />`;
      case "choices": return html`<span class="options" role="group" aria-labelledby=${`${id}-label`}>${told.choices.map(choice => html`<label class="check" key=${choice}><input type="checkbox" checked=${(current ?? []).includes(choice)} onChange=${event => set(event.target.checked ? [...(current ?? []), choice] : current.filter(each => each !== choice))} />${choice}</label>`)}</span>`;
      case "numbers": return html`<input ...${common} value=${text ?? (current ?? []).join(", ")} placeholder="such as 16, 8" onInput=${event => parse(event.target.value, raw => raw.split(/[\s,]+/).filter(Boolean).map(part => { const found = Number(part); if (Number.isNaN(found)) throw new Error(`${part} is no number`); return found; }))} />`;
      case "text": return html`<input ...${common} value=${current ?? ""} onInput=${event => set(event.target.value)} />`;
      default: return html`<textarea ...${common} spellcheck="false" value=${text ?? JSON.stringify(current, null, 1)} onInput=${event => parse(event.target.value, raw => JSON.parse(raw))}></textarea>`;
    }
  };
  return html`<div class=${`field ${told.type === "json" || told.type === "choices" ? "wide" : ""} ${changed ? "changed" : ""}`}><span class="label"><label id=${`${id}-label`} for=${told.type === "choices" ? null : id}>${name.replaceAll("_", " ")}</label>${changed ? html`<button type="button" class="small quiet" aria-label=${`${name}: back to ${shown(usual)}`} onClick=${() => { write(null); complain(null); set(undefined); }}>reset</button>` : null}</span>
    ${control()}${wrong ? html`<span class="hint problem">${wrong}</span>` : told.hint ? html`<span class="hint" id=${`${id}-hint`}>${told.hint}</span>` : null}</div>`;
}

// The rule: its kind, and the settings of that kind.
function Rule({ schema, usual, value, set }) {
  const defs = schema.$defs ?? {};
  const kinds = Object.fromEntries((schema.properties.rule.anyOf ?? schema.properties.rule.oneOf ?? []).map(each => defs[each.$ref?.split("/").at(-1)]).filter(found => found?.properties?.kind && found.properties.kind.const !== "tuned").map(found => [found.properties.kind.const, found]));
  const kind = value?.kind ?? usual.kind, chosen = kinds[kind];
  const before = kind === usual.kind ? usual : Object.fromEntries(Object.entries(chosen?.properties ?? {}).map(([name, each]) => [name, each.default]));
  const change = (name, next) => {
    const { [name]: _, ...rest } = value ?? {};
    const merged = next === undefined || same(next, before[name]) ? rest : { ...rest, [name]: next };
    set(Object.keys(merged).length && !(Object.keys(merged).length === 1 && merged.kind === usual.kind) ? { kind, ...merged } : undefined);
  };
  return html`<fieldset><legend>Rule</legend><div class="fields"><div class=${`field ${kind === usual.kind ? "" : "changed"}`}><span class="label"><label for="rule-kind">kind</label></span><select id="rule-kind" value=${kind} onChange=${event => set(event.target.value === usual.kind ? undefined : { kind: event.target.value })}>${Object.keys(kinds).map(each => html`<option key=${each} value=${each}>${each}</option>`)}</select><span class="hint">${chosen?.description?.split("\n")[0]}</span></div>
    ${Object.entries(chosen?.properties ?? {}).filter(([name]) => name !== "kind").map(([name, each]) => html`<${Field} key=${`${kind} ${name}`} id=${`rule-${name}`} name=${name} schema=${each} defs=${defs} usual=${before[name]} value=${value?.[name]} set=${next => change(name, next)} />`)}</div></fieldset>`;
}

function Part({ title, prefix, schema, usual, value, set, names }) {
  const entries = Object.entries(schema.properties ?? {}).filter(([name, each]) => each.const === undefined && (!names || names.includes(name)));
  const change = (name, next) => { const { [name]: _, ...rest } = value; set(next === undefined || same(next, usual[name]) ? rest : { ...rest, [name]: next }); };
  return html`<fieldset>${title ? html`<legend>${title}</legend>` : null}<div class="fields">${entries.map(([name, each]) => html`<${Field} key=${name} id=${`${prefix}-${name}`} name=${name} schema=${each} defs=${schema.$defs ?? {}} usual=${usual[name]} value=${value[name]} set=${next => change(name, next)} />`)}</div></fieldset>`;
}

// What a job changed, as the body that asks for it again.
function bodyOf(job, family) {
  const body = { tasks: {}, recipe: {}, evaluation: {} };
  const parts = { tasks: job.spec.family.tasks, recipe: job.spec.recipe, evaluation: job.spec.evaluation };
  for (const { part, path } of changesOf(job, family)) body[part][path[0]] = parts[part][path[0]];
  return body;
}

// What a sweep swept, as the recipe that asks for it again.
function sweptBy(spec) {
  const body = { recipe: structuredClone(spec.given) };
  for (const { path, kind, values, low, high, log } of spec.space.filter(axis => axis.path[0] === "recipe")) {
    const within = path.slice(0, -1).reduce((place, name) => (place[name] ??= {}), body);
    within[path.at(-1)] = kind === "choices" ? values : { low, high, log };
  }
  return body.recipe;
}

export function NewJob({ query }) {
  useTitle("New job");
  const from = query.get("from");
  const { data: families, error: none } = usePolled("families");
  const { data: optimizers } = usePolled("optimizers?limit=100");
  const { data: before, error: gone } = usePolled(from ? `jobs/${from}` : null);
  const [kind, setKind] = useState(query.get("kind") ?? "meta_train");
  const [name, setName] = useState(query.get("family") ?? "");
  const [optimizer, setOptimizer] = useState(query.get("optimizer") ?? "");
  const chosen = name || before?.family || families?.data[0]?.name;
  const { data: family, error: unknown } = usePolled(chosen ? `families/${encodeURIComponent(chosen)}` : null);
  const [tasks, setTasks] = useState({}), [recipe, setRecipe] = useState({}), [evaluation, setEvaluation] = useState({});
  const [measure, setMeasure] = useState(true), [seed, setSeed] = useState(""), [labels, setLabels] = useState(""), [device, setDevice] = useState("cpu");
  const [error, fail] = useState(null), [busy, work] = useState(false);
  useEffect(() => {
    if (!before || !family || family.name !== before.family) return;
    const body = bodyOf(before, family);
    setKind(before.kind);
    setTasks(body.tasks); setRecipe(before.kind === "sweep" ? sweptBy(before.spec) : body.recipe); setEvaluation(body.evaluation);
    setMeasure(before.spec.evaluate ?? true);
    setOptimizer(before.kind === "evaluate" ? before.optimizer : "");
    setLabels(Object.entries(before.metadata).map(([label, value]) => `${label}=${value}`).join(" "));
    setDevice(before.spec.resources?.device ?? "cpu");
  }, [before?.id, family?.name]);
  const used = part => (Object.keys(part).length ? part : undefined);
  const body = {
    kind, ...(kind === "evaluate" ? { optimizer: optimizer || optimizers?.data[0]?.reference } : { family: chosen }),
    tasks: kind === "evaluate" ? undefined : used(tasks), recipe: kind === "meta_train" || kind === "sweep" ? used(recipe) : undefined,
    evaluate: (kind === "meta_train" || kind === "sweep") && !measure ? false : undefined, evaluation: used(evaluation), seed: seed === "" ? undefined : Number(seed),
    resources: device === "cpu" ? undefined : { device }, metadata: used(labelsOf(labels)),
  };
  const sent = JSON.parse(JSON.stringify(body));
  const submit = async event => {
    event.preventDefault();
    work(true);
    try { go(`jobs/${(await send("jobs", sent, "POST", { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) })).id}`); } catch (problem) { fail(problem); } finally { work(false); }
  };
  const python = `client.${kind === "sweep" ? "sweeps" : "jobs"}.create(${Object.entries(sent).filter(([each, value]) => !(each === "kind" && (value === "meta_train" || value === "sweep"))).map(([each, value]) => `${each}=${JSON.stringify(value).replace(/\btrue\b/g, "True").replace(/\bfalse\b/g, "False").replace(/\bnull\b/g, "None")}`).join(", ")})`;
  const rest = family ? Object.keys(family.schemas.recipe.properties).filter(each => !FIRST.includes(each) && each !== "rule") : [];
  const restChanged = Object.keys(recipe).filter(each => rest.includes(each)).length;
  const plan = kind === "preview" ? Object.keys(family?.schemas.evaluation.properties ?? {}).filter(each => !["test_tasks", "untuned", "bootstrap_samples"].includes(each)) : undefined;
  return html`<a class="back" href="#/jobs">← Jobs</a><div class="head"><h1>${from ? "Run again with changes" : "New job"}</h1></div>
    <${Failure} error=${none ?? gone ?? unknown} />
    <form onSubmit=${submit} class="card"><div class="fields">
      <div class="field"><label for="kind">What to do</label><select id="kind" value=${kind} onChange=${event => setKind(event.target.value)}>${KINDS.map(([each, word]) => html`<option key=${each} value=${each}>${word}</option>`)}</select></div>
      ${kind === "evaluate" ? html`<div class="field"><label for="optimizer">Optimizer</label><select id="optimizer" value=${optimizer} onChange=${event => setOptimizer(event.target.value)}>${optimizer && !optimizers?.data.some(each => each.reference === optimizer) ? html`<option value=${optimizer}>${optimizer}</option>` : null}${(optimizers?.data ?? []).map(each => html`<option key=${each.id} value=${each.reference}>${each.reference}${each.aliases.length ? ` (${each.aliases.join(", ")})` : ""}</option>`)}</select></div>`
      : html`<div class="field"><label for="family">Family</label><select id="family" value=${chosen ?? ""} onChange=${event => { setName(event.target.value); setTasks({}); setRecipe({}); setEvaluation({}); }}>${(families?.data ?? []).map(each => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select><span class="hint">${family?.title}</span></div>`}
      <div class="field"><label for="seed">Seed</label><input id="seed" type="number" min="0" step="1" value=${seed} placeholder=${kind === "evaluate" ? "0" : "a random one"} onInput=${event => setSeed(event.target.value)} /></div>
      <div class="field"><label for="device">Device</label><select id="device" value=${device} onChange=${event => setDevice(event.target.value)}><option value="cpu">cpu</option><option value="gpu">gpu</option></select></div>
      <div class="field"><label for="labels">Labels</label><input id="labels" value=${labels} placeholder="experiment=first owner=me" onInput=${event => setLabels(event.target.value)} /></div>
      ${kind === "meta_train" || kind === "sweep" ? html`<div class="field"><span class="label"><label for="measure">compare with tuned baselines afterwards</label></span><span class="check"><input id="measure" type="checkbox" checked=${measure} onChange=${event => setMeasure(event.target.checked)} /></span></div>` : null}</div>
      ${family ? html`${kind === "meta_train" ? html`<${Part} key=${`recipe ${chosen}`} title="Recipe" prefix="recipe" schema=${family.schemas.recipe} usual=${family.recipe} value=${recipe} set=${setRecipe} names=${FIRST} />
        <${Rule} key=${`rule ${chosen}`} schema=${family.schemas.recipe} usual=${family.recipe.rule} value=${recipe.rule} set=${rule => { const { rule: _, ...others } = recipe; setRecipe(rule ? { ...others, rule } : others); }} />
        <details><summary>All settings of the recipe${restChanged ? ` (${restChanged} changed)` : ""}</summary><${Part} key=${`rest ${chosen}`} prefix="more" schema=${family.schemas.recipe} usual=${family.recipe} value=${recipe} set=${setRecipe} names=${rest} /></details>` : null}
      ${kind === "sweep" ? html`<${Part} key=${`sweep ${chosen}`} title="Recipe: a list in the place of a value is tried, a range is drawn from" prefix="sweep" schema=${SWEPT} usual=${{ recipe: { meta_learning_rate: [0.001, 0.003, 0.01] } }} value=${Object.keys(recipe).length ? { recipe } : {}} set=${next => setRecipe(next.recipe ?? {})} />` : null}
      ${kind === "evaluate" ? null : html`<details open=${Object.keys(tasks).length > 0}><summary>Tasks</summary><${Part} key=${`tasks ${chosen}`} prefix="tasks" schema=${family.schemas.tasks} usual=${family.tasks} value=${tasks} set=${setTasks} /></details>`}
      <details open=${Object.keys(evaluation).length > 0}><summary>${kind === "preview" ? "Baselines and their tuning" : "Evaluation"}</summary><${Part} key=${`evaluation ${chosen}`} prefix="evaluation" schema=${family.schemas.evaluation} usual=${family.evaluation} value=${evaluation} set=${setEvaluation} names=${plan} /></details>` : html`<${Loading} what="the family" />`}
      <${Failure} error=${error} />${family && (kind !== "evaluate" || sent.optimizer) ? html`<${Price} body=${sent} />` : null}
      <div class="actions"><button class="primary" disabled=${busy || !family}>Start the job</button><a class="button" href="#/jobs">Leave it</a></div>
      <${Code} title="the same from Python" text=${python} /><${Code} title="the same with curl" text=${`curl -s -X POST ${address("jobs")} -H 'Content-Type: application/json' -d '${JSON.stringify(sent)}'`} /></form>`;
}
