// The curves of all metrics: those that people look at first, then every group of names, and a search.

const LOOKED_AT = [
  "reward/mean", "validation/accuracy", "validation/loss", "cost/mean", "actor/kl", "actor/entropy", "actor/grad_norm", "actor/pg_loss",
  "response_length/mean", "rollout/truncated_fraction", "actor/rollout_log_prob_diff_mean", "rollout/version_lag_mean",
  "actor/nll", "actor/dpo_loss", "actor/dpo_accuracy", "reward_model/loss", "reward_model/accuracy", "critic/value_loss",
  "critic/vf_explained_var", "timing_s/step", "perf/tokens_per_s",
];
const MOST_FOUND = 60;  // charts of a search
let smoothing = 0;

function values(shown, kind, name) {
  if (!Object.hasOwn(shown[kind], name)) return undefined;  // one may be called as what every object has
  const found = shown[kind][name];
  return Array.isArray(found) ? found : shown.steps.map(() => found);
}

function linesOf(name) {
  const lines = [];
  for (const {run, place} of shownRuns()) {
    for (const shown of [run.metrics, run.validations]) {
      const found = values(shown, "mean", name);
      if (!found) continue;
      lines.push({run: place, steps: shown.steps, values: found, low: values(shown, "low", name), high: values(shown, "high", name),
        dots: shown === run.validations, marks: failuresOf(run).map((event) => event.step).filter((step) => typeof step === "number")});
    }
  }
  return lines;
}

function metricNames() {
  const names = RUNS.flatMap((run) => [...Object.keys(run.metrics.mean), ...Object.keys(run.validations.mean)]);
  return [...new Set(names)].sort();
}

function curves() {
  const holder = section("curves");
  const all = metricNames();
  if (!all.length) {
    holder.append(empty("No metrics were written yet."));
    return;
  }
  const cards = [];
  const grid = (names) => {
    const made = names.map((name) => lineCard(name, () => linesOf(name), () => smoothing));
    cards.push(...made);
    return el("div", {class: "charts"}, ...made.map(({card}) => card));
  };
  const draw = () => cards.forEach((card) => card.draw());
  const found = el("div", {});
  const groups = el("div", {});
  const search = el("input", {type: "search", placeholder: "name of a metric", "aria-label": "search a metric", oninput: () => {
    const wanted = search.value.trim().toLowerCase();
    groups.classList.toggle("hidden", Boolean(wanted));
    const names = wanted ? all.filter((name) => name.toLowerCase().includes(wanted)) : [];
    found.replaceChildren(...(!wanted ? [] : names.length ? [grid(names.slice(0, MOST_FOUND))] : [empty("No metric has that in its name.")]));
    draw();
  }});
  const shown = el("output", {}, "0");
  const slider = el("input", {type: "range", min: 0, max: 0.98, step: 0.02, value: 0, "aria-label": "smoothing", oninput: () => {
    smoothing = Number(slider.value);
    shown.textContent = String(smoothing);
    draw();
  }});
  slider.value = 0;
  put(holder, el("div", {class: "controls"}, el("label", {}, "smoothing", slider, shown), search), curvesNote(), found, groups);
  const first = LOOKED_AT.filter((name) => all.includes(name));
  groups.append(grid(first.length ? first : all.slice(0, 12)));
  const kinds = [...new Set(all.map((name) => name.split("/")[0]))];
  for (const kind of kinds) {
    const names = all.filter((name) => name.split("/")[0] === kind);
    const details = el("details", {class: "group", ontoggle: () => {
      if (details.open && details.childElementCount === 1) details.append(grid(names));
      draw();
    }}, el("summary", {}, `${kind} (${names.length})`));
    groups.append(details);
  }
  REDRAWS.push(draw);
  draw();
}

function curvesNote() {
  const most = Math.max(...RUNS.map((run) => run.metrics.every));
  const failed = RUNS.some((run) => failuresOf(run).length);
  const notes = [];
  if (most > 1) notes.push(`Points are means of up to ${counted(most, "step")}, the shade behind a line goes from the least to the largest of them.`);
  if (failed) notes.push("Dashed upright lines are failures.");
  return notes.length ? el("p", {class: "quiet"}, notes.join(" ")) : null;
}
