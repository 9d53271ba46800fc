// The page: each section, its links at the top, and a drawing anew where the width changes.

function sections() {
  const holder = section("sections");
  for (const part of document.querySelectorAll("main > section")) {
    holder.append(el("a", {href: `#${part.id}`}, part.querySelector("h2").textContent));
  }
}

document.title = `${RUNS.map((run) => run.label).join(", ").slice(0, 80)} – hybridflow report`;
section("made").textContent = `${counted(RUNS.length, "run")}, as read on ${DATA.made.slice(0, 16).replace("T", " ")} UTC`;
sections();
legend();
overview();
alarms();
evaluations();
curves();
times();
timeline();
rollouts();
events();
settings();
versions();

let width = window.innerWidth;
let timer = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;  // on a phone, scrolling changes the height alone
  width = window.innerWidth;
  clearTimeout(timer);
  timer = setTimeout(redraw, 120);
});
document.documentElement.dataset.ready = "true";
