// Figures that answer to the pointer, tables that sort and filter, downloads. Nothing is fetched.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent, (_, v) => (v === "inf" ? Infinity : v === "nan" ? NaN : v));
const short = (key) => key.slice(key.indexOf(".") + 1);
const show = (v) => (v === Infinity ? "∞" : Number.isNaN(v) ? "–" : String(+v.toPrecision(4)));
const palette = (of) => ({ ink: of("ink"), faint: of("faint"), paper: of("paper"), series: ["one", "two", "three", "four", "five", "six"].map(of) });
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const theme = () => palette(variable);
const onWhite = () => palette((name) => data.light[name]);
const narrow = () => innerWidth < 620;
const falls = (metric) => data.directions[metric] === "minimize"; // less is better
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

const chosen = { metric: "fid", adjacency: "zero_out", floors: true, range: "near", over: "fid", heat: "fid", down: data.heat?.[0], across: data.heat?.[1] };
const hover = (p) => `${p.number}: ${p.label}<br>${p.seeds} run${p.seeds === 1 ? "" : "s"}`;

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

// As `figures.Reach`: an axis as long as people need it, and a strip for what guarantees nothing.
function reachOf(epsilons) {
  const finite = [...new Set(epsilons.filter((e) => e > 0 && e < Infinity))].sort((a, b) => a - b);
  const within = chosen.range === "near" ? finite.filter((e) => e <= data.near) : finite, near = within.length ? within : finite;
  const first = near[0] ?? data.scale[0][0], last = near.at(-1) ?? data.scale[1][0];
  const low = Math.log10(first / 1.25), high = Math.log10(last * 1.25);
  const far = [...new Set(epsilons.filter((e) => e > last))].sort((a, b) => a - b);
  const edge = high + (far.length ? 0.22 * (high - low) : 0);
  const place = (e) => (e > last ? high + ((edge - high) * (far.indexOf(e) + 1)) / (far.length + 1) : e > 0 ? Math.max(Math.log10(e), low) : low);
  let ticks = [];
  for (const digits of [[1], [1, 2, 5], [1, 2, 3, 5, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    ticks = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power++) for (const digit of digits) ticks.push(+(digit * 10 ** power).toPrecision(2));
    ticks = ticks.filter((t) => Math.log10(t) >= low && Math.log10(t) <= high);
    if (ticks.length >= 3) break;
  }
  const beyond = !far.length ? "" : far[0] === Infinity ? "∞" : `> ${last <= data.near ? data.near : show(last)}`;
  return { low, high, edge, last, place, ticks, beyond };
}

// Points by epsilon; of each kind those that are the best so far are on its line.
function marksOf(view, metric) {
  const sign = falls(metric) ? 1 : -1, least = data.kinds.map(() => Infinity);
  return data.points.filter((p) => p.seeds && !Number.isNaN(p.epsilon[view]) && !Number.isNaN(p.mean[metric]))
    .sort((a, b) => (a.epsilon[view] === b.epsilon[view] ? sign * (a.mean[metric] - b.mean[metric]) : a.epsilon[view] < b.epsilon[view] ? -1 : 1))
    .map((p) => {
      const value = sign * p.mean[metric], on = value < least[p.kind];
      if (on) least[p.kind] = value;
      return { p, on };
    });
}

function answerFigure(colours) {
  const slim = narrow(), views = Object.keys(data.views), traces = [], made = {}, notes = [], shapes = [];
  const measured = (metric) => data.points.some((p) => !Number.isNaN(p.mean[metric]));
  const rows = slim ? [chosen.metric] : [chosen.metric, ...data.beside.filter((metric) => metric !== chosen.metric && measured(metric))];
  // Panels: across, views; down, metrics. Where it is narrow, views are below each other.
  const columns = slim ? 1 : views.length, heights = slim ? views.map(() => 300) : rows.map((_, i) => (i ? 170 : 330));
  const gap = slim ? 84 : 22, height = heights.reduce((a, b) => a + b + gap, 0) + 70, foot = 46;
  const tops = heights.map((_, i) => 34 + (data.kinds.length > 1 ? 26 : 0) + heights.slice(0, i).reduce((a, b) => a + b + gap, 0));
  const bottom = tops.at(-1) + heights.at(-1) + foot, up = (pixels) => 1 - (pixels - tops[0]) / (bottom - foot - tops[0]);
  let number = 0;
  const seen = new Set();
  views.forEach((named, column) => {
    const view = named.replace("zero_out", chosen.adjacency);
    const reach = reachOf(data.points.flatMap((p) => (p.seeds && !Number.isNaN(p.epsilon[view]) ? [p.epsilon[view], ...(p.floor[view] ? [p.floor[view]] : [])] : [])));
    rows.forEach((metric, row) => {
      const at = slim ? column : row, id = number ? number + 1 : "", axes = { xaxis: `x${id}`, yaxis: `y${id}` };
      number += 1;
      const from = slim ? 0 : column / columns + (column ? 0.012 : 0), to = slim ? 1 : (column + 1) / columns - 0.004;
      const low = up(tops[at] + heights[at]), high = up(tops[at]), last = slim || row === rows.length - 1;
      const ticks = reach.ticks.map(Math.log10), names = reach.ticks.map((t) => t.toLocaleString("en"));
      made[`xaxis${id}`] = {
        domain: [from, to], anchor: axes.yaxis, range: [reach.low, reach.edge], showgrid: true, showticklabels: last,
        tickvals: [...ticks, ...(reach.beyond ? [(reach.high + reach.edge) / 2] : [])], ticktext: [...names, ...(reach.beyond ? [reach.beyond] : [])],
        title: last ? { text: "planned ε (logarithmic)", standoff: 4 } : undefined,
      };
      made[`yaxis${id}`] = {
        domain: [Math.max(0, low), Math.min(1, high)], anchor: axes.xaxis, matches: !slim && column ? `y${row ? row + 1 : ""}` : undefined,
        showticklabels: slim || !column, title: slim || !column ? { text: heights[at] < 200 ? data.metrics[metric].replace(" (", "<br>(") : data.metrics[metric], standoff: 6 } : undefined,
      };
      if (slim || !row) notes.push({ text: data.views[named], xref: "paper", yref: "paper", x: from, y: high, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: slim ? 11.5 : 13 } });
      if (reach.beyond) shapes.push({ type: "rect", layer: "below", xref: axes.xaxis, yref: `${axes.yaxis} domain`, x0: reach.high, x1: reach.edge, y0: 0, y1: 1, fillcolor: colours.faint, opacity: 0.4, line: { width: 0 } });
      const down = falls(metric); // from the upper left: words stand in the other corners
      for (const [limit, verdict] of data.scale) {
        const at = Math.log10(limit);
        if (at <= reach.low || at >= reach.high) continue;
        shapes.push({ type: "line", layer: "below", xref: axes.xaxis, yref: `${axes.yaxis} domain`, x0: at, x1: at, y0: 0, y1: 1, line: { color: colours.ink, width: 1, dash: "dot" } });
        if (slim || !row) notes.push({ text: `${verdict} ≤ ${limit}`, xref: axes.xaxis, yref: `${axes.yaxis} domain`, x: at, y: down ? 0 : 1, xanchor: at - reach.low > 0.2 * (reach.edge - reach.low) ? "right" : "left", yanchor: down ? "bottom" : "top", showarrow: false, font: { size: 10 } });
      }
      if ((slim || !row) && (reach.beyond || reach.last > data.scale[1][0])) notes.push({ text: `ε > ${data.scale[1][0]}: no meaningful guarantee`, xref: `${axes.xaxis} domain`, yref: `${axes.yaxis} domain`, x: 1, y: down ? 1 : 0, xanchor: "right", yanchor: down ? "top" : "bottom", showarrow: false, font: { size: 10 } });
      const marks = marksOf(view, metric), few = marks.length <= 40, kinds = [...new Set(marks.map(({ p }) => p.kind))].sort();
      // Kinds that have the same epsilons, as in a grid over epsilon, lie a little apart.
      const x = (p, e = p.epsilon[view]) => reach.place(e) + 0.012 * (reach.edge - reach.low) * (kinds.indexOf(p.kind) - (kinds.length - 1) / 2);
      if (chosen.floors) for (const { p } of marks) if (p.floor[view]) traces.push({
        ...axes, type: "scatter", name: "lower bound", showlegend: false, mode: "lines+markers", hoverinfo: "skip", opacity: 0.55, line: { color: colours.ink, width: 1 }, marker: { symbol: "line-ns-open", size: 9, color: colours.ink },
        x: [x(p, p.floor[view]), x(p)], y: [p.mean[metric], p.mean[metric]],
      });
      data.kinds.forEach((words, kind) => {
        const mine = marks.filter(({ p }) => p.kind === kind), color = colours.series[kind], symbol = SYMBOLS[kind];
        if (!mine.length) return;
        const best = mine.filter(({ p, on }) => on && p.epsilon[view] <= reach.last);
        const named = data.kinds.length > 1 && !seen.has(kind);
        seen.add(kind);
        const look = { ...axes, type: "scatter", name: words, legendgroup: String(kind) };
        if (best.length) traces.push({
          ...look, mode: "lines", showlegend: false, hoverinfo: "skip", line: { color, width: 1.6, shape: "hv" },
          x: [...best.map(({ p }) => x(p)), reach.high], y: [...best.map(({ p }) => p.mean[metric]), best.at(-1).p.mean[metric]],
        });
        const pairs = mine.flatMap(({ p }) => (p.two[metric] ?? []).map((value) => [x(p), value]));
        if (pairs.length) traces.push({
          ...look, mode: "markers", showlegend: false, hoverinfo: "skip", marker: { symbol: "line-ew-open", size: 8, color, line: { color, width: 1.4 } },
          x: pairs.map(([at]) => at), y: pairs.map(([, value]) => value),
        });
        traces.push({
          ...look, showlegend: named, mode: few ? "markers+text" : "markers", cliponaxis: false,
          text: mine.map(({ p }) => p.number.slice(1)), textposition: "top right", textfont: { size: 10, color: colours.ink },
          marker: { color: mine.map(({ on }) => (on ? color : colours.paper)), symbol, size: mine.map(({ on }) => (on ? 9 : 7)), line: { color, width: 1.4 } },
          error_y: { type: "data", symmetric: false, array: mine.map(({ p }) => (p.interval[metric]?.length ? p.interval[metric][1] - p.mean[metric] : 0)), arrayminus: mine.map(({ p }) => (p.interval[metric]?.length ? p.mean[metric] - p.interval[metric][0] : 0)), color, thickness: 1.1, width: 0 },
          x: mine.map(({ p }) => x(p)), y: mine.map(({ p }) => p.mean[metric]),
          customdata: mine.map(({ p }) => `${hover(p)}<br>ε = ${show(p.epsilon[view])}${p.floor[view] ? ` (audit: ≥ ${show(p.floor[view])})` : ""}<br>${title(metric)} = ${show(p.mean[metric])}${p.interval[metric]?.length ? ` (${p.interval[metric].map(show).join(" to ")})` : p.two[metric]?.length ? ` (${p.two[metric].map(show).join(" and ")})` : ""}`),
          hovertemplate: "%{customdata}<extra></extra>",
        });
      });
    });
  });
  return [traces, layout(colours, {
    ...made, annotations: notes, shapes, height: bottom, margin: { l: 56, r: 8, t: tops[0], b: foot },
    showlegend: data.kinds.length > 1, legend: { orientation: "h", x: 0, y: 1 + 24 / (bottom - foot - tops[0]), yanchor: "bottom" },
  })];
}

