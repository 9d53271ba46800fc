"""All that is claimed of plans and of the search for placements: `python -m benchmarks.mapping --json mapping.json`

* `seconds`: the search for PPO with four models of 70B on 128, 1,024 and 8,192 devices (`benchmarks.search_scale`): at
  most 60 s on 1,024 and 300 s on 8,192. `gap`: how far what it finds can be from the optimum, by a mixed-integer
  program; `exhaustive`: from the cheapest of all placements, on few devices: 0.
* `mape`, `kendall` and the table `elsewhere`: steps that NeMo-RL has published (`benchmarks.published_steps`).
* `spearman` and the table `here`: real steps on one machine, of what was recorded there (`benchmarks.step_prediction`).
* `paper`: what HybridFlow found of placements (`benchmarks.paper_placements`).
* `rlinf`: the test case of RLinf's auto-placement (`benchmarks.rlinf_case`).

`--only PART` leaves the others out. Nothing runs but arithmetic; the search and its bounds take ten minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import paper_placements, published_steps, rlinf_case, search_scale, step_prediction
from hybridflow.observe import terminal
from hybridflow.planning.hardware_files import read_hardware

MOST_SECONDS = {"1024": 60.0, "8192": 300.0}
EXACT = 1e-9


def search() -> tuple[dict[str, Any], dict[str, bool]]:
    """Time the search, and compare what it finds with what bounds it."""
    found = {str(devices): search_scale.searched(devices) for devices in search_scale.DEVICES}
    exhaustive = [search_scale.exhaustive_gap(devices, gib) for devices, gib in search_scale.EXHAUSTIVE]
    seconds = {devices: round(one["seconds"], 2) for devices, one in found.items()}
    result = {
        "seconds": seconds,
        "gap": {devices: one["gap"] for devices, one in found.items()},
        "bound_seconds": {devices: round(one["bound_s"], 2) for devices, one in found.items()},
        "searched": found,
        "exhaustive": exhaustive,
    }
    claims = {
        "the search is fast": all(seconds[devices] <= most for devices, most in MOST_SECONDS.items()),
        "nothing that was looked at is cheaper": all(one["gap"] <= EXACT for one in exhaustive),
    }
    return result, claims


def elsewhere() -> tuple[dict[str, Any], dict[str, bool]]:
    """Predict the steps that NeMo-RL has published."""
    found = published_steps.validation()
    result = {"mape": found["mape"], "kendall": found["kendall"], "elsewhere": found}
    return result, {"published steps are predicted": found["holds"]}


def here() -> tuple[dict[str, Any], dict[str, bool]]:
    """Predict the real steps that were recorded on one machine."""
    records = json.loads(step_prediction.TIMES.read_text("utf-8"))
    rows = step_prediction.cross_predicted(records, [read_hardware(file) for file in step_prediction.HARDWARE])
    found = step_prediction.claims(rows)
    result = {"spearman": found["spearman"], "here": {**found, "table": rows}}
    return result, {"real steps are predicted": found["holds"]}


def paper() -> tuple[dict[str, Any], dict[str, bool]]:
    """Search for the placements of HybridFlow's paper."""
    found = paper_placements.cases()
    return {"paper": found}, {"the paper's findings come out": all(one["as_paper"] for one in found)}


def rlinf() -> tuple[dict[str, Any], dict[str, bool]]:
    """Replay RLinf's case."""
    found = rlinf_case.replayed()
    return {"rlinf": found}, {"ours costs no more than RLinf's": found["holds"]}


PARTS: dict[str, Callable[[], tuple[dict[str, Any], dict[str, bool]]]] = {
    "search": search,
    "elsewhere": elsewhere,
    "here": here,
    "paper": paper,
    "rlinf": rlinf,
}


def summary(result: dict[str, Any]) -> list[str]:
    """Say the figures in lines."""
    lines = []
    if "seconds" in result:
        lines += [
            f"{devices} devices: {seconds} s to a placement, at most {result['gap'][devices]:.2%} from the optimum"
            for devices, seconds in result["seconds"].items()
        ]
    if "elsewhere" in result:
        lines += published_steps.lines(result["elsewhere"])
    if "here" in result:
        own = result["here"]
        lines.append(f"real steps: median error {own['step_error']:.1%}, median Spearman {own['spearman']:.2f}")
    lines += map(paper_placements.line, result.get("paper", []))
    if "rlinf" in result:
        lines.append(f"RLinf's case: {result['rlinf']['ours_s']} s, its own answer {result['rlinf']['theirs_s']} s")
    return lines + [f"{'yes' if holds else 'NO '}  {claim}" for claim, holds in result["claims"].items()]


def main() -> int:
    """Carry out the parts; return 0 if all claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    options = parser.parse_args()
    result: dict[str, Any] = {"claims": {}}
    for name in options.only:
        found, claims = PARTS[name]()
        result |= found
        result["claims"] |= claims
    for line in summary(result):
        terminal.say(line)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if all(result["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
