// Lines over steps or seconds, drawn by uPlot on a canvas; colours are those of the page.

import uPlot from "./vendor/uplot.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./base.js";
import { number, tickText } from "./words.js";

export const LINES = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6", "--line-7", "--line-8"];

// A colour as the page shows it now: light-dark() is resolved by the browser alone.
export function colour(name, share = 1) {
  const probe = document.createElement("i");
  probe.style.color = share === 1 ? `var(${name})` : `color-mix(in srgb, var(${name}) ${100 * share}%, transparent)`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// How wide a text is in the page's letters, in pixels.
let measuring;
export function widthOf(text, size = 12) {
  measuring ??= document.createElement("canvas").getContext("2d");
  measuring.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return measuring.measureText(text).width;
}

// The legend's sample of a line, with its dashes; the place along the axis has none.
function sample({ color, faint, dash, points }) {
  const make = (name, attributes) => { const made = document.createElementNS("http://www.w3.org/2000/svg", name); for (const [each, value] of Object.entries(attributes)) made.setAttribute(each, value); return made; };
  const drawn = make("svg", { viewBox: "0 0 24 6", "aria-hidden": "true" }), paint = colour(color, faint ? 0.4 : 1);
  drawn.append(points ? make("circle", { cx: 12, cy: 3, r: 3, fill: paint }) : make("line", { x1: 0, x2: 24, y1: 3, y2: 3, stroke: paint, "stroke-width": 3, ...(dash ? { "stroke-dasharray": dash.join(" ") } : {}) }));
  return drawn;
}

// Ticks of a logarithmic axis: 1, 2 and 5, or round numbers where it spans less than a decade.
export function ticks(low, high, log, wanted = 6) {
  if (!(high > low)) return [low];
  if (log && high / low > 12) {
    const found = [], sparse = high / low > 2000;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const lead of sparse ? [1] : [1, 2, 5]) { const at = lead * 10 ** power; if (at >= low && at <= high) found.push(at); }
    }
    const skip = Math.ceil(found.length / 9);
    return found.filter((_, index) => index % skip === 0);
  }
  const rough = (high - low) / wanted, size = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].map(lead => lead * size).find(each => each >= rough);
  const found = [];
  for (let count = Math.ceil(low / step - 1e-9); count * step <= high + 1e-9 * step; count += 1) found.push(Number((count * step).toPrecision(12)));
  return found;
}

// The last place where every line that does not end before has a value: what the legend shows while nobody points at the picture.
function lastRow(data, series) {
  const whole = data.filter((_, place) => !series[place - 1]?.ends);
  for (let at = data[0].length - 1; at >= Math.max(0, data[0].length - 1000); at -= 1) if (whole.every(column => column[at] !== null && column[at] !== undefined)) return at;
  return data[0].length - 1;
}

