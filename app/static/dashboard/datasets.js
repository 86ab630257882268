// Tables that users bring: what is there, and bringing one.

import { address, ask, key, send } from "./api.js";
import { Confirm, Empty, Failure, go, html, link, Loading, Progress, Scroll, useNow, usePolled, useRef, useState, useTitle, When } from "./base.js";
import { bytes, number } from "./words.js";

const HEAD_BYTES = 65_536;
const TYPES = { csv: "text/csv", npz: "application/octet-stream", safetensors: "application/vnd.safetensors" };

// fetch() tells nothing of how far an upload is
function upload(path, file, type, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    request.setRequestHeader("Content-Type", type);
    request.setRequestHeader("Accept", "application/json");
    if (key.get()) request.setRequestHeader("Authorization", `Bearer ${key.get()}`);
    request.upload.onprogress = event => progress(event.loaded, event.total);
    request.onerror = () => reject(new Error("The server does not answer, or ended the connection."));
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* a proxy's page */ }
      if (request.status < 300) resolve(answer);
      else reject(Object.assign(new Error(answer.detail ?? `The server answered ${request.status}.`), { errors: answer.errors, problem: answer }));
    };
    request.send(file);
  });
}

function Upload({ done }) {
  const [file, choose] = useState(null), [columns, setColumns] = useState([]), [name, setName] = useState(""), [target, setTarget] = useState(""), [group, setGroup] = useState("");
  const [sent, progress] = useState(null), [error, fail] = useState(null);
  const chosen = async event => {
    const [found] = event.target.files;
    choose(found ?? null);
    fail(null);
    if (!found) return;
    setName(before => before || found.name.replace(/\.[^.]+$/, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, ""));
    // a first line of names; what stands between quotes may hold commas
    setColumns(found.name.endsWith(".csv") ? [...(await found.slice(0, HEAD_BYTES).text()).split(/\r?\n/, 1)[0].matchAll(/"((?:[^"]|"")*)"|([^,]+)/g)].map(([, quoted, plain]) => (quoted ?? plain).trim()) : []);
  };
  const submit = async event => {
    event.preventDefault();
    fail(null);
    progress([0, file.size]);
    const asked = new URLSearchParams({ name, ...(target ? { target } : {}), ...(group ? { group } : {}) });
    try { await upload(`datasets?${asked}`, file, TYPES[file.name.split(".").pop()] ?? TYPES.npz, (loaded, total) => progress([loaded, total])); done(name); } catch (problem) { fail(problem); } finally { progress(null); }
  };
  const column = (id, label, hint, value, set) => html`<div class="field"><label for=${id}>${label}</label>${columns.length ? html`<select id=${id} value=${value} onChange=${event => set(event.target.value)}><option value="">none</option>${columns.map(each => html`<option key=${each} value=${each}>${each}</option>`)}</select>` : html`<input id=${id} value=${value} onInput=${event => set(event.target.value)} />`}<span class="hint">${hint}</span></div>`;
  return html`<form class="card" onSubmit=${submit}><h2>Bring a table</h2><div class="fields">
    <div class="field"><label for="file">File</label><input id="file" type="file" accept=".csv,.npz,.safetensors" required onChange=${chosen} /><span class="hint">CSV with a line of names, npz or safetensors. It is checked, and kept whole or not at all.</span></div>
    <div class="field"><label for="dataset-name">Name</label><input id="dataset-name" value=${name} required onInput=${event => setName(event.target.value)} /><span class="hint">What families call it.</span></div>
    ${column("target", "Target", "The column that is predicted.", target, setTarget)}${column("group", "Group", "Which rows belong to which task, such as a customer.", group, setGroup)}</div>
    ${sent ? html`<${Progress} value=${sent[0]} max=${sent[1]} label="upload" /><small role="status">${sent[0] < sent[1] ? `${bytes(sent[0])} of ${bytes(sent[1])}` : "the server checks the file …"}</small>` : null}<${Failure} error=${error} />
    <div class="actions"><button class="primary" disabled=${!file || sent !== null}>Send it</button></div></form>`;
}

// The data sets of the server's own families: what is here, and what it can download.
function BuiltIn({ sets, refresh }) {
  const [error, fail] = useState(null);
  const shown = sets.filter(each => each.ready || !each.alternative);
  const bring = async name => { fail(null); try { await send(`datasets/${encodeURIComponent(name)}/fetch`); } catch (problem) { fail(problem); } refresh(); };
  const told = each => {
    const { ready, download } = each;
    if (ready) return html`<span class="status succeeded"><span class="dot" aria-hidden="true"></span>ready</span>`;
    if (download?.status === "running") return html`<span class="status running"><span class="dot" aria-hidden="true"></span>downloading</span><${Progress} value=${download.received_bytes} max=${download.total_bytes} label=${`download of ${each.name}`} /><small>${download.file ? `${download.file}: ${bytes(download.received_bytes)}${download.total_bytes ? ` of ${bytes(download.total_bytes)}` : ""}` : "asks the host"}</small>`;
    return html`<span class="status">not here</span>${download ? html`<p class="failure" role="alert">${download.status === "failed" ? html`The download failed: ${download.error}` : "The download ended before it was done. Fetch it again."}${download.status === "failed" ? html` Without a network, <code>gradsmith-server data import ${each.name} FOLDER</code> brings it.` : ""}</p>` : null}`;
  };
  return html`<section class="card"><h2>Of the server's families</h2><${Failure} error=${error} />
    <ul class="sets">${shown.map(each => html`<li key=${each.name}><div><b>${each.name}</b>${told(each)}</div>
      ${each.ready || each.download?.status === "running" || !each.fetchable ? null : html`<button type="button" class="small" aria-label=${`Fetch ${each.name}`} onClick=${() => bring(each.name)}>Fetch</button>`}
      ${each.families.length ? html`<small>needed by ${each.families.map((family, at) => html`${at ? ", " : ""}<a key=${family} href=${link(`families/${family}`)}>${family}</a>`)}</small>` : null}
      ${each.ready || each.fetchable ? null : html`<small><code>gradsmith-server data import ${each.name} FOLDER</code> brings it</small>`}</li>`)}</ul></section>`;
}

