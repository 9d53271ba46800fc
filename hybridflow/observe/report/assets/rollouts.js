// Rows that were sampled: found by reward, step and text; a group side by side; its tokens by what they were given.

const MOST_GROUPS = 60;  // in the list at first
const MEASURES = {
  none: {text: "none"},
  advantage: {text: "advantages", of: (tokens, place) => tokens.advantages?.[place]},
  difference: {text: "log-prob, training − generation", of: (tokens, place) => difference(tokens, place, "old_log_probs", "rollout_log_probs")},
  reference: {text: "log-prob, policy − reference", of: (tokens, place) => difference(tokens, place, policyOf(tokens), "ref_log_probs")},
};

function policyOf(tokens) {
  return tokens.old_log_probs ? "old_log_probs" : "rollout_log_probs";
}

function difference(tokens, place, one, other) {
  const [first, second] = [tokens[one]?.[place], tokens[other]?.[place]];
  return typeof first === "number" && typeof second === "number" ? first - second : null;
}

// The one number that a row is filtered by.
function rewardOf(row) {
  return row.rewards ?? row.costs ?? null;
}

function matches(row, group, wanted) {
  const reward = rewardOf(row);
  if (wanted.low !== null && (reward === null || reward < wanted.low)) return false;
  if (wanted.high !== null && (reward === null || reward > wanted.high)) return false;
  return !wanted.text || [group.prompt, row.response, row.prompt].some((text) => (text ?? "").toLowerCase().includes(wanted.text));
}

function tokenTable(tokens) {
  const names = ["advantages", "rollout_log_probs", "old_log_probs", "ref_log_probs"].filter((name) => tokens[name]);
  const others = Object.keys(tokens).filter((name) => name !== "text" && !names.includes(name));
  const all = [...names, ...others];
  const rows = tokens.text.map((text, place) => [place, el("td", {class: "key"}, JSON.stringify(text)), ...all.map((name) => numberText(tokens[name][place])),
    numberText(MEASURES.difference.of(tokens, place))]);
  return table(["", "token", ...all.map((name) => name.replaceAll("_", " ")), "training − generation"], rows, [0, ...all.map((_, place) => place + 2), all.length + 2]);
}

function tokenText(row, measure, largest, told) {
  const holder = el("div", {class: "text"});
  const tokens = row.tokens;
  tokens.text.forEach((text, place) => {
    const value = measure.of(tokens, place);
    const span = el("span", {class: "token", onclick: () => choose(), onpointerenter: () => choose()}, text);
    if (typeof value === "number" && largest > 0) {
      const share = Math.round(12 + 68 * Math.min(1, Math.abs(value) / largest));
      if (value !== 0) span.style.backgroundColor = `color-mix(in srgb, var(${value > 0 ? "--plus" : "--minus"}) ${share}%, transparent)`;
    }
    const choose = () => {
      holder.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
      span.classList.add("chosen");
      told.textContent = `token ${place}: ${numberText(value)}`;
    };
    holder.append(span);
  });
  return holder;
}

function rowCard(row, group, wanted, measure, largest, number) {
  const reward = rewardOf(row);
  const told = el("p", {class: "readout"}, measure.of && row.tokens ? "Point at a token for its number." : "");
  const text = measure.of && row.tokens ? tokenText(row, measure, largest, told) : el("div", {class: "text"}, row.response || "(empty)");
  const card = el("article", {class: matches(row, group, wanted) ? "card" : "card out"},
    el("h4", {}, `response ${number + 1}`, reward === null ? "" : ` · ${row.rewards === undefined ? "cost" : "reward"} ${numberText(reward)}`), text,
    measure.of ? (row.tokens ? told : el("p", {class: "readout"}, "No values of its tokens were kept.")) : null);
  if (row.rejected !== undefined) card.append(el("h4", {}, "rejected"), el("div", {class: "text"}, row.rejected || "(empty)"));
  const more = Object.entries(row.more);
  if (row.costs !== undefined && row.rewards !== undefined) more.unshift(["cost", numberText(row.costs)]);
  card.append(facts(more));
  if (row.tokens) {
    const details = el("details", {ontoggle: () => {
      if (details.open && details.childElementCount === 1) details.append(tokenTable(row.tokens));
    }}, el("summary", {}, "Token by token"));
    card.append(details);
  }
  return card;
}

