"""`run`: one run from its configuration to its table."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from hybridflow import interrupt
from hybridflow.bounded_code import told_where
from hybridflow.config import auto_settings
from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import Config, FullDisk
from hybridflow.controller.session_logs import kept_if_it_fails
from hybridflow.errors import ConfigError, HybridFlowError, before_the_start
from hybridflow.observe import logs
from hybridflow.observe.alarms import AlarmWatch, alarm_rules
from hybridflow.observe.disk_errors import writing
from hybridflow.observe.live_view import Live, panel_moves
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.run_lock import locked
from hybridflow.observe.sinks import SinkContext, open_sinks
from hybridflow.observe.timeline import Timeline
from hybridflow.preflight import run_folder_checks
from hybridflow.registry import import_plugins
from hybridflow.trainer import checkpoint, run_record
from hybridflow.trainer.build import Running, build
from hybridflow.trainer.checkpoint_store import Checkpoints
from hybridflow.trainer.chosen_rows import judged
from hybridflow.trainer.goodput import WallClock, since_checkpoint, told
from hybridflow.trainer.journal_folder import JournalFolder
from hybridflow.trainer.loop import Outputs, train
from hybridflow.trainer.next_commands import next_commands
from hybridflow.trainer.preparation import prepared
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.recovery import Recovery
from hybridflow.trainer.step_traces import StepTraces


def run(config: Config) -> int:
    """Carry out a run; the exit code. Raises HybridFlowError (RoleError with a rank's traceback) when it fails.

    What an earlier run left stays as it is until everything is built: a start that fails changes nothing.
    """
    if problems := run_folder_checks.problems(config):
        raise ConfigError("\n".join(problems))
    import_plugins(config.plugins)
    clock = WallClock()
    live = Live(every_step=config.trainer.print_every_step, with_times=True)
    folder = RunFolder(run_folder_checks.folder_of(config))
    with locked(folder.path), nullcontext() if panel_moves() else logs.shown_with_times():
        return _run(config, folder, live, clock)


def _run(config: Config, folder: RunFolder, live: Live, clock: WallClock) -> int:
    with before_the_start(), told_where(live.say):
        ready = prepared(config, folder, live)
    source = ready.source
    task = ready.task
    with interrupt.ShieldedStack() as stack:
        running = build(config, stack, live.say)
        if "policy_loss" in running.algorithm.components and auto_settings.described(config):
            live.say(auto_settings.described(config))
        progress = checkpoint.load(running, source) if source else Progress()
        progress.rows_fingerprint = task.fingerprint
        clock.add(progress.spent)
        if source is not None and ready.goes_on:
            clock.add(since_checkpoint(folder, source))
        with writing(folder.checkpoints):
            Checkpoints(folder.checkpoints).sweep()
        run_record.end_killed(folder)
        if source is not None and ready.goes_on:
            folder.truncate_to(checkpoint.sizes(source))
        else:
            _archive_previous(config, folder, live)
        folder.write_config(resolved_yaml(config))
        _write_logs(running, folder)
        stack.enter_context(kept_if_it_fails(folder.logs / "ray"))
        timeline = Timeline(folder.timeline, config.trainer.timeline_every, live.say)
        stack.callback(timeline.write)
        running.supervisor.on_span = timeline.note
        named = config.trainer.profile_steps
        traces = StepTraces(named, progress.steps, folder.traces, running.pools, live.say)
        journal = JournalFolder(config, folder, running.groups, live.say)
        journal.begin()
        learner = running.algorithm.learner
        if config.trainer.full_disk is FullDisk.go_on:
            folder.wait_for_room(live.say)
            stack.callback(folder.close)
        stack.enter_context(interrupt.grace(config.trainer.grace_s, live.say))
        pools = {name: round(pool.start_s, 3) for name, pool in running.pools.items()}
        facts = {"seconds": round(clock.elapsed(), 3), "pools": pools, "processes": running.processes()}
        facts |= {"alarms": sorted(alarm_rules)}
        stack.enter_context(run_record.kept(folder, config.run.name, source, progress, learner, **facts))
        stack.callback(clock.end)
        sinks = open_sinks(config.trainer.metric_sinks, SinkContext(config, folder, live, progress.steps))
        with sinks as opened:
            recovery = Recovery(config, running, folder, progress, source, live.say, clock, journal)
            alarms = AlarmWatch.after(folder.metric_lines())
            outputs = Outputs(folder, opened, live.say, clock, journal, timeline, traces, alarms)
            with interrupt.through_ray():
                train(config, running, task, outputs, progress, recovery, ready.more)
    _report(config, folder, live, progress, judged(running.algorithm))
    fault = progress.fault(learner)
    if fault is not None:
        raise HybridFlowError(f"{config.run.name} ended, but {fault}. Its model is saved all the same")
    return 0


def _archive_previous(config: Config, folder: RunFolder, live: Live) -> None:
    unsaved = config.trainer.resume == "auto" and folder.unsaved()
    aside = folder.archive_previous(keep_journal=unsaved)
    if aside is None:
        return
    if unsaved:
        live.say(f"the last run of {config.run.name} did not end, and had saved nothing: this one begins at step 0")
    live.say(f"what an earlier run left is now in {aside}")


def _write_logs(running: Running, folder: RunFolder) -> None:
    """Give every process its log file, now that what an earlier run left is out of the way."""
    with writing(folder.logs):
        logs.write_to(folder.logs / "driver.log")
    running.supervisor.health.folder = folder.logs
    for pool in running.pools.values():
        pool.write_logs(folder.logs)


def _report(config: Config, folder: RunFolder, live: Live, progress: Progress, rows: str) -> None:
    ends = [sorted(progress.accuracy)[end] for end in (0, -1)]
    before, after = (f"{progress.accuracy[steps]:.3f}" for steps in ends)
    grades = [f"{progress.mean_grade[steps]:.3f}" for steps in ends if steps in progress.mean_grade]
    best = progress.best_steps
    live.table(
        config.run.name,
        {
            "accuracy before": before,
            "accuracy after": f"{after}  (held-out {rows})",
            **({"mean grade": f"{grades[0]} before, {grades[-1]} after"} if grades else {}),
            **({"best": f"{config.trainer.keep_best} {progress.best:.3f} at step {best}"} if best else {}),
            "steps": str(progress.steps),
            "wall time": f"{progress.seconds:.0f} s, without the start",
            "goodput": told(progress.spent),
            "run folder": str(folder.path),
            "model": str(folder.model),
        },
    )
    saved = Checkpoints(folder.checkpoints).newest() is not None
    more = 2 * max(config.trainer.steps, 1) if saved else 0
    own = run_folder_checks.folder_of(config)
    answers = rows == "prompts"
    for what, command in next_commands(own, config.run.name, answers=answers, steps=more, argv=sys.orig_argv):
        live.say(f"{what}: {command}")
