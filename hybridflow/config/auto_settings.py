"""Settings that say `auto`, and what they come to. Pure; what is printed, checked and run all ask here."""

from __future__ import annotations

from dataclasses import replace

from hybridflow.config.schema import ComponentConfig, Config, DType
from hybridflow.scheduling import SCHEDULES

AUTO = "auto"
MAX = 3.0  # TRL's vllm_importance_sampling_clip_max


def correction(config: Config) -> ComponentConfig:
    """Return the correction of the policy loss for sampling's log-probs; `auto` asks for one where these differ.

    They do where a schedule samples with older weights, and where engines compute otherwise: in float32 these agree
    within rounding (1e-5 nats), so there is nothing to correct. In bfloat16 they lie 0.005 to 0.045 nats apart a token,
    and single tokens by half a nat: each is weighed by old policy / sampler, at most 3. docs/numerics.md has what was
    measured, and why.
    """
    part = config.algorithm.policy_loss.correction
    if part.name != AUTO:
        return part
    if config.actor.model.dtype is DType.float32 and not samples_with_older_weights(config):
        return ComponentConfig("none")
    return ComponentConfig("token_truncated", {"max": MAX, **part.options})


def samples_with_older_weights(config: Config) -> bool:
    """Tell whether the schedule is one of ours that learns from rows of older weights."""
    own = SCHEDULES.get(config.trainer.schedule, {}).get("max_staleness")
    given = config.trainer.max_staleness
    return bool(own if given is None else given)


def may_sample_behind(config: Config) -> bool:
    """Tell whether rows of older weights may come to a step's first update; nobody knows of others' schedules."""
    return samples_with_older_weights(config) or config.trainer.schedule not in SCHEDULES


def described(config: Config) -> str:
    """Return a line on what the correction comes to where it is `auto`; empty where it is not."""
    if config.algorithm.policy_loss.correction.name != AUTO:
        return ""
    component = correction(config)
    options = "".join(f", {name} {value}" for name, value in component.options.items())
    why = f"actor in {config.actor.model.dtype.value}"
    if samples_with_older_weights(config):
        why += f", trainer.schedule={config.trainer.schedule}"
    return f"algorithm.policy_loss.correction: auto is {component.name}{options} ({why})"


def resolved(config: Config) -> Config:
    """Return the same settings with nothing left to resolve."""
    loss = replace(config.algorithm.policy_loss, correction=correction(config))
    return replace(config, algorithm=replace(config.algorithm, policy_loss=loss))
