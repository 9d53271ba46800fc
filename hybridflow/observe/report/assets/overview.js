// The runs at a glance, which of them are shown, and what went wrong in them.

const MOST_CHANGES = 3;
const MOST_OF_A_VALUE = 32;  // characters

function validated(run) {
  const found = run.validations.mean["validation/accuracy"];
  return Array.isArray(found) ? found[found.length - 1] : found ?? run.evaluation?.numbers.accuracy;
}

function failuresOf(run) {
  return run.events.filter((event) => event.event === "failure");
}

function legend() {
  const holder = section("runs-legend");
  RUNS.forEach((run, place) => {
    const box = el("input", {type: "checkbox", checked: true, onchange: () => {
      if (box.checked) SHOWN.add(place);
      else SHOWN.delete(place);
      redraw();
    }});
    box.checked = true;
    holder.append(el("label", {}, RUNS.length > 1 ? box : null, swatch(colorOf(place)), run.label));
  });
}

function statusCell(run) {
  const bad = ["failed", "killed"].includes(run.status);
  return el("td", {class: "name"}, el("span", {class: bad ? "alarming" : null}, run.status),
    run.attempts > 1 ? ` (in ${run.attempts} processes)` : "");
}

// What sets a run apart from the others: the first of its own settings, and how many there are more.
function changesCell(run) {
  const own = differing().filter(([key]) => Object.hasOwn(run.settings, key));
  const short = (text) => (text.length > MOST_OF_A_VALUE ? `${text.slice(0, MOST_OF_A_VALUE - 1)}…` : text);
  const told = own.slice(0, MOST_CHANGES).map(([key]) => el("div", {}, `${key}=${short(run.settings[key])}`));
  const more = own.length - told.length;
  return el("td", {class: "key"}, ...told, more > 0 ? el("a", {href: "#differences"}, `and ${more} more`) : null);
}

function overview() {
  const several = RUNS.length > 1;
  const head = ["run", "status", "steps", "time", "accuracy", "goodput", "alarms", "failures", "started", ...(several ? ["differs in"] : [])];
  const rows = RUNS.map((run, place) => [
    el("td", {class: "name"}, swatch(colorOf(place)), " ", run.label),
    statusCell(run),
    numberText(run.record.steps ?? 0),
    secondsText(run.record.seconds),
    numberText(validated(run)),
    shareText(run.record.goodput),
    el("td", {class: `number ${run.alarms.length ? "alarming" : ""}`}, run.alarms.length),
    el("td", {class: `number ${failuresOf(run).length ? "alarming" : ""}`}, failuresOf(run).length),
    el("td", {class: "name"}, String(run.record.started ?? "–").replace("+00:00", " UTC").replace("T", " ")),
    ...(several ? [changesCell(run)] : []),
  ]);
  section("overview").append(table(head, rows, [2, 3, 4, 5, 6, 7]));
  RUNS.filter((run) => run.record.error).forEach((run) => section("overview").append(
    el("div", {class: "card alarm"}, el("h4", {}, `${run.label}: how it ended`), el("pre", {}, run.record.error))));
}

function stepsText(alarm) {
  const [first, last] = [alarm.first_step, alarm.step];
  if (first === null) return last === null ? "" : `step ${last}`;
  return last === null || first === last ? `step ${first}` : `steps ${first} to ${last}`;
}

function alarms() {
  const holder = section("alarms");
  const found = RUNS.flatMap((run) => run.alarms.map((alarm) => ({run, alarm})));
  const blank = RUNS.filter((run) => !run.metrics.steps.length);
  if (!found.length && blank.length < RUNS.length) {
    holder.append(el("p", {class: "fine"}, "No alarm: nothing in the metrics points to a known cause of trouble."));
  }
  if (blank.length === RUNS.length) holder.append(empty("There are no metrics of steps, by which alarms are raised."));
  else if (blank.length) holder.append(empty(`Without metrics of steps, by which alarms are raised: ${blank.map((run) => run.label).join(", ")}.`));
  for (const {run, alarm} of found) {
    holder.append(el("article", {class: "card alarm"},
      el("h4", {}, String(alarm.name ?? "").replaceAll("_", " "), RUNS.length > 1 ? ` in ${run.label}` : ""),
      el("p", {class: "quiet"}, [stepsText(alarm), alarm.seen].filter(Boolean).join(": ")),
      el("p", {}, alarm.cause ?? ""), el("p", {}, alarm.advice ?? ""),
      alarm.page ? el("p", {class: "quiet"}, `More, in the documentation of hybridflow: ${alarm.page}`) : null));
  }
}
