// Numbers, times and differences as people read them.

const WHOLE = new Intl.NumberFormat("en"); // toLocaleString makes one each time

export const number = value => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return WHOLE.format(value);
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2).replace("e+", "e").replace("-", "−") : String(Number(value.toPrecision(3)));
};

// The same at the tick of an axis: no zeros that only take room.
export const tickText = value => {
  const size = Math.abs(value);
  return value && (size >= 1e5 || size < 1e-3) ? Number(value.toPrecision(3)).toExponential().replace("e+", "e").replace("-", "−").replace("e-", "e−") : number(value);
};

export const percent = share => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);

export const duration = seconds => {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return "under 1 s";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 600) return `${(seconds / 60).toFixed(1).replace(".0", "")} min`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
};

export const ago = (text, now) => {
  const seconds = Math.max(0, (now - Date.parse(text)) / 1000);
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  if (seconds < 86400 * 30) return `${Math.round(seconds / 86400)} d ago`;
  return new Date(text).toLocaleDateString();
};

export const moment = text => (text ? new Date(text).toLocaleString() : "–");

export const bytes = count => {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let place = 0;
  while (count >= 1000 && place < units.length - 1) { count /= 1000; place += 1; }
  return `${place ? count.toPrecision(3) : count} ${units[place]}`;
};

export const shortId = id => `${id.split("_")[0]}_…${id.slice(-6)}`;

// {a: {b: 1}} -> [["a.b", 1]]; lists stay whole
export const flat = (value, prefix = "") => {
  if (value === null || typeof value !== "object" || Array.isArray(value) || !Object.keys(value).length) return [[prefix, value]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, prefix ? `${prefix}.${name}` : name));
};

export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export const shown = value => {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(each => (typeof each === "object" ? each?.family ?? JSON.stringify(each) : shown(each))).join(", ") : "none";
  if (typeof value === "object") return Object.keys(value).length ? JSON.stringify(value) : "none";
  return typeof value === "number" ? number(value) : String(value);
};

// A setting's value: a seed is a name rather than a quantity, and is shown digit by digit.
export const shownAs = (name, value) => (/(^|[._])seed$/.test(name) && typeof value === "number" ? String(value) : shown(value));

// An axis of a sweep in words: `0.001…0.03 log`, or the values that are tried.
const axisText = ({ kind, path, values, low, high, log }) => (kind === "choices" ? values.map(value => shownAs(path.at(-1), value)).join(", ") : `${number(low)}…${number(high)}${log ? " log" : ""}`);

// What of a job's spec is not as its family has it, for people: a sweep's fields have all that is tried of them.
export function changesShown(job, family) {
  const axes = family && job.spec?.space;
  if (!axes) return changesOf(job, family);
  const at = axes.map(axis => axis.path.join("."));
  const others = changesOf(job, family).filter(({ part, path }) => { const here = [part, ...path].join("."); return !at.some(axis => axis === here || here.startsWith(`${axis}.`)); });
  return [...others, ...axes.map(axis => {
    const [part, ...path] = axis.path;
    return { part, path, name: (part === "recipe" ? path : axis.path).join("."), value: axisText(axis), usual: axis.path.reduce((value, name) => value?.[name], family), swept: true };
  })];
}

// What of a job's spec is not as its family has it: [{part, path, name, value, usual}].
export function changesOf(job, family) {
  const { spec } = job;
  if (!spec?.family || !family) return [];
  const found = [];
  const compare = (part, path, mine, usual) => {
    if (!mine || !usual) return;
    const place = [...(part === "recipe" ? [] : [part]), ...path].join(".");
    if (path.length && mine.kind !== undefined && mine.kind !== usual.kind) {
      found.push({ part, path, name: place, value: mine.kind, usual: usual.kind });
      return;
    }
    for (const [name, value] of Object.entries(mine)) {
      const before = usual[name];
      if (same(value, before)) continue;
      if (value && before && typeof value === "object" && typeof before === "object" && !Array.isArray(value) && Object.keys(before).length) compare(part, [...path, name], value, before);
      else found.push({ part, path: [...path, name], name: place ? `${place}.${name}` : name, value, usual: before });
    }
  };
  compare("tasks", [], spec.family.tasks, family.tasks);
  if (spec.recipe) compare("recipe", [], spec.recipe, family.recipe);
  if (spec.evaluation && job.kind !== "preview") compare("evaluation", [], spec.evaluation, { ...family.evaluation, ...(spec.recipe ? { horizon: spec.recipe.horizon, on: spec.recipe.on } : {}) });
  return found;
}

// What counts of an optimizer's evaluations: the one by which the server answers whether to use it, else the newest.
export const evaluationOf = optimizer => optimizer?.evaluations.find(each => each.decides) ?? optimizer?.evaluations[0];

// What somebody typed as a label: `key=value key2=value2`
export const labelsOf = text => Object.fromEntries(text.split(/[\s,]+/).filter(part => part.includes("=")).map(part => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]));
