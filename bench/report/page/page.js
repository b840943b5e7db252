"use strict";
// Sorting, filtering, theme and plots. All texts come from the document or its JSON blocks and are set as text.

const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// -- theme: what the system prefers, until the button is pressed ---------------------------------------------------

const themeButton = document.getElementById("theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try { return localStorage.getItem("fusebench-theme"); } catch { return null; } // storage may be forbidden
}

function setTheme(theme) {
  root.dataset.theme = theme;
  themeButton.textContent = theme === "dark" ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Change to the ${theme === "dark" ? "light" : "dark"} theme`);
  all(".live").forEach((place) => place.drawn && draw(place));
}

root.classList.add("scripted");
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("fusebench-theme", theme); } catch { /* it holds for this visit */ }
  setTheme(theme);
});
prefersDark.addEventListener("change", () => remembered() || setTheme(prefersDark.matches ? "dark" : "light"));

// -- tables --------------------------------------------------------------------------------------------------------

const collator = new Intl.Collator("en", { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function sortBy(table, column, descending, numeric) {
  const body = table.tBodies[0];
  const sign = descending ? -1 : 1;
  const rows = [...body.rows].sort((a, b) => {
    if (!numeric) return sign * collator.compare(a.cells[column].textContent, b.cells[column].textContent);
    const [x, y] = [key(a, column), key(b, column)];
    if (x === null || y === null) return (x === null) - (y === null); // what has no number stands last either way
    return sign * (x - y);
  });
  body.append(...rows);
  table.classList.add("sorted");
}

for (const table of all("table[id]")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      const before = heading.getAttribute("aria-sort");
      // scores are read from the best, names from the first
      const descending = before === "none" ? numeric : before === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending, numeric);
    });
  });
}

for (const block of all(".table")) {
  const controls = block.querySelector(".controls");
  if (!controls) continue;
  const rows = [...block.querySelector("tbody").rows];
  const text = controls.querySelector("input");
  const chips = all(".chip", controls);
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = {};
    for (const chip of chips.filter((one) => one.getAttribute("aria-pressed") === "true")) {
      (chosen[chip.parentElement.dataset.kind] ??= []).push(chip.dataset.choice);
    }
    let shown = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      const fits = words.every((word) => content.includes(word))
        && Object.entries(chosen).every(([kind, names]) => names.includes(row.dataset[kind]));
      row.hidden = !fits;
      shown += fits;
    }
    controls.querySelector(".count").textContent = `${shown} of ${rows.length} rows`;
  };
  text.addEventListener("input", filter);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  filter();
}
all(".controls").forEach((controls) => { controls.hidden = false; });

// -- places --------------------------------------------------------------------------------------------------------

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (target) target.scrollIntoView();
}
window.addEventListener("hashchange", openTarget);
let before;
window.addEventListener("beforeprint", () => {
  all(".live").forEach((place) => place.drawn || draw(place));
  before = root.dataset.theme;
  setTheme("light");
});
window.addEventListener("afterprint", () => setTheme(before));

const contents = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const link = contents.get(entry.target.id);
    if (entry.isIntersecting) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-10% 0px -85% 0px" });
all("main > section").forEach((section) => reading.observe(section));

// -- plots ---------------------------------------------------------------------------------------------------------

const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;

function colour(name, alpha = 1) {
  probe.style.color = `var(--${name})`;
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

const series = (place, alpha) => colour(`series-${(place % 8) + 1}`, alpha);
// plotly reads a few tags in its texts; names are names
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function axis(title, more) {
  return { title: { text: title }, gridcolor: colour("line"), linecolor: colour("quiet"), zeroline: false,
    ticks: "outside", tickcolor: colour("quiet"), automargin: true, ...more };
}

function layout(x, y, more) {
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("quiet"), font: { color: colour("ink") }, align: "left" },
    margin: { l: 55, r: 15, t: 15, b: 60 }, xaxis: x, yaxis: y, showlegend: false, ...more };
}

function rocTraces(data, chosen) {
  const chance = { x: [0, 1], y: [0, 1], mode: "lines", hoverinfo: "skip", line: { color: colour("quiet"), width: 1, dash: "dot" } };
  const traces = data.curves.map((curve, place) => ({
    x: curve.fpr, y: curve.tpr, mode: "lines", name: plain(curve.name), meta: place,
    hovertemplate: "<b>%{fullData.name}</b><br>false positives %{x:.3f}<br>sensitivity %{y:.3f}<br>%{text}<extra></extra>",
    text: curve.fpr.map(() => plain(curve.auc)), opacity: chosen < 0 || chosen === place ? 1 : 0.25,
    line: { color: series(place), dash: DASHES[Math.floor(place / 8) % 4], width: chosen === place ? 3.5 : 1.8 },
  }));
  const curve = data.curves[chosen];
  const band = curve ? [
    { x: curve.fpr, y: curve.low, mode: "lines", line: { width: 0 }, hoverinfo: "skip" },
    { x: curve.fpr, y: curve.high, mode: "lines", line: { width: 0 }, hoverinfo: "skip", fill: "tonexty", fillcolor: series(chosen, 0.2) },
  ] : [];
  return [chance, ...band, ...traces];
}

function costTraces(data, chosen) {
  const largest = Math.max(...data.points.map((point) => point.size));
  let best = -Infinity; // the line: each point that is more accurate than all that are faster
  const front = [...data.points].sort((a, b) => a.x - b.x || b.y - a.y).filter((p) => p.y > best && ((best = p.y), true));
  const line = { x: front.map((p) => p.x), y: front.map((p) => p.y), mode: "lines", hoverinfo: "skip",
    line: { shape: "hv", color: colour("quiet"), width: 1.5 } };
  const points = data.points.map((point, place) => ({
    x: [point.x], y: [point.y], mode: "markers", name: plain(point.name), meta: place,
    error_y: chosen === place && point.high !== null
      ? { type: "data", symmetric: false, array: [point.high - point.y], arrayminus: [point.y - point.low], color: series(place) } : undefined,
    hovertemplate: "<b>%{fullData.name}</b><br>%{text}<extra></extra>", text: [plain(point.text).replaceAll("\n", "<br>")],
    opacity: chosen < 0 || chosen === place ? 1 : 0.35,
    marker: { size: 9 + 41 * Math.sqrt(point.size / largest), color: series(place, 0.45), symbol: SYMBOLS[Math.floor(place / 8) % 8],
      line: { color: series(place), width: point.front ? 3 : 1.5 } },
  }));
  return [line, ...points];
}

const LATENCY_TICKS = [1, 2, 5].flatMap((digit) => Array.from({ length: 12 }, (_, power) => digit * 10 ** (power - 5)));
const LATENCIES = { tickvals: LATENCY_TICKS, ticktext: LATENCY_TICKS.map((value) => String(Number(value.toPrecision(3)))) };

const KINDS = {
  roc: (data, chosen) => [rocTraces(data, chosen), layout(
    axis("1 − specificity (false positive rate)", { range: [-0.01, 1.01], constrain: "domain" }),
    axis("sensitivity (true positive rate)", { range: [-0.01, 1.01], scaleanchor: "x", constrain: "domain" }))],
  cost: (data, chosen) => [costTraces(data, chosen), layout(
    axis(data.x_title, { type: "log", ...LATENCIES }), axis(data.y_title, {}))],
};

function draw(place) {
  const data = JSON.parse(document.getElementById(`data-${place.dataset.plot}`).textContent);
  const [traces, shape] = KINDS[data.kind](data, place.chosen ?? -1);
  Plotly.react(place, traces, shape, { displayModeBar: false, responsive: true });
  if (place.drawn) return;
  place.drawn = true;
  place.on("plotly_hover", (event) => {
    const found = event.points[0].data.meta;
    if (found !== undefined && found !== place.chosen) choose(place, found);
  });
}

function choose(place, chosen) {
  place.chosen = chosen;
  const select = document.querySelector(`[data-highlight="${place.dataset.plot}"]`);
  select.value = String(chosen);
  requestAnimationFrame(() => draw(place));
}

all("[data-highlight]").forEach((select) => select.addEventListener("change", () => {
  const place = document.querySelector(`[data-plot="${select.dataset.highlight}"]`);
  place.chosen = Number(select.value);
  draw(place);
}));

setTheme(remembered() ?? (prefersDark.matches ? "dark" : "light"));
// a plot is drawn when it comes near, so that the page opens at once
const coming = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
  coming.unobserve(entry.target);
  draw(entry.target);
}), { rootMargin: "600px" });
all(".live").forEach((place) => coming.observe(place));
openTarget();
