"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const byName = new Map(data.cells.map((cell) => [cell.cell, cell]));
const $ = (id) => document.getElementById(id);

// Text reaches the page as text alone, never as markup.
function make(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  const parts = Array.isArray(content) ? content : content === null || content === undefined ? [] : [content];
  element.append(...parts.map((part) => (part instanceof Node ? part : String(part))));
  return element;
}
const fixed = (number, digits = 2) => (number === null || number === undefined ? "" : number.toFixed(digits));
const whole = (number) => (number === null || number === undefined ? "" : Math.round(number).toLocaleString("en"));
const interval = (set) => `${fixed(set.drop)} [${fixed(set.low)}, ${fixed(set.high)}]`;

function table(heads, rows, label) {
  const head = make("tr", heads.map((text, i) => make("th", text, { scope: "col", class: i ? "number" : "" })));
  const body = rows.map((row) =>
    make("tr", row.map((value, i) => make(i ? "td" : "th", value, i ? { class: "number" } : { scope: "row" }))));
  const found = make("table", [make("thead", head), make("tbody", body)]);
  return make("div", found, { class: "scroll", tabindex: "0", role: "region", "aria-label": label });
}

// ---- theme

const themes = ["system", "light", "dark"];
const system = window.matchMedia("(prefers-color-scheme: dark)");
let theme = "system";
try { theme = themes.includes(localStorage.theme) ? localStorage.theme : theme; } catch { /* kept nowhere */ }
let printing = false; // paper is light
const dark = () => !printing && (theme === "dark" || (theme === "system" && system.matches));
function applyTheme() {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  $("theme").textContent = `Theme: ${theme}`;
  $("theme").setAttribute("aria-label", `Theme: ${theme}. Change it`);
  redraw();
}
$("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  try { localStorage.theme = theme; } catch { /* kept nowhere */ }
  applyTheme();
});
system.addEventListener("change", applyTheme);

// ---- figures

const drawn = new Map(); // element of a chart that is in sight or was: its specification
const narrow = () => document.documentElement.clientWidth < 700;
// Panels are as wide as print wants them: here they take the width that there is.
function fitted(spec, room) {
  const found = structuredClone(spec);
  if (narrow() && found.columns) found.columns = 1;
  const panels = found.facet ? [found.spec] : found.concat || [];
  const columns = Math.min(found.columns || 1, found.concat ? panels.length : 3);
  for (const panel of panels) {
    if (typeof panel.width !== "number") continue;
    const labels = found.concat ? 215 : narrow() ? 75 : 40;
    const width = Math.max(panel.width, Math.min(300, Math.floor((room - 60) / columns) - labels));
    if (typeof panel.height === "number") panel.height = Math.round((panel.height * width) / panel.width);
    panel.width = width;
  }
  return found;
}
function draw(element, spec) {
  drawn.set(element, spec);
  const config = structuredClone(data.themes[dark() ? "dark" : "light"]);
  if (narrow()) Object.assign(config.legend, { columns: 2, labelLimit: 125 });
  for (const part of ["axis", "legend", "header", "title"])
    for (const size of Object.keys(config[part]).filter((name) => name.endsWith("ontSize"))) config[part][size] += 1;
  const options = {
    ast: true, renderer: "svg", config, mode: "vega-lite",
    actions: { export: true, source: false, compiled: false, editor: false },
    tooltip: { theme: dark() ? "dark" : "light" },
  };
  return vegaEmbed(element, fitted(spec, element.clientWidth), options).then(({ view }) => {
    element.dataset.ready = "true";
    view.addEventListener("click", (event, item) => {
      const name = item && item.mark.marktype !== "group" && item.datum && item.datum.cell;
      if (byName.has(name)) open(name);
    });
  });
}
const specification = (element) => data.figures[element.parentElement.dataset.figure].spec;
function redraw() {
  for (const [element, spec] of drawn) if (element.isConnected) draw(element, spec); else drawn.delete(element);
}
let width = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  const now = document.documentElement.clientWidth;
  if ((now < 700) !== (width < 700)) redraw();
  width = now;
});
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    sight.unobserve(entry.target);
    draw(entry.target, specification(entry.target));
  }
}, { rootMargin: "600px" });
const charts = document.querySelectorAll("figure .chart");
for (const element of charts) sight.observe(element);
// What was never in sight is to be on paper, too.
function print(begins) {
  printing = begins;
  if (begins) for (const element of charts) drawn.set(element, specification(element));
  applyTheme();
}
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));