// most: the highest place of the y axis; what is higher leaves the picture
// series: [{label, color, width, faint, points, band: [upper index, lower index]}]; data: [x, ...columns], null where nothing is
export function Chart({ series, data, log, range, xLabel, onZoom, height = 320, label, bands, dash, low: floor, most, quiet }) {
  const box = useRef(null), plot = useRef(null);
  const [theme, repaint] = useState(0);
  const latest = useRef({});
  latest.current = { onZoom, range };
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)"), again = () => repaint(count => count + 1);
    query.addEventListener("change", again);
    addEventListener("gradsmith-theme", again);
    return () => { query.removeEventListener("change", again); removeEventListener("gradsmith-theme", again); };
  }, []);
  const shape = JSON.stringify([series, log, xLabel, height, bands, dash, floor, most, theme]);
  useLayoutEffect(() => {
    const soft = colour("--soft"), line = colour("--line");
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 5 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
    const yRange = (low, high) => (floor !== undefined ? [floor, Math.max(high ?? 1, floor + 1)] : low === null ? [0.1, 1] : log ? [low / 1.12, high * 1.12] : low === high ? [low - 1, high + 1] : [low - 0.05 * (high - low), high + 0.05 * (high - low)]);
    const options = {
      width: box.current.clientWidth || 600, height,
      padding: [8, 22, 0, 0],
      scales: {
        x: { time: false, range: (_, low, high) => latest.current.range ?? (low === high ? [low - 1, high + 1] : [low, high]) },
        y: { distr: log ? 3 : 1, range: (_, low, top) => yRange(low, most !== undefined && low !== null && low < most ? Math.min(top, most) : top) },
      },
      axes: [
        { ...axis, label: xLabel, labelSize: 20, size: 34, splits: (u, __, low, high) => ticks(low, high, false, Math.max(3, Math.floor(u.width / 110))), values: (_, found) => found.map(value => (Number.isInteger(value) ? number(value) : tickText(value))) },
        { ...axis, size: (_, found) => Math.ceil(Math.max(30, ...(found ?? []).map(each => widthOf(each))) + 16), splits: (_, __, low, high) => ticks(low, high, log), values: (_, found) => found.map(tickText), filter: (_, found) => found },
      ],
      series: [{ label: xLabel, value: (_, value) => number(value) }, ...series.map(each => ({
        label: each.label, stroke: colour(each.color, each.faint ? 0.4 : 1), width: each.points ? 0 : each.width ?? 1.6, spanGaps: true, dash: each.dash, class: each.silent ? "silent" : undefined,
        fill: undefined, show: each.show ?? true,
        paths: each.points ? () => null : undefined,
        points: each.points ? { show: true, size: 7, fill: colour(each.color), stroke: colour("--card"), width: 1, filter: (u, index) => { const found = []; u.data[index].forEach((value, at) => { if (value !== null && value !== undefined) found.push(at); }); return found; } } : { show: false },
        value: (_, value) => number(value),
      }))],
      bands: bands?.map(each => ({ series: each.series, fill: colour(each.color, 0.14) })),
      cursor: { drag: { x: Boolean(onZoom), y: false, setScale: false }, points: { size: 6 } },
      select: { show: Boolean(onZoom) },
      legend: { show: !quiet, live: true, markers: { width: 0 } },
      hooks: { setCursor: [u => { if (u.cursor.idx === null || u.cursor.left < 0) u.setLegend({ idx: lastRow(u.data, series) }, false); }], setSelect: [u => {
        if (u.select.width < 6) return;
        const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        latest.current.onZoom?.([from, to]);
      }] },
    };
    plot.current = new uPlot(options, data, box.current);
    plot.current.root.querySelectorAll(".u-legend .u-marker").forEach((marker, place) => { if (place) marker.replaceChildren(sample(series[place - 1])); });
    plot.current.setLegend({ idx: lastRow(data, series) }, false);
    plot.current.over.addEventListener("dblclick", () => latest.current.onZoom?.(null));
    const watch = new ResizeObserver(() => { const width = box.current?.clientWidth; if (width && Math.abs(width - plot.current.width) > 1) plot.current.setSize({ width, height }); });
    watch.observe(box.current);
    return () => { watch.disconnect(); plot.current.destroy(); plot.current = null; };
  }, [shape]);
  // with the layout, not after the next frame: a zoom is seen a frame earlier
  const within = range?.join();
  const shown = useRef(within);
  useLayoutEffect(() => {
    const moved = shown.current !== within;
    shown.current = within;
    if (!plot.current || (plot.current.data === data && !moved)) return;
    if (plot.current.data === data) plot.current.setScale("x", { min: range?.[0] ?? data[0][0], max: range?.[1] ?? data[0].at(-1) });
    else plot.current.setData(data);
    if (plot.current.cursor.idx === null || plot.current.cursor.left < 0) plot.current.setLegend({ idx: lastRow(data, series) }, false);
    performance.mark("gradsmith-chart-drawn");
  }, [data, shape, within]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>`;
}

// The canvas as a PNG with the page's ground, and its columns as CSV.
export function pictureOf(element) {
  const drawn = element.querySelector("canvas"), copy = document.createElement("canvas");
  Object.assign(copy, { width: drawn.width, height: drawn.height });
  const context = copy.getContext("2d");
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(drawn, 0, 0);
  return new Promise(resolve => copy.toBlob(resolve, "image/png"));
}

// Mean of the `width` neighbours of each value, over what is known of them.
export function smoothed(values, width) {
  if (width < 2) return values;
  const before = Math.floor((width - 1) / 2), found = new Array(values.length).fill(null);
  let sum = 0, count = 0, low = 0, high = 0;
  for (let at = 0; at < values.length; at += 1) {
    while (high < values.length && high < at - before + width) { if (values[high] !== null) { sum += values[high]; count += 1; } high += 1; }
    while (low < at - before) { if (values[low] !== null) { sum -= values[low]; count -= 1; } low += 1; }
    // an end that lacks neighbours would lean to one side
    found[at] = count && at >= before && (at - before + width <= values.length || values.length < 3 * width) ? sum / count : null;
  }
  return found;
}
