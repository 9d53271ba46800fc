// What each rank did in a step: lanes by pool and rank, bars by call, colors by role.

const LANE = 24;  // pixels of a rank
const MOST_LANES = 64;
const FILLS = 9;

function timelineImage(holder, readout, shown, step, zoom) {
  const lanes = shown.lanes.slice(0, MOST_LANES);
  const roles = [...new Set(shown.names.map((name) => name.split(".")[0]))];
  const bars = step.bars.filter(([lane]) => lane < lanes.length);
  const begin = Math.min(0, ...bars.map((bar) => bar[2])) / 1e6;
  const end = Math.max(step.seconds, ...bars.map((bar) => (bar[2] + bar[3]) / 1e6)) || 1e-6;
  const labels = lanes.map(([pool, rank]) => `${pool} ${rank}`);
  const left = 14 + CHARACTER * Math.min(18, Math.max(...labels.map((label) => label.length)));
  const width = Math.max(260, holder.clientWidth - 2) * zoom;
  const height = lanes.length * LANE + 26;
  const x = (seconds) => left + (seconds - begin) / (end - begin) * (width - left - 12);
  const image = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "calls by rank over time"});
  image.style.width = `${width}px`;
  labels.forEach((label, lane) => image.append(
    svg("rect", {class: "lane", x: left, y: lane * LANE + 2, width: width - left - 12, height: LANE - 4}),
    svg("text", {x: 2, y: lane * LANE + LANE / 2 + 4}, label.slice(0, 18))));
  for (const seconds of ticks(begin, end, Math.max(2, Math.floor((width - left) / 90)))) {
    image.append(svg("line", {class: "axis", x1: x(seconds), x2: x(seconds), y1: 0, y2: height - 20}),
      svg("text", {x: x(seconds), y: height - 5, "text-anchor": "middle"}, `${numberText(seconds)} s`));
  }
  for (const [lane, name, from, length] of bars) {
    const call = shown.names[name];
    const wide = x((from + length) / 1e6) - x(from / 1e6);
    const tell = () => { readout.textContent = `${call} on rank ${lanes[lane][1]} of pool ${lanes[lane][0]}: ${secondsText(length / 1e6)}, from ${numberText(from / 1e6)} s on`; };
    const text = wide > CHARACTER * call.length + 6 ? call : wide > CHARACTER * (call.length - call.indexOf(".")) + 4 ? call.slice(call.indexOf(".") + 1) : "";
    image.append(svg("g", {onpointerenter: tell, onpointerdown: tell},
      svg("rect", {class: `bar f${roles.indexOf(call.split(".")[0]) % FILLS}`, x: x(from / 1e6), y: lane * LANE + 3, width: Math.max(1, wide), height: LANE - 6}),
      text ? svg("text", {class: "inside", x: x(from / 1e6) + 4, y: lane * LANE + LANE / 2 + 4}, text) : null));
  }
  return {image, roles, left: shown.lanes.length - lanes.length};
}

function callTable(shown, step) {
  const byName = new Map();
  for (const [lane, name, , length] of step.bars) {
    const known = byName.get(name) ?? {calls: 0, lanes: new Set(), longest: 0, sum: 0};
    known.calls += 1;
    known.lanes.add(lane);
    known.longest = Math.max(known.longest, length);
    known.sum += length;
    byName.set(name, known);
  }
  const rows = [...byName].sort((one, other) => other[1].sum - one[1].sum).map(([name, known]) =>
    [shown.names[name], known.calls, known.lanes.size, secondsText(known.longest / 1e6), secondsText(known.sum / 1e6)]);
  return el("details", {}, el("summary", {}, "Calls of this step"), table(["call", "calls", "ranks", "longest", "all ranks"], rows, [1, 2, 3, 4]));
}

function timelineOf(holder, run) {
  const shown = run.timeline;
  if (!shown) {
    holder.replaceChildren(empty("No timeline was written (trainer.timeline_every)."));
    return;
  }
  const picture = el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "timeline"});
  const readout = el("p", {class: "quiet", "aria-live": "polite"});
  const under = el("div", {});
  const last = shown.steps.length - 1;
  let chosen = Math.min(Math.ceil(shown.steps.length / 2), last);
  let zoom = 1;
  const draw = () => {
    if (!picture.clientWidth) return;
    const step = shown.steps[chosen];
    const {image, roles, left} = timelineImage(picture, readout, shown, step, zoom);
    readout.textContent = "Point at a bar, or touch it, for its call.";
    const notes = [left ? `${counted(left, "more rank")} not shown` : "", step.all > step.bars.length ? `the longest ${step.bars.length} of ${step.all} calls` : ""];
    picture.replaceChildren(image);
    under.replaceChildren(el("div", {class: "legend"}, ...roles.map((role, place) => el("span", {}, swatch(`f${place % FILLS}`), role))),
      el("p", {class: "quiet"}, notes.filter(Boolean).join("; ")), callTable(shown, step));
  };
  const labels = shown.steps.map((step) => (step.step === null ? "before the first" : `${step.step} (${secondsText(step.seconds)})`));
  const zooms = [1, 2, 4, 8, 16];
  const kept = shown.steps.length < shown.kept ? ` ${shown.steps.length} of ${shown.kept} that the run has written.` : "";
  holder.replaceChildren(el("div", {class: "controls"}, chooser("step", labels, (place) => { chosen = place; draw(); }, chosen),
    chooser("zoom", zooms.map((size) => `× ${size}`), (place) => { zoom = zooms[place]; draw(); })),
    el("p", {class: "quiet"}, `A line is a rank of a pool, a bar a call; a gap is idle time.${kept}`), readout, picture, under);
  holder.draw = draw;
  draw();
}

function timeline() {
  const holder = el("div", {});
  const first = Math.max(0, RUNS.findIndex((run) => run.timeline));
  put(section("timeline"), RUNS.length > 1 ? el("div", {class: "controls"},
    chooser("run", RUNS.map((run) => run.label), (place) => timelineOf(holder, RUNS[place]), first)) : null, holder);
  timelineOf(holder, RUNS[first]);
  REDRAWS.push(() => holder.draw && holder.draw());
}