// ---- table of cells

const columns = [
  { name: "grouping or rule", of: (c) => c.way, text: true },
  { name: "model", of: (c) => c.model, text: true },
  { name: "search", of: (c) => setting(c, "search"), text: true },
  { name: "seed", of: (c) => setting(c, "seed"), show: whole },
  { name: "tolerance", of: (c) => setting(c, "tolerance"), show: (n) => String(n ?? "") },
  { name: "schedule", of: (c) => setting(c, "schedule"), text: true },
  { name: "% left", of: (c) => c.left, show: (n) => fixed(n, 1) },
  { name: "test BLEU", of: (c) => c.sets && c.sets.test.bleu, show: (n) => fixed(n) },
  { name: "drop [95 %]", of: (c) => c.sets && c.sets.test.drop, show: (n, c) => (c.sets ? interval(c.sets.test) : "") },
  { name: "confirm drop", of: (c) => c.sets && c.sets.confirm.drop, show: (n) => fixed(n) },
  { name: "tokens", of: (c) => c.spent && c.spent.tokens, show: whole },
  { name: "status", of: (c) => c.status, text: true },
  { name: "grid", of: (c) => c.grid, text: true },
];
const setting = (cell, name) => cell.config[name] ?? data.common[name];
const filters = {};
// a column that says the same of all cells says nothing
const visible = columns.filter((one, i) => i < 2 || !one.text || new Set(data.cells.map(one.of)).size > 1);
let sorted = { column: 1, up: true };
let shown = 50;

function option(value, text) { return make("option", text, { value }); }
function buildFilters() {
  const find = make("input", null, { type: "search", placeholder: "any text" });
  find.addEventListener("input", () => { filters.text = find.value.toLowerCase(); refilter(); });
  $("filters").append(make("label", ["Find", find]));
  for (const column of visible.filter((one) => one.text)) {
    const values = [...new Set(data.cells.map(column.of))].filter((v) => v !== undefined).sort();
    if (values.length < 2) continue;
    const select = make("select", [option("", "all"), ...values.map((v) => option(v, v))], { "aria-label": column.name });
    select.addEventListener("change", () => { filters[column.name] = select.value; refilter(); });
    $("filters").append(make("label", [column.name, select]));
  }
  $("filters").addEventListener("submit", (event) => event.preventDefault());
}
function refilter() { shown = 50; fill(); }
function chosen() {
  const words = (filters.text || "").split(/\s+/).filter(Boolean);
  const rows = data.cells.filter((cell) =>
    visible.every((column) => !filters[column.name] || column.of(cell) === filters[column.name]) &&
    words.every((word) => `${cell.cell} ${columns.map((one) => one.of(cell)).join(" ")}`.toLowerCase().includes(word)));
  const { of } = visible[sorted.column];
  const sign = sorted.up ? 1 : -1;
  return rows.sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x === y) return (a.left ?? Infinity) - (b.left ?? Infinity) || (a.cell < b.cell ? -1 : 1);
    if (x === undefined || x === null) return 1; // what has no number comes last, either way
    if (y === undefined || y === null) return -1;
    return (x < y ? -1 : 1) * sign;
  });
}
function buildHead() {
  const row = make("tr", visible.map((column, i) => {
    const button = make("button", column.name, { type: "button" });
    button.addEventListener("click", () => {
      sorted = { column: i, up: sorted.column === i ? !sorted.up : true };
      fill();
    });
    return make("th", button, { scope: "col", class: column.text ? "" : "number" });
  }));
  document.querySelector("#table thead").append(row);
}
function fill() {
  const rows = chosen();
  document.querySelectorAll("#table thead th").forEach((head, i) => {
    head.setAttribute("aria-sort", i !== sorted.column ? "none" : sorted.up ? "ascending" : "descending");
  });
  $("count").textContent = `${rows.length} of ${data.cells.length} cells`;
  document.querySelector("#table tbody").replaceChildren(...rows.slice(0, shown).map((cell) => {
    const row = make("tr", visible.map((column, i) => {
      const value = column.of(cell);
      const text = column.show ? column.show(value, cell) : value ?? "";
      if (i) return make("td", text, { class: column.text ? "" : "number" });
      return make("th", make("button", text, { type: "button", class: "link", title: cell.cell }), { scope: "row" });
    }));
    row.addEventListener("click", () => open(cell.cell));
    return row;
  }));
  $("more").hidden = rows.length <= shown;
}
$("more").addEventListener("click", () => { shown += 200; fill(); });

