// Figures that answer to the pointer, tables that sort and filter, downloads. Nothing is fetched.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent, (_, v) => (v === "inf" ? Infinity : v === "nan" ? NaN : v));
const short = (key) => key.slice(key.indexOf(".") + 1);
const show = (v) => (v === Infinity ? "∞" : Number.isNaN(v) ? "–" : String(+v.toPrecision(4)));
// Three series have the page's colours, the others these, from the same palette (Okabe and Ito's).
const MORE = { light: ["#cc79a7", "#56b4e9", "#e69f00", "#000000"], dark: ["#cc79a7", "#0072b2", "#f0e442", "#ffffff"] };
const palette = (of, more) => ({ ink: of("ink"), faint: of("faint"), paper: of("paper"), series: ["one", "two", "three"].map(of).concat(more) });
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "cross", "x", "star"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const theme = () => palette(variable, dark.matches ? MORE.dark : MORE.light);
const onWhite = () => palette((name) => data.light[name], MORE.light);
const narrow = () => innerWidth < 620;
const title = (metric) => metric.replace("_", " ").replace(/^(fid|kid)$/, (m) => m.toUpperCase());

function save(name, type, text) {
  const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function button(words, action) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: words });
  made.addEventListener("click", action);
  return made;
}

function choice(words, options, chosen, action) {
  const label = document.createElement("label"), select = document.createElement("select");
  for (const [value, text] of options) select.add(new Option(text, value, false, value === chosen));
  select.addEventListener("change", () => action(select.value));
  label.append(words + " ", select);
  return label;
}

// ---- tables ----

function cellOf(row, column) {
  const cell = row.cells[column], text = cell.dataset.v ?? cell.textContent.trim();
  return text === "inf" ? Infinity : text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
}

function before(a, b) {
  if (a === "" || b === "") return (a === "") - (b === ""); // what is missing comes last
  return typeof a === "number" && typeof b === "number" ? (a < b ? -1 : a > b ? 1 : 0) : String(a).localeCompare(String(b));
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    const words = head.textContent;
    head.textContent = "";
    head.append(button(words, () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [cellOf(row, column), row]);
      rows.sort(([a], [b]) => (a === "" || b === "" ? before(a, b) : up ? before(a, b) : before(b, a)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  });
}

// Words, and comparisons such as fid<100 with the names of columns: all must hold.
function wanted(table, query) {
  const keys = [...table.tHead.rows[0].cells].map((head) => head.dataset.key);
  const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
    const [, key, sign, right] = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/.exec(term) ?? [];
    const column = keys.indexOf(key);
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(term);
    const value = right === "inf" ? Infinity : Number.isNaN(Number(right)) ? right : Number(right);
    return (row) => {
      const cell = cellOf(row, column);
      return cell !== "" && typeof cell === typeof value && compare[sign](cell, value);
    };
  });
  return (row) => terms.every((term) => term(row));
}

for (const tools of document.querySelectorAll(".tools[data-table]")) {
  const table = byId(tools.dataset.table), count = document.createElement("span");
  sortable(table);
  const search = Object.assign(document.createElement("input"), { type: "search", placeholder: "filter: words, or fid<100 sum<=8" });
  search.setAttribute("aria-label", "Filter the table");
  const filter = () => {
    const keep = wanted(table, search.value), rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !keep(row);
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  search.addEventListener("input", filter);
  const csv = button("CSV", () => save(`${table.id}.csv`, "text/csv", byId(`csv-${table.id}`).textContent.replaceAll("&lt;", "<")));
  tools.append(search, count, csv);
  tools.hidden = false;
  filter();
}

// ---- figures: each is a function of its choices and the colours ----

const chosen = { metric: "fid", adjacency: "zero_out", floors: true, over: "fid", heat: "fid", down: data.heat?.[0], across: data.heat?.[1] };
const hover = (p) => `${p.label}<br>${p.seeds} run${p.seeds === 1 ? "" : "s"}`;

function layout(colours, more) {
  const axis = { gridcolor: colours.faint, linecolor: colours.faint, zeroline: false, automargin: true };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
    font: { family: "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif", size: 12, color: colours.ink },
    margin: { l: 50, r: 10, t: 34, b: 46 }, annotations: [], shapes: [], ...more,
  };
  for (const name of Object.keys(made)) if (/^[xy]axis/.test(name)) made[name] = { ...axis, ...made[name] };
  return made;
}

