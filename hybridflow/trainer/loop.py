"""Training loop: prompts in, a step as the schedule takes it, metrics out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter, time

from hybridflow import interrupt
from hybridflow.algorithms import Algorithm
from hybridflow.algorithms.schedule import Schedule, schedules, step_of
from hybridflow.batch import BatchRef
from hybridflow.config.schema import Config, FullDisk, TrainerConfig
from hybridflow.controller.object_store import StoreWatch
from hybridflow.errors import HybridFlowError
from hybridflow.observe import run_lock
from hybridflow.observe.alarms import AlarmWatch
from hybridflow.observe.disk_errors import DiskError
from hybridflow.observe.host_memory import MemoryWatch
from hybridflow.observe.metrics import TIMES
from hybridflow.observe.run_folder import RunFolder
from hybridflow.observe.sinks import OpenSinks
from hybridflow.observe.timeline import Timeline
from hybridflow.process_memory import peak_bytes
from hybridflow.tasks import Prompts, Task
from hybridflow.tasks.grades import too_many_failed
from hybridflow.trainer import checkpoint, nonfinite, step_words
from hybridflow.trainer.build import Running
from hybridflow.trainer.checkpoint_store import Checkpoints
from hybridflow.trainer.chosen_rows import HeldOut, judged, split_of
from hybridflow.trainer.goodput import Spent, WallClock, measured
from hybridflow.trainer.journal_folder import JournalFolder
from hybridflow.trainer.progress import Progress
from hybridflow.trainer.prompt_draws import PromptDraws
from hybridflow.trainer.recovery import Recovery
from hybridflow.trainer.step_metrics import derived, slowest, utilization
from hybridflow.trainer.step_rows import drawn, with_old_log_probs
from hybridflow.trainer.step_traces import StepTraces
from hybridflow.trainer.validation import validate


@dataclass(frozen=True)
class Outputs:
    """Places that a run's results go to.

    Attributes:
        folder: checkpoints and rows.
        sinks: metrics.
        say: words for the user, a line at a time.
        clock: what the run's time goes into.
        journal: rows of a step that is under way; None: there is none.
        timeline: when ranks carried out what; None: nobody asks.
        traces: what they computed in some steps; None: nobody asks.
        alarms: what looks at each step's metrics; it knows those of steps before a resumption.
    """

    folder: RunFolder
    sinks: OpenSinks
    say: Callable[[str], None]
    clock: WallClock = field(default_factory=WallClock)
    journal: JournalFolder | None = None
    timeline: Timeline | None = None
    traces: StepTraces | None = None
    alarms: AlarmWatch = field(default_factory=AlarmWatch)


def train(
    config: Config,
    running: Running,
    task: Task,
    outputs: Outputs,
    progress: Progress,
    recovery: Recovery,
    more: Sequence[HeldOut] = (),
) -> None:
    """Take the steps that are left, and keep `progress` up to date; stop early at `trainer.stop_at_accuracy`.

    The trained model is saved at the end.

    Args:
        recovery: what goes on after a failure.
        more: sets to validate on, beside the task's own held-out rows.

    Raises Stopped after a step in which a signal has asked for it; that step is saved.
    """
    split = split_of(type(running.algorithm))
    prompts = Prompts(task, split, config.algorithm.prompts_per_step, config.run.seed)
    for line in prompts.shares():
        outputs.say(line)
    if prompts.rows_per_step > prompts.size:
        outputs.say(
            f"algorithm.prompts_per_step = {prompts.rows_per_step} is more than the {prompts.size} rows of split "
            f"{split!r}: a step takes some of them more than once"
        )
    sets = [HeldOut(task), *more]
    begun = perf_counter() - progress.seconds  # what earlier processes took counts too, and so does every recovery
    watches = (MemoryWatch(outputs.say), StoreWatch(outputs.say))  # what they have said they do not say again
    recovery.go_on(lambda: _take_steps(config, running, prompts, sets, outputs, progress, recovery, begun, watches))


def _take_steps(
    config: Config,
    running: Running,
    prompts: Prompts,
    sets: Sequence[HeldOut],
    outputs: Outputs,
    progress: Progress,
    recovery: Recovery,
    begun: float,
    watches: Sequence[MemoryWatch | StoreWatch],
) -> None:
    """Take steps from wherever the run is, also between a step and its validation.

    Args:
        begun: when the loop would have begun without interruptions, by `perf_counter`.
        watches: that look at the machine after each step.
    """
    settings = config.trainer
    schedule = schedules.get(settings.schedule).of_settings(running.algorithm, running.supervisor, settings)
    schedule.restore(progress.schedule)
    draws = PromptDraws(lambda number: drawn(running.algorithm, prompts, number), progress, settings.steps)
    if not progress.accuracy:
        _validate(config, running, sets, outputs, progress)
        _stop_if_asked(config, running, outputs, progress)
    elif _validates(settings, progress) and progress.steps not in progress.accuracy:
        recovery.mark(validates=True)  # a signal had the step saved before its validation
    while recovery.validates or not progress.ended(settings.steps, settings.stop_at_accuracy):
        if not recovery.validates:
            if outputs.traces:
                outputs.traces.begin_step(progress.steps)
            outputs.clock.enter(Spent.steps)
            rollout, metrics = _step(config, running, schedule, draws, progress.steps, outputs)
            draws.end_step(progress.steps)
            progress.schedule = schedule.state()
            run_lock.check(outputs.folder.path)
            outputs.clock.enter(Spent.other)
            if outputs.traces:
                outputs.traces.end_step(progress.steps)
            logged = metrics | measured(outputs.clock.seconds)
            outputs.sinks.log_step(progress.steps, logged)
            _tell_alarms(outputs, progress.steps, logged)
            _take_in(config, running.algorithm, metrics, progress)
            for line in step_words.of_step(config, progress.steps, metrics, outputs.folder.path):
                outputs.say(line)
            nonfinite.end_if_too_many(progress, settings.max_nonfinite_updates, rollout, outputs.folder.nonfinite)
            for watch in watches:
                watch.look()
            progress.steps += 1
            progress.seconds = perf_counter() - begun
            recovery.mark(validates=True)
        end_step(config, running, sets, outputs, progress, recovery)
    if progress.steps < settings.steps:
        outputs.say(f"trainer.stop_at_accuracy = {settings.stop_at_accuracy} is reached: the run ends here")
    progress.seconds = perf_counter() - begun
    outputs.clock.enter(Spent.saves)
    running.groups[running.algorithm.learner].save_model(str(outputs.folder.model)).get()
    outputs.clock.enter(Spent.other)
    if outputs.journal:
        outputs.journal.remove()


def end_step(
    config: Config,
    running: Running,
    sets: Sequence[HeldOut],
    outputs: Outputs,
    progress: Progress,
    recovery: Recovery,
) -> None:
    """Do what comes after a step: a validation and a save where they are due, and an end where a signal asks for it."""
    settings = config.trainer
    _stop_if_asked(config, running, outputs, progress)  # a validation may take longer than a signal leaves
    if _validates(settings, progress):
        _validate(config, running, sets, outputs, progress)
    saved = _saves(settings, progress) and _save(config, running, outputs, progress)
    recovery.mark()
    if outputs.journal and (saved or not (settings.save_every or settings.keep_best)):
        outputs.journal.clear()  # after the mark: a rank that is lost meanwhile is no reason to save once more
    _stop_if_asked(config, running, outputs, progress)


def _due(every: int, steps: int) -> bool:
    return every > 0 and steps % every == 0


def _validates(settings: TrainerConfig, progress: Progress) -> bool:
    """Tell whether a validation follows a step: every so often, and after the last one."""
    return progress.steps == settings.steps or _due(settings.validate_every, progress.steps)


def _saves(settings: TrainerConfig, progress: Progress) -> bool:
    """Tell whether a step is saved: the best so far; every so often, and then at the end too."""
    ended = progress.ended(settings.steps, settings.stop_at_accuracy)
    at_intervals = _due(settings.save_every, progress.steps) or (settings.save_every > 0 and ended)
    return at_intervals or progress.best_steps == progress.steps


def _save(config: Config, running: Running, outputs: Outputs, progress: Progress) -> bool:
    """Save; tell whether that was done. Raises DiskError if there is no room, unless the run is to go on without."""
    store = Checkpoints(outputs.folder.checkpoints)
    if progress.steps in store.steps():  # a signal came before its validation, which says whether it is the best
        store.keep(config.trainer.keep_last, progress.best_steps)
        return True
    outputs.clock.enter(Spent.saves)
    begin = perf_counter()
    try:
        checkpoint.save(config, running, outputs.folder, progress)
    except DiskError as error:
        if config.trainer.full_disk is FullDisk.stop:
            raise
        outputs.clock.enter(Spent.other)
        if progress.steps not in store.steps():
            outputs.say(f"warning: step {progress.steps} is not saved: {error}")
            outputs.folder.event("unsaved", step=progress.steps, error=str(error))
            return False
        # It was committed before names were given and older ones removed.
        outputs.say(f"warning: step {progress.steps} is saved, but {error}")
    outputs.clock.enter(Spent.other)
    seconds = perf_counter() - begin
    outputs.say(f"saved step {progress.steps} in {seconds:.1f} s")
    outputs.folder.event("checkpoint", step=progress.steps, seconds=round(seconds, 3))
    return True


def _stop_if_asked(config: Config, running: Running, outputs: Outputs, progress: Progress) -> None:
    """Save, unless that has been done, and raise Stopped if a signal has come: between two steps all is consistent."""
    if not interrupt.asked():
        return
    interrupt.take_time()
    if progress.steps not in Checkpoints(outputs.folder.checkpoints).steps():
        saved = _save(config, running, outputs, progress)
        if saved and outputs.journal:
            outputs.journal.clear()
    interrupt.stop()


def _step(
    config: Config, running: Running, schedule: Schedule, draws: PromptDraws, step: int, outputs: Outputs
) -> tuple[BatchRef, dict[str, float]]:
    """Take one step, write its rows out if that is due, and return them and its metrics."""
    began = time()
    begin = perf_counter()
    context = draws.context(step)
    if outputs.timeline:
        outputs.timeline.begin_step(step, began)
    logged = _due(config.trainer.log_rollouts_every, step)
    context.logs_tokens = logged and config.trainer.log_token_rows > 0
    rollout = step_of(schedule, context)
    draws.prepare(step)
    if logged:
        rows = with_old_log_probs(rollout, context.scored)
        running.groups["grader"].log_rollouts(rows, step=step, folder=str(outputs.folder.rollouts))
    metrics = schedule.finish_step()
    if running.ahead:
        running.ahead.end_step(metrics)
    problem = too_many_failed(config, metrics)
    if problem is not None:
        raise HybridFlowError(f"step {step}: {problem}")
    metrics |= running.algorithm.on_step_end(metrics)
    metrics |= derived(metrics, context, rollout, config.algorithm.epochs)
    metrics |= utilization(metrics, running.peak_flops)
    seconds = perf_counter() - begin
    metrics["timing_s/step"] = seconds
    idle = running.supervisor.idle_s(began, began + seconds)
    metrics |= {f"{TIMES}idle/{pool}": idle_s for pool, idle_s in idle.items()}
    metrics |= slowest(running.supervisor.slowest_ranks())
    metrics["driver/memory_peak_gib"] = peak_bytes() / 2**30
    metrics["perf/tokens_per_s"] = metrics["perf/trained_tokens"] / seconds
    if outputs.timeline:
        outputs.timeline.end_step(step, began, seconds)
    return rollout, metrics


def _take_in(config: Config, algorithm: Algorithm, metrics: Mapping[str, float], progress: Progress) -> None:
    """Count the updates of a step."""
    planned = algorithm.planned_updates(config.algorithm, algorithm.learner, progress.steps + 1)
    planned -= algorithm.planned_updates(config.algorithm, algorithm.learner, progress.steps)
    progress.take_in(metrics, algorithm.learner, planned, by_advantages=_learns_by_advantages(config))


def _tell_alarms(outputs: Outputs, step: int, metrics: Mapping[str, float]) -> None:
    """Tell what a step's metrics, with those before it, are an alarm for; the run goes on."""
    for alarm in outputs.alarms.look({"step": step, **metrics}):
        outputs.say(str(alarm))
        outputs.folder.event("alarm", **alarm.facts())