function groupPanel(group, wanted, measureName) {
  const measure = MEASURES[measureName];
  const found = !measure.of ? [] : group.rows.flatMap((row) => row.tokens ? row.tokens.text.map((_, place) => Math.abs(measure.of(row.tokens, place) ?? 0)) : []);
  const largest = found.reduce((most, value) => Math.max(most, value), 0);
  const ink = (name) => {
    const piece = el("i", {});
    piece.style.backgroundColor = `color-mix(in srgb, var(${name}) 80%, transparent)`;
    return piece;
  };
  return [el("h3", {}, `Step ${group.step}${group.group.startsWith("row ") ? "" : `, group ${group.group}`}: ${counted(group.rows.length, "response")}`),
    el("div", {class: "card"}, el("h4", {}, "prompt"), el("div", {class: "text"}, group.prompt ?? ""),
      group.answer === undefined ? null : el("h4", {}, "answer"), group.answer === undefined ? null : el("div", {class: "text"}, group.answer)),
    measure.of ? el("p", {class: "scale"}, ink("--minus"), el("span", {}, numberText(-largest)), ink("--plus"), el("span", {}, numberText(largest))) : el("p", {}),
    el("div", {class: "side", tabindex: "0", role: "region", "aria-label": "responses side by side"},
      ...group.rows.map((row, number) => rowCard(row, group, wanted, measure, largest, number)))];
}

function groupButton(group, wanted, pressed, choose) {
  return el("button", {type: "button", "aria-pressed": String(pressed), onclick: choose},
    el("span", {class: "quiet"}, `step ${group.step}`), el("span", {class: "text"}, group.prompt ?? ""),
    el("span", {class: "rewards"}, ...group.rows.filter((row) => rewardOf(row) !== null).map((row) =>
      el("span", {class: "chip"}, numberText(rewardOf(row))))));
}

function browser(holder, run) {
  const shown = run.rollouts;
  if (!shown) {
    holder.replaceChildren(empty("No rows were written (trainer.log_rollouts_every)."));
    return;
  }
  const steps = [...new Set(shown.groups.map((group) => group.step))];
  const wanted = {low: null, high: null, text: "", step: null};
  const measured = Object.keys(MEASURES).filter((name) => !MEASURES[name].of || shown.groups.some((group) => group.rows.some((row) =>
    row.tokens && row.tokens.text.some((_, place) => typeof MEASURES[name].of(row.tokens, place) === "number"))));
  let measure = measured.includes("advantage") ? "advantage" : "none";
  let most = MOST_GROUPS;
  let chosen = null;
  const list = el("div", {class: "groups", role: "group", "aria-label": "groups"});
  const told = el("p", {class: "quiet", role: "status"});
  const panel = el("div", {});
  const draw = () => {
    const found = shown.groups.filter((group) => (wanted.step === null || group.step === wanted.step) && group.rows.some((row) => matches(row, group, wanted)));
    if (!found.includes(chosen)) chosen = found.find((group) => group.rows.some((row) => row.tokens)) ?? found[0] ?? null;
    const rows = found.flatMap((group) => group.rows.filter((row) => matches(row, group, wanted)));
    told.textContent = `${counted(rows.length, "row")} in ${counted(found.length, "group")}`;
    list.replaceChildren(...found.slice(0, most).map((group) => groupButton(group, wanted, group === chosen, () => { chosen = group; draw(); })));
    if (found.length > most) list.append(el("button", {type: "button", onclick: () => { most += MOST_GROUPS; draw(); }}, `show more of ${found.length}`));
    panel.replaceChildren(...(chosen ? groupPanel(chosen, wanted, measure) : [empty("Nothing matches.")]));
  };
  const number = (label, name) => {
    const input = el("input", {type: "number", step: "any", "aria-label": label, oninput: () => { wanted[name] = input.value === "" ? null : Number(input.value); draw(); }});
    return el("label", {}, label, input);
  };
  const search = el("input", {type: "search", placeholder: "text in prompt or response", "aria-label": "text", oninput: () => { wanted.text = search.value.toLowerCase(); draw(); }});
  const kept = shown.groups.reduce((sum, group) => sum + group.rows.length, 0);
  holder.replaceChildren(
    el("div", {class: "controls"},
      chooser("step", ["all", ...steps.map(String)], (place) => { wanted.step = place ? steps[place - 1] : null; draw(); }),
      number("reward from", "low"), number("to", "high"), search,
      measured.length > 1 ? chooser("color of tokens", measured.map((name) => MEASURES[name].text), (place) => { measure = measured[place]; draw(); }, measured.indexOf(measure)) : null),
    el("p", {class: "quiet"}, `${kept} of the ${shown.all_rows} rows that the run has written, of ${steps.length} of its ${counted(shown.all_steps, "step")} with rows.`
      + (measured.length > 1 ? "" : " None of them has values of its tokens (trainer.log_token_rows).")),
    told, el("div", {class: "browser"}, list, panel));
  draw();
}

function rollouts() {
  const holder = el("div", {});
  const first = Math.max(0, RUNS.findIndex((run) => run.rollouts));
  put(section("rollouts"), RUNS.length > 1 ? el("div", {class: "controls"},
    chooser("run", RUNS.map((run) => run.label), (place) => browser(holder, RUNS[place]), first)) : null, holder);
  browser(holder, RUNS[first]);
}