function paretoOf(points, view, metric) {
  const sign = data.directions[metric] === "minimize" ? 1 : -1;
  const sorted = points.filter((p) => p.seeds && !Number.isNaN(p.epsilon[view]) && !Number.isNaN(p.mean[metric]))
    .sort((a, b) => (a.epsilon[view] === b.epsilon[view] ? sign * (a.mean[metric] - b.mean[metric]) : a.epsilon[view] < b.epsilon[view] ? -1 : 1));
  let least = Infinity;
  return [sorted, sorted.filter((p) => sign * p.mean[metric] < least && ((least = sign * p.mean[metric]), true))];
}

function frontFigure(colours) {
  const metric = chosen.metric, traces = [], stacked = narrow();
  const views = Object.keys(data.views), n = views.length, made = {};
  const notes = [], shapes = [];
  views.forEach((named, i) => {
    const view = named.replace("zero_out", chosen.adjacency), number = i ? i + 1 : "";
    const [points, best] = paretoOf(data.points, view, metric), ids = new Set(best.map((p) => p.id));
    const finite = points.flatMap((p) => [p.epsilon[view], p.floor[view]]).filter((e) => e > 0 && e < Infinity).map(Math.log10);
    const low = finite.length ? Math.floor(Math.min(...finite) - 0.05) : 0, high = finite.length ? Math.ceil(Math.max(...finite) + 0.05) : 1;
    const infinite = points.some((p) => p.epsilon[view] === Infinity), infinity = high + 0.14 * (high - low);
    const place = (e) => (e === Infinity ? infinity : e > 0 ? Math.log10(e) : low);
    const edge = infinite ? infinity + 0.1 * (high - low) : high;
    const step = Math.max(1, Math.ceil((high - low) / 6)), ticks = [];
    for (let t = low; t < high + (infinite ? 0 : 0.5); t += step) ticks.push(t);
    const axes = { xaxis: `x${number}`, yaxis: `y${stacked ? number : ""}` };
    const color = colours.series[i], symbol = SYMBOLS[i];
    const trace = (which, marker, text) => traces.push({
      ...axes, type: "scatter", mode: "markers", marker, x: which.map((p) => place(p.epsilon[view])), y: which.map((p) => p.mean[metric]),
      text: which.map((p) => `${hover(p)}<br>ε = ${show(p.epsilon[view])}${p.floor[view] ? ` (audit: ≥ ${show(p.floor[view])})` : ""}<br>${metric} = ${show(p.mean[metric])}${p.interval[metric].length ? ` (${p.interval[metric].map(show).join(" to ")})` : ""}`),
      hovertemplate: "%{text}<extra></extra>", ...text,
    });
    if (chosen.floors) for (const p of points) if (p.floor[view]) traces.push({
      ...axes, type: "scatter", name: "lower bound", mode: "lines+markers", hoverinfo: "skip", opacity: 0.55, line: { color: colours.ink, width: 1 }, marker: { symbol: "line-ns-open", size: 9, color: colours.ink },
      x: [place(p.floor[view]), place(p.epsilon[view])], y: [p.mean[metric], p.mean[metric]],
    });
    trace(points.filter((p) => !ids.has(p.id)), { color, symbol: `${symbol}-open`, size: 6, opacity: 0.65 });
    const half = best.map((p) => (p.interval[metric].length ? (p.interval[metric][1] - p.interval[metric][0]) / 2 : 0));
    trace(best, { color, symbol, size: 9 }, { mode: "lines+markers", line: { color, width: 1.5, shape: "hv" }, error_y: { type: "data", array: half, color, thickness: 1.2, width: 3 } });
    const gap = 0.03, from = stacked ? 0 : i / n + (i ? gap / 2 : 0), to = stacked ? 1 : (i + 1) / n - (i < n - 1 ? gap / 2 : 0);
    const top = stacked ? 1 - i / n : 1, bottom = stacked ? 1 - (i + 1) / n + 0.09 : 0;
    made[`xaxis${number}`] = {
      domain: [from, to], anchor: axes.yaxis, range: [low - 0.03 * (high - low), edge], tickvals: [...ticks, ...(infinite ? [infinity] : [])],
      ticktext: [...ticks.map((t) => (Math.abs(t) < 4 ? String(+(10 ** t).toPrecision(1)) : `10<sup>${t}</sup>`)), ...(infinite ? ["∞"] : [])],
      title: { text: "planned ε", standoff: 4 }, showgrid: true,
    };
    if (stacked || !i) made[`yaxis${stacked ? number : ""}`] = { domain: [bottom, stacked ? top - 0.04 : top], anchor: axes.xaxis, title: { text: title(metric) } };
    notes.push({ text: stacked ? data.views[named].split(":")[0] : data.views[named], xref: "paper", yref: "paper", x: from, y: stacked ? top - 0.04 : 1, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 13 } });
    if (infinite) shapes.push({ type: "rect", layer: "below", xref: axes.xaxis, yref: `${axes.yaxis} domain`, x0: high, x1: edge, y0: 0, y1: 1, fillcolor: colours.faint, opacity: 0.4, line: { width: 0 } });
  });
  return [traces, layout(colours, { ...made, annotations: notes, shapes, height: stacked ? 330 * n : 400 })];
}