// A step between ticks that is 1, 2 or 5 times a power of ten, and no fraction.
function wholeStep(least) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return power * ([1, 2, 5].find((n) => n * power >= least) ?? 10);
}

function roundsFigure(colours) {
  const metric = chosen.over, traces = [], made = {}, notes = [];
  const begun = data.panels.filter((panel) => data.points.some((p) => p.panel === panel && p.rounds[metric].length));
  const panels = begun.length ? begun : data.panels;
  const columns = Math.min(narrow() ? 1 : 3, panels.length), rows = Math.ceil(panels.length / columns), seen = new Set();
  const height = rows * (panels.length > 1 ? 190 : 300) + 80, gap = 34 / height;
  const last = Math.max(1, ...data.points.flatMap((p) => p.rounds[metric].map((r) => r[0]))), step = wholeStep(last / (narrow() ? 5 : 6));
  panels.forEach((panel, i) => {
    const number = i ? i + 1 : "", column = i % columns, row = Math.floor(i / columns), top = 1 - row / rows, from = column / columns;
    made[`xaxis${number}`] = { domain: [from + (column ? 0.015 : 0), (column + 1) / columns - 0.01], anchor: `y${number}`, matches: i ? "x" : undefined, tick0: 0, dtick: step };
    if (i + columns >= panels.length) made[`xaxis${number}`].title = { text: "round", standoff: 4 };
    made[`yaxis${number}`] = { domain: [top - 1 / rows + gap, top - gap / 2], anchor: `x${number}`, matches: i ? "y" : undefined, showticklabels: !column, title: column ? undefined : { text: data.metrics[metric].replace(" (", "<br>(") } };
    if (panels.length > 1) notes.push({ text: panel, xref: "paper", yref: "paper", x: from + (column ? 0.015 : 0), y: top - gap / 2, xanchor: "left", yanchor: "bottom", showarrow: false });
    for (const p of data.points) if (p.panel === panel && p.rounds[metric].length) {
      const kind = p.kind, named = data.kinds.length > 1 && !seen.has(kind);
      seen.add(p.kind);
      traces.push({
        type: "scatter", mode: p.rounds[metric].length > 12 ? "lines" : "lines+markers", marker: { symbol: SYMBOLS[kind], size: 6 }, xaxis: `x${number}`, yaxis: `y${number}`, x: p.rounds[metric].map((r) => r[0]), y: p.rounds[metric].map((r) => r[1]),
        line: { color: colours.series[kind], width: 1.6, dash: ["solid", "dash", "dot", "dashdot"][kind % 4] },
        name: data.kinds[kind], legendgroup: String(kind), showlegend: named, hovertemplate: `${p.number}: ${p.label}<br>round %{x}: %{y:.4g}<extra></extra>`,
      });
    }
  });
  return [traces, layout(colours, { ...made, annotations: notes, height, showlegend: data.kinds.length > 1, legend: { orientation: "h", y: -40 / height, yanchor: "top" } })];
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
    texttemplate: data.levels[across].length <= 12 ? "%{text}" : "", hovertemplate: `${short(down)} %{y}, ${short(across)} %{x}: %{text}<extra></extra>`, xgap: 2, ygap: 2, showscale: !slim, colorbar: { thickness: 12, outlinewidth: 0, title: { text: (data.metrics[heat] ?? heat.replace("epsilon.", "ε ").replaceAll("_", " ")).replace(" (", "<br>("), font: { size: 11 } } },
  }], layout(colours, {
    xaxis: { type: "category", title: { text: short(across) }, showgrid: false }, yaxis: { type: "category", title: { text: short(down), standoff: 12 }, autorange: "reversed", showgrid: false },
    height: 150 + 44 * data.levels[down].length,
  })];
}

const FIGURES = { answer: answerFigure, rounds: roundsFigure, heat: heatFigure };

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
  const near = data.points.some((p) => Object.values(p.epsilon).some((e) => e <= data.near));
  const audited = data.points.some((p) => Object.keys(p.floor).length);
  controls("answer", choice("Quality:", metrics, "fid", change("answer", "metric")),
    choice("One client is:", [["zero_out", "left out"], ["replace_one", "replaced"]], "zero_out", change("answer", "adjacency")),
    ...(near ? [choice("Axis:", [["near", `ε ≤ ${data.near} where a point is`], ["all", "all ε"]], "near", change("answer", "range"))] : []),
    ...(audited ? [choice("Audit’s lower bounds:", [["yes", "shown"], ["", "hidden"]], "yes", change("answer", "floors"))] : []));
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
  Promise.resolve(draw("answer")).then(() => {
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
