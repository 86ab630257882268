// A model card's Markdown as elements: headings, paragraphs, lists, tables, code, links. Nothing is parsed as HTML.

import { html, Scroll } from "./base.js";

const INLINE = /(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)\s]+\))/;

function inline(text) {
  return text.split(INLINE).map(part => {
    if (/^`[^`]+`$/.test(part)) return html`<code>${part.slice(1, -1)}</code>`;
    if (/^\*\*/.test(part)) return html`<strong>${part.slice(2, -2)}</strong>`;
    const found = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(part);
    if (found) return /^(https?:|\/|#)/.test(found[2]) ? html`<a href=${found[2].replace(/^\//, "")}>${found[1]}</a>` : found[1];
    return part;
  });
}

const cells = line => line.trim().replace(/^\||\|$/g, "").split("|").map(cell => cell.trim());

export function Markdown({ text }) {
  const lines = text.split("\n"), parts = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    const heading = /^(#{1,4}) (.*)/.exec(line);
    if (heading) { parts.push(html`<${`h${Math.min(4, heading[1].length + 1)}`}>${inline(heading[2])}<//>`); at += 1; continue; }
    if (/^```/.test(line)) {
      const end = lines.findIndex((each, place) => place > at && /^```/.test(each)), stop = end < 0 ? lines.length : end;
      parts.push(html`<pre tabindex="0">${lines.slice(at + 1, stop).join("\n")}</pre>`);
      at = stop + 1;
      continue;
    }
    const run = test => { const from = at; while (at < lines.length && test(lines[at])) at += 1; return lines.slice(from, at); };
    if (/^\s*\|/.test(line)) {
      const rows = run(each => /^\s*\|/.test(each)).map(cells), [head, rule, ...body] = rows;
      const isHead = rule?.every(cell => /^:?-+:?$/.test(cell));
      parts.push(html`<${Scroll} label="table"><table>${isHead && head.some(Boolean) ? html`<thead><tr>${head.map(cell => html`<th scope="col">${inline(cell)}</th>`)}</tr></thead>` : null}<tbody>${(isHead ? body : rows).map(row => html`<tr>${row.map(cell => html`<td>${inline(cell)}</td>`)}</tr>`)}</tbody></table><//>`);
      continue;
    }
    if (/^\s*[-*] /.test(line)) { parts.push(html`<ul>${run(each => /^\s*[-*] /.test(each) || /^ {2,}\S/.test(each)).reduce((items, each) => { if (/^\s*[-*] /.test(each)) items.push(each.replace(/^\s*[-*] /, "")); else items[items.length - 1] += ` ${each.trim()}`; return items; }, []).map(each => html`<li>${inline(each)}</li>`)}</ul>`); continue; }
    if (!line.trim()) { at += 1; continue; }
    parts.push(html`<p>${inline(run(each => each.trim() && !/^(#|\||```|\s*[-*] )/.test(each)).join(" ") || lines[at++])}</p>`);
  }
  return html`<div class="prose">${parts}</div>`;
}
