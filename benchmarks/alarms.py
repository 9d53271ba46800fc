"""Do alarms name causes, and is a run that is well left alone? `python -m benchmarks.alarms --json alarms.json`

Replays the metrics of recorded runs (`benchmarks.alarm_records` makes them, from the runs of `benchmarks.alarm_runs`).
Claims: of the runs that a pathology was planted in, an alarm names it in at least 11 of 12; no alarm is told in any of
at least 20 runs that are well. Thresholds were set on other runs, of the kind `setting`.

The JSON has `planted`, the runs with a pathology, `named`, those of them that an alarm names it in, `named_first`,
those whose first alarm does (a policy that falls apart shows more than one sign), `healthy` and `false_alarms`; `runs`
has for each the alarms that were told, with their steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.alarm_data import recorded
from benchmarks.alarm_runs import HEALTHY, PLANTED
from hybridflow.observe.alarms import alarms_of

NAMED = 11 / 12
LEAST_HEALTHY = 20


def told(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the name and the step of each alarm of a run."""
    return [{"alarm": alarm.name, "step": alarm.last_step, "seen": alarm.seen} for alarm in alarms_of(records)]


def measured() -> dict[str, Any]:
    """Replay all recordings."""
    causes = {run.name: run.alarm for run in PLANTED}
    planted = {name: told(lines) for name, lines in recorded("planted").items() if name in causes}
    healthy = {name: told(lines) for name, lines in recorded("healthy").items()}
    names = {name: [alarm["alarm"] for alarm in alarms] for name, alarms in planted.items()}
    return {
        "named": sum(causes[name] in names[name] for name in planted),
        "named_first": sum(causes[name] in names[name][:1] for name in planted),
        "planted": len(planted),
        "false_alarms": sum(map(len, healthy.values())),
        "healthy": len(healthy),
        "not_recorded": sorted({run.name for run in PLANTED} - {*planted} | {run.name for run in HEALTHY} - {*healthy}),
        "runs": {name: {"planted": causes[name], "told": alarms} for name, alarms in planted.items()}
        | {name: {"told": alarms} for name, alarms in healthy.items()},
    }


def holds(found: Mapping[str, Any]) -> bool:
    """Tell whether the claims hold."""
    named = found["planted"] > 0 and found["named"] >= NAMED * found["planted"]
    return bool(named and found["false_alarms"] == 0 and found["healthy"] >= LEAST_HEALTHY)


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """Say what was found in lines, as a table of docs/alarms.md."""
    said = ["| run | planted | told |", "|---|---|---|"]
    for name, run in found["runs"].items():
        alarms = ", ".join(f"{alarm['alarm']} at step {alarm['step']}" for alarm in run["told"])
        said.append(f"| {name} | {run.get('planted', '')} | {alarms or 'nothing'} |")
    said.append(
        f"{found['named']} of {found['planted']} pathologies are named, {found['named_first']} by the first alarm"
    )
    said.append(f"{found['false_alarms']} alarms in {found['healthy']} runs that are well")
    if found["not_recorded"]:
        said.append(f"not recorded yet: {', '.join(found['not_recorded'])}")
    return said


def main() -> int:
    """Replay; return 0 if the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    found = measured()
    print("\n".join(lines_of(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if holds(found) else 1


if __name__ == "__main__":
    sys.exit(main())