def _learns_by_advantages(config: Config) -> bool:
    """Tell whether the policy loss has no gradient where all advantages are 0: a KL to where it began has none either.

    Of a loss that is not ours nobody knows.
    """
    from hybridflow.losses.policy_losses import policy_losses  # the losses want torch

    loss = config.algorithm.policy_loss
    from_elsewhere = config.reference.model.path != config.actor.model.path
    ours = getattr(policy_losses.get(loss.name), "__module__", "").startswith("hybridflow.")
    return ours and not loss.entropy_coef and not (loss.kl_coef and from_elsewhere)


def _validate(config: Config, running: Running, sets: Sequence[HeldOut], outputs: Outputs, progress: Progress) -> None:
    """Validate, and tell of it in numbers and in words."""
    outputs.clock.enter(Spent.validations)
    found = validate(config, running, sets, step=progress.steps, folder=outputs.folder.validation)
    outputs.clock.enter(Spent.other)
    progress.accuracy[progress.steps] = found["accuracy"]
    if "mean_grade" in found:
        progress.mean_grade[progress.steps] = found["mean_grade"]
    outputs.sinks.log_validation(progress.steps, found)
    outputs.folder.event("validation", step=progress.steps, **found)
    what = judged(running.algorithm)
    for line in step_words.of_validation(progress.steps, found, sets, what, outputs.folder.path):
        outputs.say(line)
    if metric := config.trainer.keep_best:
        progress.compare_best(metric, found)