// A step between ticks that is 1, 2 or 5 times a power of ten, and no fraction.
function wholeStep(least) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return power * ([1, 2, 5].find((n) => n * power >= least) ?? 10);
}

function roundsFigure(colours) {
  const metric = chosen.over, traces = [], made = {}, notes = [], panels = data.panels;
  const columns = Math.min(narrow() ? 1 : 3, panels.length), rows = Math.ceil(panels.length / columns), few = data.kinds.length <= 7, seen = new Set();
  const height = rows * 190 + 80, gap = 34 / height;
  const last = Math.max(1, ...data.points.flatMap((p) => p.rounds[metric].map((r) => r[0]))), step = wholeStep(last / (narrow() ? 5 : 6));
  panels.forEach((panel, i) => {
    const number = i ? i + 1 : "", column = i % columns, row = Math.floor(i / columns), top = 1 - row / rows, from = column / columns;
    made[`xaxis${number}`] = { domain: [from + (column ? 0.015 : 0), (column + 1) / columns - 0.01], anchor: `y${number}`, matches: i ? "x" : undefined, tick0: 0, dtick: step };
    if (i + columns >= panels.length) made[`xaxis${number}`].title = { text: "round", standoff: 4 };
    made[`yaxis${number}`] = { domain: [top - 1 / rows + gap, top - gap / 2], anchor: `x${number}`, matches: i ? "y" : undefined, showticklabels: !column, title: column ? undefined : { text: title(metric) } };
    notes.push({ text: panel, xref: "paper", yref: "paper", x: from + (column ? 0.015 : 0), y: top - gap / 2, xanchor: "left", yanchor: "bottom", showarrow: false });
    for (const p of data.points) if (p.panel === panel && p.rounds[metric].length) {
      const kind = few ? p.kind % 7 : 0, named = few && data.kinds.length > 1 && !seen.has(p.kind);
      seen.add(p.kind);
      traces.push({
        type: "scatter", mode: p.rounds[metric].length > 12 ? "lines" : "lines+markers", marker: { symbol: SYMBOLS[kind], size: 6 }, xaxis: `x${number}`, yaxis: `y${number}`, x: p.rounds[metric].map((r) => r[0]), y: p.rounds[metric].map((r) => r[1]),
        line: { color: colours.series[kind], width: 1.6, dash: ["solid", "dash", "dot", "dashdot"][kind % 4] }, opacity: few ? 1 : 0.55,
        name: data.kinds[p.kind] ?? p.label, legendgroup: String(p.kind), showlegend: named, hovertemplate: `${p.label}<br>round %{x}: %{y:.4g}<extra></extra>`,
      });
    }
  });
  return [traces, layout(colours, { ...made, annotations: notes, height, showlegend: few && data.kinds.length > 1, legend: { orientation: "h", y: -40 / height, yanchor: "top" } })];
}

