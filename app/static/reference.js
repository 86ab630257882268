
"use strict";
// The page is whole without this: it adds a search, the place where the reader is, and buttons that copy.
const search = document.querySelector("#search");
const parts = [...document.querySelectorAll("main .operation, main .schema, #errors tbody tr")];
const words = new Map(parts.map(part => [part, part.textContent.toLowerCase()]));
const headings = [...document.querySelectorAll("main .noun, #schemas, #begin, #keys, #errors")];
const entries = new Map([...document.querySelectorAll('nav li a[href^="#"]')].map(link => [link.hash.slice(1), link]));

function find() {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const [part, text] of words) {
    const fits = wanted.every(word => text.includes(word));
    part.toggleAttribute("data-unmatched", !fits);
    entries.get(part.id)?.parentElement.toggleAttribute("data-unmatched", !fits);
    found += fits;
  }
  for (const heading of headings) heading.toggleAttribute("data-unmatched", wanted.length > 0 && heading.id !== "errors");
  document.querySelector("#errors").toggleAttribute("data-unmatched", !document.querySelector("#errors tbody tr:not([data-unmatched])"));
  document.querySelector("#nothing").hidden = found > 0;
}

document.querySelector(".search").hidden = false;
search.addEventListener("input", find);
search.addEventListener("keydown", event => {
  if (event.key === "Escape") { search.value = ""; find(); search.blur(); }
});
document.addEventListener("keydown", event => {
  if (event.key === "/" && event.target !== search) { event.preventDefault(); search.focus(); }
});
// Whoever follows a link to what the search has hidden wants to see it.
addEventListener("hashchange", () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.closest("[data-unmatched]")) { search.value = ""; find(); target.scrollIntoView(); }
});

const seen = new Set();
const watcher = new IntersectionObserver(changes => {
  for (const { target, isIntersecting } of changes) isIntersecting ? seen.add(target) : seen.delete(target);
  const first = parts.find(part => seen.has(part));
  for (const [id, link] of entries) {
    if (id === first?.id) link.setAttribute("aria-current", "location");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "0px 0px -60% 0px" });
for (const part of parts) if (entries.has(part.id)) watcher.observe(part);

for (const shown of document.querySelectorAll("pre.command")) {
  const box = document.createElement("div");
  box.className = "with-button";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(shown.textContent);
      button.textContent = "copied";
    } catch {  // over plain HTTP from elsewhere there is no clipboard
      getSelection().selectAllChildren(shown);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  shown.replaceWith(box);
  box.append(shown, button);
}
