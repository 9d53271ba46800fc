"""`hybridflow doctor`: look at this machine and this installation, and say what would keep a run from starting."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hybridflow import __version__
from hybridflow.observe import terminal
from hybridflow.observe.terminal import one_line
from hybridflow.preflight.finding import Finding, Status, worst

MORE = """\
Each line is ok, warn (some runs fail, or wait, by it) or bad (no run starts), with what to do. The exit status is 1 if
something is bad. Nothing is changed, and no network is asked; docs/doctor.md says what each line means."""


def run(argv: Sequence[str]) -> int:
    """Carry out `hybridflow doctor ARGV` and return the exit status: 1 if something is bad."""
    parser = argparse.ArgumentParser(
        prog="hybridflow doctor", description=__doc__, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", action="store_true", help="also start Ray and two ranks, and import both engines")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="run.root of the runs to come; default runs"
    )
    options = parser.parse_args(argv)
    found = []
    for finding in _findings(options.runs, start=options.start):
        found.append(finding)
        if not options.json:
            terminal.say(line(finding))
    status = worst(found)
    if options.json:
        record = {"hybridflow": __version__, "status": status, "findings": [asdict(finding) for finding in found]}
        terminal.say(json.dumps(record, indent=2))
    else:
        terminal.say(_summary(found))
    return int(status is Status.bad)


def line(finding: Finding) -> str:
    """Write a finding as a line; its advice on one of its own."""
    text = f"  {finding.status:<6}{finding.subject:<14}{one_line(finding.found)}"
    return f"{text}\n{'':22}-> {one_line(finding.advice)}" if finding.advice else text


def _findings(runs: Path, *, start: bool) -> Iterator[Finding]:
    from hybridflow.preflight import installation_checks, machine_checks
    from hybridflow.preflight.machine import LINUX, Machine, look
    from hybridflow.preflight.torch_facts import torch_facts

    if platform.system() != LINUX:  # nothing else can be looked at there
        yield from machine_checks.system(Machine(system=platform.system(), processor=platform.machine()))
        return
    torch = torch_facts()
    machine = look(runs)
    yield from installation_checks.findings(installation_checks.installation(), machine, torch)
    yield from machine_checks.findings(machine, torch)
    if start:
        from hybridflow.trainer.machine_trial import trials

        yield from trials(terminal.complain)


def _summary(found: Sequence[Finding]) -> str:
    counts = {status: sum(finding.status is status for finding in found) for status in Status}
    if counts[Status.bad]:
        return f"{counts[Status.bad]} bad: no run starts until that is mended"
    return f"ready; {counts[Status.warn]} to know about" if counts[Status.warn] else "ready"
