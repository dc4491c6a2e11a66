// The body of a function that a test runs in the page: see chromium.ask.
const table = document.getElementById("points"), heads = [...table.tHead.rows[0].cells];
const at = heads.findIndex((head) => head.dataset.key === "fid");
const column = () => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].dataset.v);
heads[at].querySelector("button").click();
const up = column(), upSort = heads[at].getAttribute("aria-sort");
heads[at].querySelector("button").click();
const down = column();
const search = document.querySelector('.tools[data-table="points"] input');
const filter = (text) => { search.value = text; search.dispatchEvent(new Event("input")); return column(); };
const below = filter("fid<" + up[2]), flip = filter("flip=0.1 sum<inf").length, none = filter("nothing has this");
filter("");
const drawn = () => document.querySelector("#figure-answer .plot").data.filter((trace) => trace.name === "lower bound").map((trace) => trace.x);
const selects = document.querySelectorAll("#figure-answer select"), shown = drawn();
selects[3].value = ""; selects[3].dispatchEvent(new Event("change"));
const floors = { shown, hidden: drawn() };
const metric = selects[0];
metric.value = "coverage"; metric.dispatchEvent(new Event("change"));
await new Promise((done) => setTimeout(done, 300));
const figures = {};
for (const name of ["answer", "rounds", "heat"]) {
  const place = document.getElementById("figure-" + name), svg = place.querySelector(".plot svg.main-svg");
  figures[name] = {
    size: [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height],
    place: place.querySelector(".plot").clientWidth,
    titles: [...place.querySelectorAll("text[class$=title]")].map((title) => title.textContent),
    across: [...place.querySelectorAll(".xtick text")].map((tick) => tick.textContent),
    marks: place.querySelectorAll(".plot .point, .plot .js-line, .plot .hm image").length,
    fixed: getComputedStyle(place.querySelector(".static")).display,
  };
}
return { up, upSort, down, below, flip, none, figures, floors, axis: document.querySelector("#figure-answer .ytitle").textContent };
