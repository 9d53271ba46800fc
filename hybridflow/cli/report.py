"""`hybridflow report`: runs as one HTML file that a browser shows, which needs nothing else, no network either."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hybridflow.cli import out_file
from hybridflow.errors import ConfigError, counted
from hybridflow.observe import terminal
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.run_folder import EARLIER
from hybridflow.observe.run_lock import PRIVATE
from hybridflow.observe.run_records import CONFIG, find_run, read_records

PRIVATE_FILE = PRIVATE & 0o666  # what it shows is nobody else's affair, as the run folder that it is from
SHOWN = """\
Shows runs in one HTML file: curves, where the time of steps went, the timeline, rows that were sampled, alarms, events,
settings and where they differ, versions. It needs no network, and shows what runs have until now: runs may go on."""


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow report ARGV` and return the exit status. Raises ConfigError for what is no run."""
    parser = argparse.ArgumentParser(
        prog="hybridflow report", description=SHOWN, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, or one that has some, as of a sweep")
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="where it goes; default report.html"
    )
    parser.add_argument("--force", action="store_true", help="replace the file that is there")
    options = parser.parse_args(argv)
    out_file.check("--out", options.out, "a report", out_file.HTML, force=options.force)
    # Each once: a pattern of a shell, or a folder, may have a link to a run beside the run.
    folders = list(dict.fromkeys(folder for place in options.runs for folder in _runs_at(place)))
    from hybridflow.observe.report.page import page_of

    html = page_of([read_records(folder) for folder in folders])
    with writing(options.out):
        options.out.touch(PRIVATE_FILE)  # before anything stands in it; one that is there keeps its mode
        options.out.write_text(html, encoding="utf-8")
    size = len(html.encode()) / 1e6
    terminal.say(f"{options.out}: {counted(len(folders), 'run')}, {size:.2f} MB; open it in a browser")
    return 0


def _runs_at(place: str) -> list[Path]:
    """Return the run folder at a place, or those right inside it. Raises ConfigError if there is none."""
    try:
        return [find_run(place).resolve()]
    except ConfigError:
        jobs = _jobs(Path(place))
        if not jobs:
            raise
        return [job.resolve() for job in jobs]


def _jobs(sweep: Path) -> list[Path]:
    """Return the run folders inside of a folder, as a sweep leaves them, in the order in which they ran."""
    inside = [entry for entry in sweep.iterdir() if (entry / CONFIG).is_file()] if sweep.is_dir() else []
    jobs = [entry for entry in inside if not EARLIER.fullmatch(entry.name)]
    return sorted(jobs, key=lambda job: (int(job.name) if job.name.isdecimal() else -1, job.name))
