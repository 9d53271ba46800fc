// Charts as SVG, drawn at the width that they have, so that their text is as large as the page's.

const HEIGHT = 150;
const CHARACTER = 6.4;  // pixels of a character on an axis

function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9 && found.length < 50; place += 1) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

function domain(values, padded) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) return padded ? [low - Math.max(0.5, Math.abs(low) * 0.1), high + Math.max(0.5, Math.abs(high) * 0.1)] : [low - 0.5, high + 0.5];
  const room = padded ? (high - low) * 0.05 : 0;
  return [low - room, high + room];
}

// An exponential mean over the points before, each weighed from the first on as if there had been many.
function smoothed(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

function frame(width, height, xs, ys, xText = numberText, yText = numberText) {
  const yTicks = ticks(ys[0], ys[1], 4);
  const left = 10 + CHARACTER * Math.max(1, ...yTicks.map((value) => yText(value).length));
  const area = {left, right: width - 10, top: 8, bottom: height - 20};
  const x = (value) => area.left + (value - xs[0]) / (xs[1] - xs[0]) * (area.right - area.left);
  const y = (value) => area.bottom - (value - ys[0]) / (ys[1] - ys[0]) * (area.bottom - area.top);
  const parts = [];
  for (const value of yTicks) {
    parts.push(svg("line", {class: "grid", x1: area.left, x2: area.right, y1: y(value), y2: y(value)}));
    parts.push(svg("text", {x: area.left - 5, y: y(value) + 4, "text-anchor": "end"}, yText(value)));
  }
  parts.push(svg("line", {class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom}));
  for (const value of ticks(xs[0], xs[1], Math.max(2, Math.floor((area.right - area.left) / 70)))) {
    parts.push(svg("text", {x: x(value), y: height - 5, "text-anchor": "middle"}, xText(value)));
  }
  return {area, x, y, parts};
}

function pathOf(xs, ys, x, y) {
  let text = "";
  let drawing = false;
  xs.forEach((step, place) => {
    const value = ys[place];
    if (value === null) {
      drawing = false;
      return;
    }
    text += `${drawing ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    drawing = true;
  });
  return text;
}

function bandOf(xs, low, high, x, y) {
  const places = xs.map((_, place) => place).filter((place) => low[place] !== null && high[place] !== null);
  const upper = places.map((place) => `${x(xs[place]).toFixed(1)} ${y(high[place]).toFixed(1)}`);
  const lower = places.reverse().map((place) => `${x(xs[place]).toFixed(1)} ${y(low[place]).toFixed(1)}`);
  return upper.length ? `M${[...upper, ...lower].join("L")}Z` : "";
}

function nearest(steps, wanted) {
  let best = 0;
  steps.forEach((step, place) => {
    if (Math.abs(step - wanted) < Math.abs(steps[best] - wanted)) best = place;
  });
  return best;
}

// Lets a chart tell what stands at a place: of the pointer, a finger, or the arrow keys.
function probe(image, plot, xs, tell) {
  const cursor = svg("line", {class: "cursor", y1: plot.area.top, y2: plot.area.bottom, visibility: "hidden"});
  image.append(cursor);
  let at = null;
  const show = (place) => {
    at = place === null ? null : Math.max(0, Math.min(xs.length - 1, place));
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) {
      cursor.setAttribute("x1", plot.x(xs[at]));
      cursor.setAttribute("x2", plot.x(xs[at]));
    }
    tell(at === null ? null : xs[at]);
  };
  const point = (event) => {
    const box = image.getBoundingClientRect();
    const share = (event.clientX - box.left - plot.area.left) / (plot.area.right - plot.area.left);
    show(nearest(xs, plot.from + share * (plot.to - plot.from)));
  };
  image.addEventListener("pointermove", point);
  image.addEventListener("pointerdown", point);
  image.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(null); });
  image.addEventListener("keydown", (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    show(at === null ? (by > 0 ? 0 : xs.length - 1) : at + by);
  });
}

// A card with curves over steps. `lines`: of each its run, steps, values and, of buckets, low and high.
function lineCard(title, linesOf, weightOf) {
  const readout = el("div", {class: "readout", "aria-live": "polite"});
  const holder = el("div", {});
  const card = el("div", {class: "card", "data-metric": title}, el("h4", {}, title), readout, holder);
  const draw = () => {
    if (!holder.isConnected || !holder.clientWidth) return;
    const lines = linesOf();
    const weight = weightOf();
    const smooth = (line) => weight && !line.dots;  // a validation stands for itself
    const curves = lines.map((line) => smooth(line) ? smoothed(line.values, weight) : line.values);
    const xs = domain(lines.flatMap((line) => line.steps), false);
    const ys = domain(lines.flatMap((line, place) => [...curves[place], ...line.values]), true);
    const plot = Object.assign(frame(holder.clientWidth, HEIGHT, xs, ys), {from: xs[0], to: xs[1]});
    const image = svg("svg", {viewBox: `0 0 ${holder.clientWidth} ${HEIGHT}`, height: HEIGHT, tabindex: "0", role: "img",
      "aria-label": `${title} over steps`}, ...plot.parts);
    lines.forEach((line, place) => {
      const color = colorOf(line.run);
      const inside = (value) => (value === null ? null : Math.min(ys[1], Math.max(ys[0], value)));
      if (line.low) image.append(svg("path", {class: `band ${color}`, d: bandOf(line.steps, line.low.map(inside), line.high.map(inside), plot.x, plot.y)}));
      if (smooth(line)) image.append(svg("path", {class: `line raw ${color}`, d: pathOf(line.steps, line.values, plot.x, plot.y)}));
      image.append(svg("path", {class: `line ${color}`, d: pathOf(line.steps, curves[place], plot.x, plot.y)}));
      const alone = (at) => (line.values[at - 1] ?? null) === null && (line.values[at + 1] ?? null) === null;  // no line meets it
      line.steps.forEach((step, at) => {
        if (line.values[at] !== null && (line.dots || alone(at))) {
          image.append(svg("circle", {class: `dot ${color}`, cx: plot.x(step), cy: plot.y(curves[place][at]), r: 2.6}));
        }
      });
      for (const step of line.marks) {
        if (step >= xs[0] && step <= xs[1]) image.append(svg("line", {class: "mark", x1: plot.x(step), x2: plot.x(step), y1: plot.area.top, y2: plot.area.bottom}));
      }
    });
    const tell = (step) => readout.replaceChildren(...[step === null ? null : el("span", {}, `step ${numberText(step)}`),
      ...lines.map((line, place) => {
        const at = step === null ? curves[place].findLastIndex((value) => value !== null) : nearest(line.steps, step);
        return el("span", {}, swatch(colorOf(line.run)), " ", numberText(curves[place][at]));
      })].filter(Boolean));
    const places = [...new Set(lines.flatMap((line) => line.steps))].sort((one, other) => one - other);
    if (places.length) probe(image, plot, places, tell);
    tell(null);
    holder.replaceChildren(image);
  };
  return {card, draw};
}
