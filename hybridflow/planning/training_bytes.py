"""Bytes of training on a rank: weights and an optimizer's state, and what scoring, a step and a weight sync have."""

from __future__ import annotations

from collections.abc import Mapping

from hybridflow.config.schema import Device
from hybridflow.planning import activation_bytes
from hybridflow.planning.activation_bytes import FLOAT, TokenBytes, token_bytes
from hybridflow.planning.run_spec import SYNC, Work
from hybridflow.planning.seated_role import Seated, two_buckets
from hybridflow.planning.stage_numbers import StageNumbers, training_numbers


def add_training(kept: dict[str, float], beside: dict[str, dict[str, float]], role: Seated, stage: int) -> None:
    """Add what a rank of a stage has for scoring and learning: between its calls, and in each kind of them."""
    model, layout, load = role.model, role.layout, role.load
    numbers = training_numbers(model.engine, model.shape, layout.tensor, layout.pipeline, model.head)[stage]
    count = numbers.weights + _more_experts(role, numbers)
    weights = {"weights": float(count * role.width)}
    state = _state(role, numbers, count) if model.trains else {}
    offloads = role.device is not Device.cpu  # which has nowhere to move it
    weights_away = weights if offloads and model.offloads_weights else {}
    state_away = state if offloads and model.offloads_optimizer else {}
    kept |= {} if weights_away else weights
    kept |= {} if state_away else state
    tokens = token_bytes(model, layout.tensor, role.device, role.copied_share(max(load.trained, load.scored)))
    if tokens.gathered:
        kept["gathered activations"] = tokens.gathered * role.micro_batch(max(load.trained, load.scored))[0]
    if load.scored:
        beside[Work.score] = {**weights_away, **_scoring(role, tokens, numbers)}
    if model.trains:
        beside[Work.train] = {**weights_away, **state_away, **_learning(role, tokens, stage, numbers, count)}
    if layout.generation is not None or role.sends:
        beside[SYNC] = dict(weights_away)
    if role.sends:
        beside[SYNC]["buckets"] = two_buckets(role, numbers.weights, max(numbers.embedding, numbers.output))


def _more_experts(role: Seated, numbers: StageNumbers) -> int:
    """Count the numbers of a mixture's experts beside the one that the model's shape has."""
    model, layout = role.model, role.layout
    one = 3 * model.shape.hidden * model.shape.ffn
    return _experts(role, numbers) - numbers.layers * one // layout.tensor if model.experts > 1 else 0


def _experts(role: Seated, numbers: StageNumbers) -> int:
    """Count the numbers of a mixture's experts on a rank: whole ones if they are shared out, else a slice of each."""
    model, layout = role.model, role.layout
    if model.experts == 1:
        return 0
    parts = layout.expert if layout.expert > 1 else layout.tensor
    return numbers.layers * model.experts * 3 * model.shape.hidden * model.shape.ffn // parts


def _state_share(role: Seated, numbers: StageNumbers, count: int) -> float:
    """Return of how many numbers a rank has the optimizer's state; experts' is with the ranks that have the same."""
    layout = role.layout
    if layout.expert == 1 or not role.model.sharded_optimizer:
        return count / role.state_ranks
    experts = _experts(role, numbers)
    alike = layout.tensor * layout.context * layout.data // layout.expert
    return (count - experts) / role.state_ranks + experts / alike


def _state(role: Seated, numbers: StageNumbers, count: int) -> Mapping[str, float]:
    """Return what belongs to a model that learns: float32 gradients, AdamW's moments, and weights as float32."""
    share = _state_share(role, numbers, count)
    state = {"gradients": float(FLOAT * count), "moments": 2 * FLOAT * share}
    return state | ({"master weights": FLOAT * share} if role.width < FLOAT else {})


def _scoring(role: Seated, of_token: TokenBytes, numbers: StageNumbers) -> dict[str, float]:
    """Return what a forward without gradients has at its fullest: in a layer, or at its output."""
    tokens, _ = role.micro_batch(role.load.scored)
    layer = of_token.forward * tokens
    output = activation_bytes.output_bytes(
        numbers, role.model, role.device, tokens, role.learned_share(role.load.scored) * tokens
    )
    return {"logits": output} if numbers.output and output > layer else {"activations": layer}


def _learning(role: Seated, of_token: TokenBytes, stage: int, numbers: StageNumbers, count: int) -> dict[str, float]:
    """Return what a step has at its fullest: at the logits, in the backward pass of the last norm or layer of a
    micro-batch, at the end of that pass, or in the optimizer.
    """
    tokens, micros = role.micro_batch(role.load.trained)
    pipeline = role.layout.pipeline
    last = stage == pipeline - 1
    one = tokens * (numbers.layers * of_token.kept + of_token.hidden)
    layers = one * min(pipeline - stage, micros)
    whole = layers + (tokens * of_token.last if last else 0.0)  # the norm after them is the first to go
    tied = float(numbers.output * role.width) if numbers.tied else 0.0  # its gradient waits for the embedding's
    backward = tokens * (of_token.made_again + of_token.backward) + tied
    cases = [
        {"activations": layers, "backward of a layer": backward},
        {"activations": layers - one, "gradients of embeddings": tied + numbers.embedding * role.width},
        {"optimizer's step": _update(role, numbers, count)},
    ]
    if last:
        cases.append({"activations": whole, "logits": _at_output(role, numbers, tokens)})
        cases.append({"activations": whole, "backward of a norm": tokens * of_token.last_backward + tied})
    return max(cases, key=lambda case: sum(case.values()))


def _at_output(role: Seated, numbers: StageNumbers, tokens: float) -> float:
    learned = role.learned_share(role.load.trained) * tokens
    forward = activation_bytes.output_bytes(numbers, role.model, role.device, tokens, learned)
    return max(forward, activation_bytes.output_gradient_bytes(numbers, role.model, role.device, learned))


def _update(role: Seated, numbers: StageNumbers, count: int) -> float:
    """Return what AdamW has beside its state: on a GPU for all parameters together; a CPU's step needs nothing."""
    return 0.0 if role.device is Device.cpu else FLOAT * _state_share(role, numbers, count)
