"""Is every wrong input told in one clear error? `python -m benchmarks.badinput --json badinput.json`

Claim: each wrong setting, file of rows, model folder, plugin, run folder, run and export of the table ends the command

* within 15 seconds, with the exit status that the documentation promises (2: settings and data, 1: a failure),
* with one message on standard error that names what is wrong, no traceback, and no control character,
* with no process left, and no run folder made.

Each row is the command itself, `hybridflow.cli.main`, in a process forked from one that has imported what the command
imports; `seconds` are those of the process and of that import. `--only TEXT` picks rows by their names, `--show` prints
what was said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import badinput_files, badinput_parts, badinput_rows, badinput_runs, badinput_settings
from benchmarks.badinput_case import LIMIT_S, Case
from benchmarks.badinput_models import write_models
from benchmarks.forked_command import Ended, adopt_orphans, run_forked

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TRACEBACK = "Traceback (most recent call last)"
MESSAGE = re.compile(r"^hybridflow[^\n]*:", re.MULTILINE)
LONGEST = 6000  # characters of an error that somebody reads
CASES = (
    *badinput_files.CASES, *badinput_rows.CASES, *badinput_settings.CASES, *badinput_parts.CASES, *badinput_runs.CASES,
)  # fmt: skip
PRELOADED = (
    "hybridflow.cli.launch", "hybridflow.cli.data", "hybridflow.cli.evaluate", "hybridflow.cli.export",
    "hybridflow.cli.check", "hybridflow.cli.settings", "hybridflow.trainer.run", "transformers", "pyarrow.parquet",
    "jsonschema",
)  # fmt: skip


def main() -> int:
    """Try all rows and write the JSON; 1 if one does not pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="rows whose names have one of these")
    parser.add_argument("--show", action="store_true", help="print what each row said")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    adopt_orphans()
    import_s = _preload()
    picked = [case for case in CASES if not options.only or any(text in case.name for text in options.only)]
    with tempfile.TemporaryDirectory(prefix="badinput-") as folder:
        models = Path(folder) / "models"
        write_models(models)
        badinput_runs.write_run(models / "run")
        rows = list(_tried(picked, Path(folder), models, import_s, options.show))
    failed = [row["name"] for row in rows if not row["pass"]]
    result = {
        "rows": rows, "count": len(rows), "failed": failed, "import_s": round(import_s, 2),
        "slowest_s": max((row["seconds"] for row in rows), default=0.0), "pass": not failed,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(rows) - len(failed)} of {len(rows)} rows pass; slowest {result['slowest_s']} s")
    return int(bool(failed))


def _preload() -> float:
    """Import what the command imports; return the seconds that it took."""
    from importlib import import_module

    began = monotonic()
    for name in PRELOADED:
        import_module(name)
    return monotonic() - began


def _tried(cases: Sequence[Case], folder: Path, models: Path, import_s: float, show: bool) -> Iterator[dict[str, Any]]:
    for number, case in enumerate(cases):
        place = folder / f"{number:03d}"
        place.mkdir()
        (place / "models").symlink_to(models)
        case.write(place)
        ended = run_forked(case.argv, place, LIMIT_S, case.environment)
        problems = _problems(case, ended, place, import_s)
        row = {
            "name": case.name, "kind": case.kind, "pass": not problems, "status": ended.status,
            "seconds": round(ended.seconds + import_s, 2), "said": ended.err[-600:], "problems": problems,
        }  # fmt: skip
        print(f"{'ok  ' if not problems else 'FAIL'} {case.name} {'; '.join(problems)}", flush=True)
        if show or problems:
            print("     | " + _visible((ended.out[-1500:] + ended.err[-3000:]).rstrip()).replace("\n", "\n     | "))
        with suppress(OSError):
            _writable(place)
            shutil.rmtree(place)
        yield row


def _problems(case: Case, ended: Ended, place: Path, import_s: float) -> list[str]:
    """List what a row's end has of what it must not have."""
    found = []
    text = ended.out + ended.err
    if ended.status != case.status:
        found.append(f"exit status {ended.status}, {case.status} expected")
    if ended.seconds + import_s > LIMIT_S:
        found.append(f"{ended.seconds:.1f} s and {import_s:.1f} s of imports; {LIMIT_S} s at most")
    if TRACEBACK in text:
        found.append("a traceback")
    if control := CONTROL.search(text):
        found.append(f"a control character {control[0]!r}")
    if ended.left:
        found.append(f"processes left: {ended.left}")
    if case.status and len(MESSAGE.findall(ended.err)) != 1:
        found.append(f"{len(MESSAGE.findall(ended.err))} messages, one expected")
    if len(ended.err) > LONGEST:
        found.append(f"{len(ended.err)} characters of error")
    if not re.search(case.said, text, re.DOTALL):
        found.append(f"does not say {case.said!r}")
    if case.starts_nothing and (place / "runs").exists() and not (place / "runs").is_symlink():
        found.append("a run folder was made")
    return found


def _visible(text: str) -> str:
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _writable(folder: Path) -> None:
    for inner, _, _ in os.walk(folder):
        os.chmod(inner, 0o700)


if __name__ == "__main__":
    sys.exit(main())
