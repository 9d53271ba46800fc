"""`run`: one run from its configuration to its table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from hybridflow.config.compose import resolved_yaml
from hybridflow.config.schema import Config
from hybridflow.observe.folder import RunFolder
from hybridflow.observe.live import Live
from hybridflow.registry import import_plugins
from hybridflow.tasks import Task
from hybridflow.tasks import build as build_task
from hybridflow.tasks.tokenizer import load_tokenizer
from hybridflow.trainer import checkpoint
from hybridflow.trainer.build import build
from hybridflow.trainer.loop import train
from hybridflow.trainer.outcome import Outcome
from hybridflow.trainer.resume import choose
from hybridflow.trainer.validate import judged


def run(config: Config) -> int:
    """Carry out a run; the exit code. Raises HybridFlowError (RoleError with a rank's traceback) when it fails."""
    import_plugins(config.plugins)
    live = Live(every_step=config.trainer.print_every_step)
    folder = RunFolder(Path(config.run.root) / config.run.name)
    source = choose(config, folder.checkpoints, live.say)
    if source is not None and source.parent == folder.checkpoints:
        folder.cut(checkpoint.sizes(source))
    else:
        folder.set_aside()
    folder.write_config(resolved_yaml(config))
    task = load_task(config)
    with ExitStack() as stack:
        running = build(config, stack, live.say)
        outcome = checkpoint.load(running, source) if source else Outcome()
        train(config, running, task, folder, live, outcome)
        running.groups[running.algorithm.learner].save_model(str(folder.model)).get()
    _report(config, folder, live, outcome, judged(running.algorithm))
    return 0


def load_task(config: Config) -> Task:
    """The configured task, with the tokenizer of the actor's model."""
    return build_task(config.task.name, load_tokenizer(config.actor.model.path), config.task.options)


def _report(config: Config, folder: RunFolder, live: Live, outcome: Outcome, rows: str) -> None:
    measured = sorted(outcome.accuracy)
    live.table(
        config.run.name,
        {
            "accuracy before": f"{outcome.accuracy[measured[0]]:.3f}",
            "accuracy after": f"{outcome.accuracy[measured[-1]]:.3f}  (held-out {rows})",
            "steps": str(outcome.steps),
            "wall time": f"{outcome.seconds:.0f} s",
            "run folder": str(folder.path),
            "model": str(folder.model),
        },
    )