// ---- one cell

function open(name) {
  const cell = byName.get(name);
  if (!cell) return;
  $("cell-title").textContent = cell.cell;
  const parts = cell.status === "failed" ? failure(cell) : [...results(cell), ...translations(cell)];
  $("cell-body").replaceChildren(...parts, configuration(cell));
  if (!$("cell").open) $("cell").showModal();
  $("cell").scrollTop = 0;
  history.replaceState(null, "", `#cell=${encodeURIComponent(name)}`);
  const chart = $("cell-body").querySelector(".chart");
  if (chart) draw(chart, curve(cell));
}
$("close").addEventListener("click", () => $("cell").close());
$("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });
$("cell").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));

function failure(cell) {
  const { reason, message, traceback } = cell.failure;
  return [make("h3", `Failed: ${reason}`), make("p", message), make("pre", traceback, { tabindex: "0" })];
}
function results(cell) {
  const sets = Object.entries(cell.sets).map(([name, set]) =>
    [name, fixed(set.dense_bleu), fixed(set.bleu), interval(set), fixed(set.dense_chrf), fixed(set.chrf)]);
  const groups = cell.groups.map(([name, connections, pruned, threshold]) => {
    const bar = make("span", make("i", null), { class: "share", "aria-hidden": "true" });
    const percent = (100 * pruned) / connections;
    bar.firstChild.style.width = `${percent}%`;
    return [name, whole(connections), make("span", [bar, fixed(percent, 1)]), threshold.toPrecision(3)];
  });
  const spent = Object.entries(cell.spent).map(([name, value]) => [name.replaceAll("_", " "), whole(value)]);
  const left = [
    make("p", `${fixed(cell.left, 1)} % of the prunable connections are left, ${fixed(cell.left_of_all, 1)} % of all parameters.`),
    make("h3", "BLEU and chrF"), table(["set", "dense", "pruned", "drop [95 %]", "dense chrF", "chrF"], sets, "BLEU and chrF"),
    make("h3", "Thresholds by group"), table(["group", "connections", "% pruned", "threshold |w|"], groups, "Thresholds by group"),
  ];
  const right = [];
  if (cell.curve) right.push(make("h3", "Candidates"), make("div", null, { class: "scroll chart", tabindex: "0", role: "region", "aria-label": "Size of candidates over delivered tokens" }));
  right.push(make("h3", "What it took"), table(["", ""], spent, "What it took"));
  return [make("div", [make("div", left), make("div", right)], { class: "columns" }), ...errors(cell)];
}
function errors(cell) {
  if (!cell.errors) return [];
  const { sentences, better, worse, same, precisions, ratio } = cell.errors;
  const rows = precisions.map(([dense, pruned], i) =>
    [`${i + 1}-gram precision, %`, fixed(dense, 1), fixed(pruned, 1), fixed(pruned - dense, 1)]);
  rows.push(["length, of the references'", fixed(ratio[0], 3), fixed(ratio[1], 3), fixed(ratio[1] - ratio[0], 3)]);
  return [
    make("h3", "What it gets wrong on test"),
    make("p", `Of ${whole(sentences)} sentences ${whole(worse)} are translated worse than by the dense model, ${whole(better)} better, ${whole(same)} as well as before (GLEU).`),
    table(["", "dense", "pruned", "change"], rows, "What it gets wrong on test"),
  ];
}
function translations(cell) {
  if (!cell.sentences) return [make("p", "The translations are not on this page: it was made without their text.", { class: "note" })];
  const [test, dense] = [data.texts[cell.text[0]], data.dense[cell.text[1]]];
  const items = cell.sentences.map(([index, pruned, change]) => {
    const [source, reference] = test[index];
    const [before, after] = differences(dense[index], pruned);
    const lines = [["source", source], ["reference", reference], ["dense", before], ["pruned", after]];
    const list = make("dl", lines.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    return make("div", [make("p", `Sentence ${index + 1}: ${change > 0 ? "+" : ""}${fixed(change, 0)} GLEU`, { class: "note" }), list], { class: "sentence" });
  });
  return [
    make("h3", "Translations that differ most"),
    make("p", ["Words that only the dense model has are ", make("mark", "struck out", { class: "gone" }), ", those that only the pruned one has ",
      make("mark", "underlined", { class: "new" }), ". GLEU is from 0 to 100, for one sentence."], { class: "note" }),
    ...items,
  ];
}
// The longest common subsequence of words; what is not in it is marked.
function differences(before, after) {
  const [a, b] = [before.split(" "), after.split(" ")];
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const [left, right] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { left.push(a[i++], " "); right.push(b[j++], " "); }
    else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) left.push(make("mark", a[i++], { class: "gone" }), " ");
    else right.push(make("mark", b[j++], { class: "new" }), " ");
  }
  return [left, right];
}
function configuration(cell) {
  const all = { ...data.common, ...cell.config };
  const rows = Object.keys(all).sort().map((name) => [name, String(all[name])]);
  return make("details", [make("summary", "Configuration"), table(["field", "value"], rows, "Configuration")]);
}
function curve(cell) {
  let best = 100;
  const values = cell.curve.map(([tokens, size, drop, feasible]) => {
    if (feasible) best = Math.min(best, size);
    return { tokens, size, drop, candidate: feasible ? "within the tolerance" : "loses too much", best };
  });
  const x = { field: "tokens", type: "quantitative", title: "delivered tokens", axis: { format: "~s", tickCount: 5 } };
  const scale = { zero: false, domain: [Math.max(0, best - 8), Math.min(100, best + 20)] }; // the edge, not the scan
  const kinds = ["within the tolerance", "loses too much"];
  return {
    data: { values }, width: Math.min(320, document.documentElement.clientWidth - 130), height: 180,
    layer: [
      { mark: { type: "point", size: 22, tooltip: true, clip: true }, encoding: { x, y: { field: "size", type: "quantitative", title: "% left", scale },
        color: { field: "candidate", type: "nominal", scale: { domain: kinds }, title: null },
        shape: { field: "candidate", type: "nominal", scale: { domain: kinds }, title: null } } },
      { mark: { type: "line", interpolate: "step-after", strokeWidth: 1.5, clip: true }, encoding: { x, y: { field: "best", type: "quantitative", scale } } },
    ],
  };
}

for (const button of document.querySelectorAll("button.open")) button.addEventListener("click", () => open(button.dataset.cell));
buildFilters();
buildHead();
fill();
applyTheme();
if (location.hash.startsWith("#cell=")) open(decodeURIComponent(location.hash.slice(6)));
})();
