// Where the time went: of each step by what ran in it, and of the whole run by what it was for.

const MOST_CALLS = 8;
const MOST_COLUMNS = 120;
const STACK_HEIGHT = 220;
const HINT = "Point at a column, or use the arrow keys, for its numbers.";

function mean(numbers) {
  const known = numbers.filter((number) => number !== null && number !== undefined);
  return known.length ? known.reduce((sum, number) => sum + number, 0) / known.length : 0;
}

// The calls of a run's steps in the order of a step; the smallest ones are one.
function callsOf(run) {
  const names = Object.keys(run.metrics.mean).filter((name) => /^timing_s\/[^/]+$/.test(name) && !DATA.phases.parts.includes(name.slice(9)));
  const calls = names.map((name) => {
    const [phase, role] = Object.hasOwn(DATA.phases.calls, name.slice(9)) ? DATA.phases.calls[name.slice(9)] : ["other", ""];
    const seconds = values(run.metrics, "mean", name);
    return {name: name.slice(9), phase, role, values: seconds, mean: seconds.reduce((sum, value) => sum + (value ?? 0), 0) / seconds.length};
  });
  calls.sort((one, other) => other.mean - one.mean);
  const rest = calls.splice(MOST_CALLS);
  const place = (call) => DATA.phases.order.indexOf(call.phase);
  calls.sort((one, other) => place(one) - place(other));
  if (rest.length) {
    const sums = run.metrics.steps.map((_, at) => rest.reduce((sum, call) => sum + (call.values[at] ?? 0), 0));
    calls.push({name: counted(rest.length, "more call"), phase: "", role: "", values: sums, mean: mean(sums)});
  }
  return calls;
}

function columnsOf(run, calls) {
  const steps = run.metrics.steps;
  const whole = values(run.metrics, "mean", "timing_s/step") ?? steps.map(() => null);
  const width = Math.max(1, Math.ceil(steps.length / MOST_COLUMNS));
  const columns = [];
  for (let start = 0; start < steps.length; start += width) {
    const cut = (numbers) => mean(numbers.slice(start, start + width));
    columns.push({first: steps[start], last: steps[Math.min(start + width, steps.length) - 1], step: cut(whole),
      parts: calls.map((call) => cut(call.values))});
  }
  return columns;
}

function stackImage(holder, readout, run, calls) {
  const columns = columnsOf(run, calls);
  const sums = columns.map((column) => column.parts.reduce((sum, part) => sum + part, 0));
  const ys = [0, Math.max(...sums, ...columns.map((column) => column.step), 1e-6) * 1.04];
  const width = holder.clientWidth;
  const stepAt = (place) => (Number.isInteger(place) && columns[place] ? String(columns[place].first) : "");
  const plot = Object.assign(frame(width, STACK_HEIGHT, [-0.5, columns.length - 0.5], ys, stepAt, (seconds) => `${numberText(seconds)} s`), {from: -0.5, to: columns.length - 0.5});
  const image = svg("svg", {viewBox: `0 0 ${width} ${STACK_HEIGHT}`, height: STACK_HEIGHT, tabindex: "0", role: "img",
    "aria-label": "seconds of steps by call"}, ...plot.parts);
  const size = (plot.area.right - plot.area.left) / columns.length;
  columns.forEach((column, place) => {
    let sum = 0;
    column.parts.forEach((part, at) => {
      const [foot, top] = [plot.y(sum), plot.y(sum + part)];
      image.append(svg("rect", {class: `f${at}`, x: plot.x(place - 0.5) + size * 0.06, width: Math.max(0.5, size * 0.88), y: top, height: Math.max(0, foot - top)}));
      sum += part;
    });
  });
  image.append(svg("path", {class: "total", d: pathOf(columns.map((_, place) => place), columns.map((column) => column.step), plot.x, plot.y)}));
  probe(image, plot, columns.map((_, place) => place), (place) => {
    const column = place === null ? null : columns[place];
    const steps = column && (column.first === column.last ? `step ${column.first}` : `steps ${column.first} to ${column.last}`);
    readout.replaceChildren(...(column ? [el("span", {}, `${steps}: ${secondsText(column.step)}`),
      ...column.parts.map((part, at) => part ? el("span", {}, swatch(`f${at}`), ` ${secondsText(part)}`) : null).filter(Boolean)]
      : [HINT]));
  });
  readout.replaceChildren(HINT);
  return image;
}

function stepTimes(holder, run) {
  const calls = callsOf(run);
  if (!calls.length) {
    holder.replaceChildren(empty("No times of steps were written."));
    return;
  }
  const step = mean(values(run.metrics, "mean", "timing_s/step") ?? []);
  const pools = Object.keys(run.metrics.mean).filter((name) => name.startsWith("timing_s/idle/"));
  const readout = el("div", {class: "readout"});
  const picture = el("div", {});
  const rows = calls.map((call, place) => [el("td", {}, swatch(`f${place}`), " ", call.name), call.role, call.phase, secondsText(call.mean), step ? shareText(call.mean / step) : "–"]);
  for (const name of pools) {
    const idle = mean(values(run.metrics, "mean", name));
    rows.push([`pool ${name.slice(14)} idle`, "", "", secondsText(idle), step ? shareText(idle / step) : "–"]);
  }
  holder.replaceChildren(
    el("p", {class: "quiet"}, `A step took ${secondsText(step)} on average (the line). The columns are the calls of its methods, each as long as on its slowest rank`
      + (pools.length > 1 ? "; roles with pools of their own work at the same time, so that calls add up to more than the step." : ".")),
    el("div", {class: "card"}, readout, picture), el("h3", {}, "Mean of a step"), table(["call", "role", "phase", "time", "share of the step"], rows, [3, 4]));
  if (picture.clientWidth) picture.append(stackImage(picture, readout, run, calls));
}

function spentBars() {
  const known = RUNS.filter((run) => run.record.spent && Object.keys(run.record.spent).length);
  if (!known.length) return null;
  const kinds = ["steps", "validations", "start", "saves", "lost_work", "detection", "restart", "other"];
  const bars = known.map((run) => {
    const spent = kinds.map((kind) => Number(run.record.spent[kind]) || 0);
    const total = spent.reduce((sum, part) => sum + part, 0) || 1;
    const bar = el("div", {class: "spent", role: "img", "aria-label": `seconds of ${run.label}`});
    spent.forEach((part, place) => {
      const piece = el("span", {class: `f${place}`, title: `${kinds[place].replace("_", " ")}: ${secondsText(part)}`});
      piece.style.width = `${100 * part / total}%`;
      if (part) bar.append(piece);
    });
    const largest = kinds.map((kind, place) => [kind.replace("_", " "), spent[place]]).filter(([, part]) => part > 0);
    return el("div", {}, el("h4", {}, `${run.label}: ${secondsText(total)}`), bar,
      el("p", {class: "quiet"}, largest.map(([kind, part]) => `${kind} ${secondsText(part)}`).join(" · ")));
  });
  return el("div", {}, el("h3", {}, "Of the whole run"),
    el("div", {class: "legend"}, ...kinds.map((kind, place) => el("span", {}, swatch(`f${place}`), kind.replace("_", " ")))), ...bars);
}

function times() {
  const holder = el("div", {});
  let chosen = 0;
  const draw = () => stepTimes(holder, RUNS[chosen]);
  put(section("times"), RUNS.length > 1 ? el("div", {class: "controls"},
    chooser("run", RUNS.map((run) => run.label), (place) => { chosen = place; draw(); })) : null, holder, spentBars());
  REDRAWS.push(draw);
  draw();
}
