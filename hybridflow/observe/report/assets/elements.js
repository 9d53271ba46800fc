// What the rest of the page is built with: elements that hold text and no markup, numbers as text, and the runs.
// Whatever a model or a person wrote goes through `el` or `textContent`; nothing here makes markup of text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const SHOWN = new Set(RUNS.map((_, place) => place));
const REDRAWS = [];  // called when other runs are shown, or the page has another width
// Four runs in turn have one kind of line, in colors that color-blind eyes tell apart; no two of 24 runs look alike.
const COLORS = [[0, 1, 2, 6], [3, 4, 5, 7]];
const LINES = ["", "dashed", "dotted", "dashdot", "dashed", "solid"];
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : String(child)));
  return element;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Appends what is there of some children.
function put(holder, ...children) {
  return fill(holder, {}, children);
}

function section(id) {
  return document.getElementById(id);
}

function colorOf(run) {
  const four = Math.floor(run / 4);
  return `c${COLORS[four % COLORS.length][run % 4]} ${LINES[four % LINES.length]}`.trim();
}

function swatch(kind) {
  return el("span", {class: `swatch ${kind}`, "aria-hidden": "true"});
}

function shownRuns() {
  return RUNS.map((run, place) => ({run, place})).filter(({place}) => SHOWN.has(place));
}

function numberText(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (Number.isInteger(value) && size < 1e9) return String(value).replace("-", "−");
  const text = size >= 1e6 || size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e")
    : String(Number(value.toPrecision(4)));
  return text.replace("-", "−").replace("e-", "e−");
}

function secondsText(seconds) {
  if (typeof seconds !== "number") return "–";
  if (seconds < 0.001) return `${numberText(seconds * 1e6)} µs`;
  if (seconds < 1) return `${numberText(Number((seconds * 1e3).toPrecision(3)))} ms`;
  if (seconds < 120) return `${numberText(Number(seconds.toPrecision(3)))} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 120) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function shareText(share) {
  return typeof share === "number" ? `${(100 * share).toFixed(1)} %` : "–";
}

function counted(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

// A choice of one of some values; `choose` is called with the place of the chosen one.
function chooser(label, options, choose, chosen = 0) {
  const select = el("select", {"aria-label": label, onchange: () => choose(Number(select.value))},
    ...options.map((text, place) => el("option", {value: place, selected: place === chosen}, text)));
  return el("label", {}, label, select);
}

function table(head, rows, numbers = []) {
  const of = (place) => (numbers.includes(place) ? "number" : null);
  return el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ")},
    el("table", {},
      el("thead", {}, el("tr", {}, ...head.map((text, place) => el("th", {class: of(place), scope: "col"}, text)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, place) =>
        cell instanceof Node && cell.tagName === "TD" ? cell : el("td", {class: of(place)}, cell)))))));
}

function facts(pairs) {
  return el("dl", {class: "facts"}, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function empty(text) {
  return el("p", {class: "empty"}, text);
}

function redraw() {
  REDRAWS.forEach((draw) => draw());
}
