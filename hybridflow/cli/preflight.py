"""Everything that can be known to be wrong before a cluster starts: names, model folders, combinations.

Imports neither vLLM nor Ray, and torch only to ask the parts of algorithms, after all else; unless a plugin does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hybridflow.config import Config, layout_checks, run_folder_checks, setting_checks, temporary_folder
from hybridflow.config.plugins import load as load_plugins
from hybridflow.config.provenance import Origins
from hybridflow.engines.vllm.model_limits import refuse_head_dim
from hybridflow.models import ModelShape, read_shape
from hybridflow.models.weight_files import why_broken

__all__ = ["PendingModels", "how_to_make", "load_plugins", "output_model", "problems", "read_models"]

NVIDIA = Path("/dev/nvidiactl")  # is there where GPUs are
PendingModels = Mapping[
    Path, ModelShape | None
]  # model folders, resolved, that runs before this one will leave; None: not known


def problems(config: Config, coming: PendingModels = MappingProxyType({}), origins: Origins | None = None) -> list[str]:
    """List every problem of these settings, as `key: what is wrong and what to do`; registries and folders are read.

    Args:
        coming: model folders that will be there.
        origins: where the settings were made, if that is known.
    """
    from hybridflow.algorithms import algorithms

    lines = run_folder_checks.problems(config)
    if config.ray.address == "local" and (problem := temporary_folder.problem()):
        lines.append(problem)
    models: dict[str, ModelShape] = {}
    tokenizers: dict[str, str] = {}
    if config.algorithm.name in algorithms:
        roles = algorithms.get(config.algorithm.name).roles_of(config.algorithm)
        models, unread = read_models(config, roles, coming)
        tokenizers = compared_tokenizers(config, models, coming)
        lines += [*unread, *run_folder_checks.inputs_in_the_way(config, roles), *heads(config, models)]
    lines += setting_checks.problems(config, models, tokenizers)
    return lines or setting_checks.of_parts(config, origins)


def heads(config: Config, models: Mapping[str, ModelShape]) -> list[str]:
    """Check that vLLM takes the actor's heads on this machine; of those of a joined cluster nothing is known."""
    if "actor" not in models or config.ray.address != "local" or NVIDIA.exists():
        return []
    try:
        refuse_head_dim(models["actor"].head_dim, "cpu")
    except ValueError as error:
        return [f"actor.model.path: {config.actor.model.path} has {error}"]
    return []


def compared_tokenizers(config: Config, models: Mapping[str, ModelShape], coming: PendingModels) -> dict[str, str]:
    """Describe by role how these models' tokenizers differ from the actor's; empty: not, or it is still to come."""
    from hybridflow.tasks.vocabulary import differences

    actor = config.actor.model.path
    described = {}
    for role in models:
        path = layout_checks.section(config, role).model.path
        if path != actor and coming.keys() & {Path(path).resolve(), Path(actor).resolve()}:
            described[role] = ""  # it is compared when it is there
        elif path != actor:
            try:
                difference = differences(actor, path)
            except ValueError as error:
                described[role] = str(error)
            else:
                described |= {role: difference.ordinary or ""} if difference else {}
    return described


def planned_updates(config: Config) -> dict[str, int]:
    """Return by role the optimizer steps that the run takes, of roles whose models learn."""
    from hybridflow.algorithms import algorithms

    algorithm = algorithms.get(config.algorithm.name)
    roles = algorithm.roles_of(config.algorithm)
    learning = [
        role
        for role in layout_checks.trained(config, layout_checks.Facts(roles))
        if hasattr(layout_checks.section(config, role), "optimizer")
    ]
    return {role: algorithm.planned_updates(config.algorithm, role, config.trainer.steps) for role in learning}


def output_model(config: Config, coming: PendingModels = MappingProxyType({})) -> dict[Path, ModelShape | None]:
    """Return the model folder that a run with these settings leaves."""
    from hybridflow.algorithms import algorithms

    shape: ModelShape | None = None
    if config.algorithm.name in algorithms:
        learner = algorithms.get(config.algorithm.name).learner
        source = read_models(config, (learner,), coming)[0].get(learner)
        shape = replace(source, head="reward" if learner == "reward_model" else "lm") if source else None
    return {(run_folder_checks.folder_of(config) / "model").resolve(): shape}


def read_models(
    config: Config, roles: tuple[str, ...], coming: PendingModels = MappingProxyType({})
) -> tuple[dict[str, ModelShape], list[str]]:
    """Read each role's model's config.json; and report a problem for each folder that is missing or not supported."""
    models: dict[str, ModelShape] = {}
    unread: dict[str, str] = {}
    for role in layout_checks.trained(config, layout_checks.Facts(roles)):
        path = layout_checks.section(config, role).model.path
        worker = layout_checks.section(config, role).worker
        if not path:
            unread[path] = (
                f"{role}.model.path: none is given; {role}.worker = {worker} needs the folder of a {role} model"
            )
            continue
        try:
            there = Path(path).resolve() not in coming
            shape = read_shape(path) if there else coming[Path(path).resolve()]
            models |= {role: shape} if shape else {}
            broken = why_broken(path, shape) if there and shape else None
            unread |= {path: f"{role}.model.path: {broken}"} if broken and path not in unread else {}
        except FileNotFoundError:
            hint = how_to_make(path, config.run.root, f"train-{role}" if role in layout_checks.BY_MODEL else "sft")
            unread.setdefault(path, f"{role}.model.path: {path} is not a model folder (no config.json); {hint}")
        except ValueError as error:
            unread.setdefault(path, f"{role}.model.path: {error}")
    return models, list(unread.values())


def how_to_make(path: str, root: str, subcommand: str = "sft") -> str:
    """Return the command that makes a model folder, by where it should be; `subcommand` makes those of runs."""
    folder = Path(path)
    if folder.name == "model" and folder.parent.parent == Path(root):
        run = folder.parent.name
        return f"the run {run} leaves it there at its end: hybridflow {subcommand} experiment={run}"
    if subcommand != "sft":
        return f"give the folder of a {subcommand.removeprefix('train-')} model; hybridflow {subcommand} makes one"
    layers = re.search(r"(\d+)_layers$", folder.name)
    recipe = (
        "smollm2" if "smollm2" in folder.name.lower() else f"addition --layers {layers[1]}" if layers else "addition"
    )
    hub = _of_hub(path)
    return f"make one (hybridflow model {recipe} --out {path}) or give the path of a Hugging Face folder{hub}"


def _of_hub(path: str) -> str:
    """Advise on a name on a hub, if it may be one: nothing is downloaded."""
    owner, _, name = path.partition("/")
    may_be = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path) and not Path(owner).exists()
    if not may_be or owner in ("models", "runs"):
        return ""
    return f"; a name on a hub is not looked up: hf download {path} --local-dir models/{name}, then give that folder"
