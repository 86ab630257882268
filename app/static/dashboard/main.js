// The shell: navigation, theme, key, and which view stands at which address.

import { connection, get, key, Refused } from "./api.js";
import { Failure, Loading, html, link, place, render, useEffect, useRef, useState } from "./base.js";
import { Jobs } from "./jobs.js";

// A view is loaded when somebody goes there; the list of jobs is where everybody begins.
const VIEWS = {
  jobs: { title: "Jobs", icon: "M4 6h16M4 12h16M4 18h10", load: async ([id]) => (id === "new" ? (await import("./new-job.js")).NewJob : id ? (await import("./job.js")).JobView : Jobs) },
  optimizers: { title: "Optimizers", icon: "M4 5c0 8 4 13 16 14M4 19h16", load: async ([id]) => (id ? (await import("./optimizer.js")).OptimizerView : (await import("./optimizers.js")).Optimizers) },
  families: { title: "Families", icon: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z", load: async ([id]) => (id === "new" ? (await import("./new-family.js")).NewFamily : id ? (await import("./families.js")).FamilyView : (await import("./families.js")).Families) },
  datasets: { title: "Data sets", icon: "M4 6c0-3 16-3 16 0v12c0 3-16 3-16 0zM4 6c0 3 16 3 16 0M4 12c0 3 16 3 16 0", load: async ([id]) => (id ? (await import("./datasets.js")).DatasetView : (await import("./datasets.js")).Datasets) },
  compare: { title: "Compare", icon: "M5 20V9M12 20V4M19 20v-8", load: async () => (await import("./compare.js")).Compare },
  system: { title: "System", icon: "M5 4h14v6H5zM5 14h14v6H5zM8 7h.01M8 17h.01", load: async () => (await import("./system.js")).System },
};
const THEMES = { auto: "light dark", light: "light", dark: "dark" };

function Theme() {
  const [theme, set] = useState(localStorage.getItem("gradsmith.theme") ?? "auto");
  useEffect(() => {
    document.documentElement.style.colorScheme = THEMES[theme] ?? THEMES.auto;
    if (theme === "auto") localStorage.removeItem("gradsmith.theme"); else localStorage.setItem("gradsmith.theme", theme);
    dispatchEvent(new Event("gradsmith-theme"));
  }, [theme]);
  return html`<label class="theme"><span class="hidden">Theme</span><select value=${theme} onChange=${change => set(change.target.value)}>
    <option value="auto">theme: system</option><option value="light">theme: light</option><option value="dark">theme: dark</option></select></label>`;
}

function KeyForm({ refused, done }) {
  const input = useRef(null);
  useEffect(() => input.current?.focus(), []);
  const submit = event => {
    event.preventDefault();
    key.set(input.current.value.trim());
    input.current.value = "";
    done();
  };
  return html`<form id="key" class="card narrow" onSubmit=${submit}><h1>This server asks for a key</h1>
    ${key.get() ? html`<p class="problem" role="alert">${refused.message}</p>` : null}
    <label>API key <input ref=${input} type="password" autocomplete="off" spellcheck="false" placeholder="gs_..." required /></label>
    <div class="actions"><button class="primary">Use it</button></div>
    <p class="soft">The key stays in this tab until you close it: never in an address, never in a log. <code>gradsmith-server keys create --scope submit --name dashboard</code> makes one on the server's machine (in a checkout <code>./run keys create ...</code>).</p></form>`;
}

function App() {
  const [at, move] = useState(place());
  const [state, setState] = useState(connection.state);
  const [epoch, begin] = useState(0);
  const [view, show] = useState({ name: null, View: null, error: null });
  const main = useRef(null);
  useEffect(() => {
    const moved = () => move(place());
    addEventListener("hashchange", moved);
    const ended = connection.watch(setState);
    return () => { removeEventListener("hashchange", moved); ended(); };
  }, []);
  const name = at.path[0] in VIEWS ? at.path[0] : "jobs";
  const which = `${name}/${at.path[1] ?? ""}`;
  useEffect(() => {
    let current = true;
    VIEWS[name].load(at.path.slice(1)).then(
      View => { if (current) show({ which, View, error: null }); },
      error => { if (current) show({ which, View: null, error: new Error(`A part of this page could not be loaded: ${error.message}`) }); });
    return () => { current = false; };
  }, [which]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [which]);
  const { View } = view.which === which ? view : { View: null };
  const needsKey = state instanceof Refused;
  return html`<a class="skip" href="#main" onClick=${event => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <header class="shell"><a class="brand" href="#/jobs"><img src="favicon.svg" alt="" width="26" height="26" />Gradsmith</a>
      <nav aria-label="Views"><ul>${Object.entries(VIEWS).map(([each, { title, icon }]) => html`<li key=${each}><a href=${link(each)} aria-current=${each === name ? "page" : null}>
        <svg viewBox="0 0 24 24" aria-hidden="true"><path d=${icon} /></svg>${title}</a></li>`)}</ul></nav>
      <div class="aside"><a href="docs">API reference</a><${Theme} />
      ${key.get() && !needsKey ? html`<button id="forget" type="button" class="small" onClick=${() => { key.forget(); location.reload(); }}>Forget the key</button>` : null}</div></header>
    <main id="main" tabindex="-1" ref=${main}>
      ${state === "away" ? html`<p class="banner" role="status">The server does not answer. What you see is as it was; the page goes on when the server is back.</p>` : null}
      ${needsKey ? html`<${KeyForm} refused=${state} key=${state} done=${async () => {
        try { await get("jobs?limit=1&brief=true"); } catch (error) { if (error instanceof Refused && error.status === 401) return; }
        setState("ok");
        begin(epoch + 1);
      }} />` : view.error ? html`<${Failure} error=${view.error} retry=${() => location.reload()} />`
        : View ? html`<${View} key=${`${which}#${epoch}`} id=${at.path[1]} query=${at.query} />` : html`<${Loading} />`}
    </main>`;
}

const root = document.querySelector("#app");
root.replaceChildren();
render(html`<${App} />`, root);