function heatFigure(colours) {
  const { down, across, heat } = chosen, value = (p) => p.mean[heat] ?? p.epsilon[heat], slim = narrow();
  const level = (v) => (v === Infinity ? "inf" : slim ? v.replace(/(.{10,}?[+_])/g, "$1<br>") : v); // long names leave the cells no room
  const cells = data.levels[down].map((row) => data.levels[across].map((column) => {
    const found = data.points.filter((p) => p.settings[down] === row && p.settings[across] === column).map(value).filter((v) => !Number.isNaN(v));
    return found.length ? found.reduce((a, b) => a + b) / found.length : null;
  }));
  const drawn = cells.map((row) => row.map((v) => (v === null || v === Infinity ? null : v)));
  return [[{
    type: "heatmap", z: drawn, x: data.levels[across].map(level), y: data.levels[down].map(level), colorscale: "Cividis", text: cells.map((row) => row.map((v) => (v === null ? "" : show(v)))),
    texttemplate: data.levels[across].length <= 12 ? "%{text}" : "", hovertemplate: `${short(down)} %{y}, ${short(across)} %{x}: %{text}<extra></extra>`, xgap: 2, ygap: 2, showscale: !slim, colorbar: { thickness: 12, outlinewidth: 0 },
  }], layout(colours, {
    xaxis: { type: "category", title: { text: short(across) }, showgrid: false }, yaxis: { type: "category", title: { text: short(down), standoff: 12 }, autorange: "reversed", showgrid: false },
    height: 150 + 44 * data.levels[down].length,
  })];
}

const FIGURES = { front: frontFigure, rounds: roundsFigure, heat: heatFigure };

function draw(name) {
  const place = byId(`figure-${name}`);
  if (!place) return;
  const [traces, shape] = FIGURES[name](theme());
  place.classList.add("live");
  const plot = place.querySelector(".plot");
  return Plotly.react(plot, traces, { ...shape, width: plot.clientWidth }, { displayModeBar: false });
}

function controls(name, ...parts) {
  const tools = byId(`figure-${name}`)?.querySelector(".tools");
  if (!tools) return;
  tools.append(...parts, button("SVG", async () => {
    const [traces, shape] = FIGURES[name](onWhite());
    const uri = await Plotly.toImage({ data: traces, layout: { ...shape, width: 1100, paper_bgcolor: "#ffffff" } }, { format: "svg", width: 1100, height: shape.height });
    save(`${name}.svg`, "image/svg+xml", decodeURIComponent(uri.slice(uri.indexOf(",") + 1)));
  }));
  tools.hidden = false;
}

function begin() {
  const metrics = Object.entries(data.metrics).map(([name, words]) => [name, words]);
  const change = (name, key) => (value) => { chosen[key] = value; draw(name); };
  const audited = data.points.some((p) => Object.keys(p.floor).length);
  controls("front", choice("Quality:", metrics, "fid", change("front", "metric")),
    choice("One client is:", [["zero_out", "left out"], ["replace_one", "replaced"]], "zero_out", change("front", "adjacency")),
    ...(audited ? [choice("Audit’s lower bounds:", [["yes", "shown"], ["", "hidden"]], "yes", change("front", "floors"))] : []));
  controls("rounds", choice("Quality:", metrics.filter(([name]) => name in data.points[0].rounds), "fid", change("rounds", "over")));
  if (data.heat) {
    const keys = Object.keys(data.levels).map((key) => [key, short(key)]);
    const values = [...metrics, ...Object.keys(data.points[0].epsilon).map((name) => [name, name.replace("epsilon.", "ε ").replaceAll("_", " ")]), ["seconds", "seconds"], ["uplink_bytes", "bytes sent"]];
    controls("heat", choice("Down:", keys, chosen.down, change("heat", "down")), choice("Across:", keys, chosen.across, change("heat", "across")), choice("Value:", values, "fid", change("heat", "heat")));
  }
  dark.addEventListener("change", () => Object.keys(FIGURES).forEach(draw));
  // Each is as wide as its place, which changes with the window, and with the scroll bar of a page that grows.
  const watch = new ResizeObserver((seen) => {
    for (const { target } of seen) if (target.layout && target.clientWidth && target.clientWidth !== target.layout.width) draw(target.parentNode.id.slice(7));
  });
  document.querySelectorAll(".plot").forEach((plot) => watch.observe(plot));
  // One after the other: the first figure is there before the last is worked out.
  draw("front")?.then(() => {
    performance.mark("first-figure");
    requestAnimationFrame(() => setTimeout(() => { draw("rounds"); draw("heat"); performance.mark("all-figures"); }));
  });
}

// Plotly lies in the page compressed; until it is unpacked, and without it, the drawn figures stand.
(async () => {
  const packed = Uint8Array.from(atob(byId("plotly").textContent), (c) => c.charCodeAt(0));
  const code = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
  byId("plotly").remove();
  begin();
})();