const isArriving = found => (found?.built_in ?? []).some(each => each.download?.status === "running");

export function Datasets() {
  useTitle("Data sets");
  const { data, error, loading, refresh } = usePolled("datasets", found => (isArriving(found) ? 1 : 30));
  const now = useNow(30);
  return html`<div class="head"><h1>Data sets</h1></div><p class="soft">Tables of your own. A family on one is a distribution over its groups: each task is the rows of some of them.</p>
    <${Failure} error=${error} retry=${refresh} />${loading ? html`<${Loading} what="data sets" />` : null}
    ${data && !data.data.length ? html`<${Empty} title="No table yet"><p>Bring one below: a CSV with a line of names is enough.</p><//>` : null}
    ${data?.data.length ? html`<section class="card"><${Scroll} label="data sets"><table><thead><tr><th scope="col">name</th><th class="num" scope="col">rows</th><th class="num" scope="col">columns</th><th scope="col">target</th><th scope="col">group</th><th class="num" scope="col">size</th><th scope="col">brought</th></tr></thead><tbody>${data.data.map(each => html`<tr key=${each.name}><th scope="row"><a href=${link(`datasets/${each.name}`)}>${each.name}</a></th><td class="num">${number(each.rows)}</td><td class="num">${number(each.columns.length)}</td><td>${each.target ?? "–"}</td><td>${each.group ?? "–"}</td><td class="num">${bytes(each.size_bytes)}</td><td><${When} at=${each.created_at} now=${now} /></td></tr>`)}</tbody></table><//></section>` : null}
    ${data?.built_in.length ? html`<${BuiltIn} sets=${data.built_in} refresh=${refresh} />` : null}
    <${Upload} done=${name => go(`datasets/${name}`)} />`;
}

export function DatasetView({ id }) {
  const { data: table, error, loading, refresh } = usePolled(`datasets/${encodeURIComponent(id)}`);
  useTitle(id);
  if (loading) return html`<${Loading} what="the data set" />`;
  if (!table) return html`<a class="back" href="#/datasets">← Data sets</a><h1>Data set</h1><${Failure} error=${error} retry=${refresh} />`;
  const role = name => (name === table.target ? "target" : name === table.group ? "group" : table.inputs.includes(name) ? "input" : "not used");
  return html`<a class="back" href="#/datasets">← Data sets</a><div class="head"><h1>${table.name}</h1><div class="actions"><a class="button primary" href=${link("families/new", { dataset: table.name })}>Make a family of it</a>
      <${Confirm} className="danger" label="Delete" title=${`Delete ${table.name}?`} confirm="Delete it" action=${async () => { await ask(`datasets/${encodeURIComponent(table.name)}`, { method: "DELETE" }); go("datasets"); }}><p>The file is removed. A table that a family needs stays.</p><//></div></div>
    <section class="card"><div class="stats"><div class="stat"><span>rows</span><b>${number(table.rows)}</b></div><div class="stat"><span>usable rows</span><b>${number(table.usable_rows)}</b></div>${table.groups ? html`<div class="stat"><span>groups</span><b>${number(table.groups.count)}</b></div><div class="stat"><span>rows a group</span><b>${number(table.groups.smallest)} to ${number(table.groups.largest)}</b></div>` : null}${table.classes ? html`<div class="stat"><span>classes</span><b>${table.classes.length}</b></div>` : null}<div class="stat"><span>size</span><b>${bytes(table.size_bytes)}</b></div></div></section>
    <section class="card"><h2>Columns</h2><${Scroll} label="columns"><table><thead><tr><th scope="col">column</th><th scope="col">role</th><th scope="col">type</th><th class="num" scope="col">missing</th><th class="num" scope="col">lowest</th><th class="num" scope="col">mean</th><th class="num" scope="col">highest</th><th scope="col">examples</th></tr></thead><tbody>${table.columns.map(each => html`<tr key=${each.name}><th scope="row">${each.name}</th><td>${role(each.name)}</td><td>${each.type}</td><td class="num">${number(each.missing)}</td><td class="num">${number(each.low)}</td><td class="num">${number(each.mean)}</td><td class="num">${number(each.high)}</td><td class="soft">${(each.examples ?? []).slice(0, 3).join(", ")}</td></tr>`)}</tbody></table><//></section>
    <section class="card"><h2>First rows</h2><${Scroll} label="first rows"><table><thead><tr>${table.columns.map(each => html`<th scope="col" key=${each.name}>${each.name}</th>`)}</tr></thead><tbody>${table.preview.map(row => html`<tr>${row.map(cell => html`<td>${cell}</td>`)}</tr>`)}</tbody></table><//></section>`;
}
