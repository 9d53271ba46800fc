// What the runs' records say: answers to held-out questions, events, settings, versions.

function evaluations() {
  const holder = section("evaluation");
  const asked = RUNS.filter((run) => run.evaluation);
  if (!asked.length) {
    holder.append(empty("No held-out questions were answered."));
    return;
  }
  const names = [...new Set(asked.flatMap((run) => Object.keys(run.evaluation.numbers)))];
  const rows = names.map((name) => [el("td", {class: "key"}, name), ...asked.map((run) => run.evaluation.numbers[name] ?? "–")]);
  holder.append(table(["", ...asked.map((run) => run.label)], [["answers of", ...asked.map((run) => run.evaluation.of)], ...rows]),
    ...asked.flatMap((run) => run.evaluation.compared).map((text) => el("p", {}, text)));
}

function eventCell(event) {
  const cell = el("td", {class: "long"}, el("span", {class: event.bad ? "alarming" : null}, event.text));
  const more = event.error !== null && !event.text.endsWith(event.error);
  if (more) cell.append(el("details", {}, el("summary", {}, "the whole error"), el("pre", {}, event.error)));
  return cell;
}

function events() {
  const holder = section("events");
  const all = RUNS.flatMap((run) => run.events.map((event) => ({run, event}))).sort((one, other) => (one.event.time < other.event.time ? -1 : 1));
  if (!all.length) {
    holder.append(empty("No events were written."));
    return;
  }
  const kinds = [...new Set(all.map(({event}) => event.event))].sort();
  const body = el("div", {});
  const several = RUNS.length > 1;
  const draw = (place) => {
    const found = all.filter(({event}) => !place || event.event === kinds[place - 1]);
    const head = ["time (UTC)", ...(several ? ["run"] : []), "event", "step", "what"];
    body.replaceChildren(table(head, found.map(({run, event}) => [
      el("td", {class: "name"}, event.time.slice(0, 19).replace("T", " ")), ...(several ? [run.label] : []),
      event.event, numberText(event.step), eventCell(event)]), [several ? 3 : 2]));
  };
  const lost = RUNS.filter((run) => run.events.length < run.all_events).map((run) => `${run.label}: ${run.events.length} of ${run.all_events} events are shown`);
  holder.append(el("div", {class: "controls"}, chooser("event", ["all", ...kinds], draw)), el("p", {class: "quiet"}, lost.join("; ")), body);
  draw(0);
}

const MOST_DIFFERENCES = 12;  // rows at first
const SECTIONS = ["algorithm", "actor", "task", "reward", "rollout", "critic", "reference", "environment", "trainer", "placement"];

// The settings that differ, those of a command line first: of each its keys, which have the same values in every run.
function differing() {
  const keys = [...new Set(RUNS.flatMap((run) => Object.keys(run.settings)))].filter((key) => !["run.name", "run.root"].includes(key));
  const given = (key) => RUNS.some((run) => run.command.includes(` ${key}=`) || run.command.includes(` +${key}=`));
  const section = (key) => SECTIONS.indexOf(key.split(".")[0]);
  const rank = (key) => (given(key) ? 0 : section(key) < 0 ? 1 + SECTIONS.length : 1 + section(key));
  keys.sort((one, other) => rank(one) - rank(other) || (one < other ? -1 : 1));
  const folded = new Map();
  for (const key of keys) {
    const alike = JSON.stringify(RUNS.map((run) => run.settings[key] ?? null));
    folded.set(alike, [...(folded.get(alike) ?? []), key]);
  }
  return [...folded.values()];
}

function differenceTable(rows) {
  return table(["setting", ...RUNS.map((run) => run.label)], rows.map((keys) => [
    el("td", {class: "key"}, ...keys.map((key) => el("div", {}, key))),
    ...RUNS.map((run) => el("td", {class: "key"}, run.settings[keys[0]] ?? "–"))]));
}

function differences() {
  const rows = differing();
  if (!rows.length) return empty("All settings are the same.");
  const more = rows.slice(MOST_DIFFERENCES);
  return el("div", {id: "differences"}, differenceTable(rows.slice(0, MOST_DIFFERENCES)),
    more.length ? el("details", {}, el("summary", {}, `More that differs (${counted(more.flat().length, "setting")})`), differenceTable(more)) : null);
}

function settings() {
  const holder = section("settings");
  if (RUNS.length > 1) {
    holder.append(el("h3", {}, "Where the runs differ"), differences());
  }
  for (const run of RUNS) {
    if (run.command) holder.append(el("h3", {}, RUNS.length > 1 ? `Command of ${run.label}` : "Command"), el("div", {class: "card"}, el("div", {class: "text"}, run.command)));
  }
  const keys = Object.keys(DATA.settings).sort();
  const body = el("div", {});
  const search = el("input", {type: "search", placeholder: "key or value", "aria-label": "search a setting", oninput: () => draw()});
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const found = keys.filter((key) => key.toLowerCase().includes(wanted) || DATA.settings[key].toLowerCase().includes(wanted));
    body.replaceChildren(table(["setting", "value"], found.map((key) => [el("td", {class: "key"}, key), el("td", {class: "key"}, DATA.settings[key])])));
  };
  holder.append(el("details", {}, el("summary", {}, RUNS.length > 1 ? `Settings that they share (${keys.length})` : `All settings (${keys.length})`),
    el("div", {class: "controls"}, search), body));
  draw();
}

function versions() {
  const of = (run, kind) => (run.record[kind] && typeof run.record[kind] === "object" ? run.record[kind] : {});
  const names = [...new Set(RUNS.flatMap((run) => Object.keys(of(run, "versions"))))].sort();
  const rows = names.map((name) => [name, ...RUNS.map((run) => of(run, "versions")[name] ?? "–")]);
  const git = (run) => {
    const known = of(run, "git");
    if (!known.commit) return "no repository";
    return `${String(known.commit).slice(0, 12)} on ${known.branch ?? "no branch"}${known.dirty === true || known.dirty === "true" ? ", with changes" : ""}`;
  };
  rows.push(["git, of the working directory", ...RUNS.map(git)]);
  section("versions").append(table(["", ...RUNS.map((run) => run.label)], rows));
}
