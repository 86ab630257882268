// A chart as SVG: the lines that the canvas shows, as text that a paper or a slide can scale.

import { colour, ticks } from "./chart.js";
import { number, tickText } from "./words.js";

const WIDTH = 960, HEIGHT = 420, LEFT = 66, RIGHT = 18, TOP = 40, BOTTOM = 46;
const escaped = text => String(text).replace(/[&<>"]/g, letter => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter]);

// series and data as Chart has them; range: the part of x that is shown
export function svgOf({ series, data, log, range, xLabel, title }) {
  const [xs, ...columns] = data, shown = series.map((each, place) => ({ ...each, values: columns[place] })).filter(each => each.show !== false && each.values.some(value => value !== null));
  const [left, right] = range ?? [xs[0], xs.at(-1)], inside = xs.map(x => x >= left && x <= right);
  const known = shown.flatMap(each => each.values.filter((value, at) => value !== null && inside[at] && (!log || value > 0)));
  let low = Math.min(...known), high = Math.max(...known);
  if (log) { low /= 1.12; high *= 1.12; } else { const room = (high - low || 2) * 0.05; low -= room; high += room; }
  const scale = log ? Math.log : value => value;
  const x = value => LEFT + ((value - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT), y = value => HEIGHT - BOTTOM - ((scale(value) - scale(low)) / (scale(high) - scale(low) || 1)) * (HEIGHT - TOP - BOTTOM);
  const at = (place, value) => `${x(xs[place]).toFixed(1)} ${y(value).toFixed(1)}`;
  const soft = colour("--soft"), line = colour("--line"), ink = colour("--text");
  const grid = [
    ...ticks(left, right, false, 8).map(value => `<line x1="${x(value)}" x2="${x(value)}" y1="${TOP}" y2="${HEIGHT - BOTTOM}" stroke="${line}"/><text x="${x(value)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="${soft}">${number(value)}</text>`),
    ...ticks(low, high, log).map(value => `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value)}" y2="${y(value)}" stroke="${line}"/><text x="${LEFT - 8}" y="${y(value) + 4}" text-anchor="end" fill="${soft}">${tickText(value)}</text>`),
  ];
  const lines = shown.map(each => {
    const points = each.values.flatMap((value, place) => (value !== null && inside[place] && (!log || value > 0) ? [[place, value]] : []));
    const paint = `stroke="${colour(each.color)}"${each.faint ? ' stroke-opacity="0.4"' : ""}`;
    return each.points ? points.map(([place, value]) => `<circle cx="${x(xs[place]).toFixed(1)}" cy="${y(value).toFixed(1)}" r="3.5" fill="${colour(each.color)}"/>`).join("")
      : `<path d="M${points.map(([place, value]) => at(place, value)).join("L")}" fill="none" ${paint} stroke-width="${each.width ?? 1.6}" stroke-linejoin="round"${each.dash ? ` stroke-dasharray="${each.dash.join(" ")}"` : ""}/>`;
  });
  let along = LEFT;
  const legend = shown.filter(each => !each.silent).map(each => { const from = along; along += 44 + 7 * each.label.length; return `<rect x="${from}" y="21" width="16" height="3" fill="${colour(each.color)}"/><text x="${from + 22}" y="26" fill="${ink}">${escaped(each.label)}</text>`; });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="system-ui, sans-serif" font-size="12"><title>${escaped(title)}</title><rect width="100%" height="100%" fill="${colour("--card")}"/>${grid.join("")}${lines.join("")}${legend.join("")}<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle" fill="${soft}">${escaped(xLabel)}</text></svg>\n`;
}
