"""TRL's side of `benchmarks.trl`: its GRPOTrainer as it is released, a step whenever one is asked for.

It is found beside the environment, in `.venv/parity`, by this process alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.trl_case import CASES, KL_COEF, ROWS, SAMPLES, STEPS, THREADS, TOKENS, Turns, digest, prompts_of
from hybridflow.config.schema import Config
from hybridflow.parallel import bf16
from hybridflow.tasks import graders
from hybridflow.tasks.tokenizer import load_tokenizer


def main(name: str, folder: str, micro_rows: str) -> None:
    """Make the trainer, then let it take the steps that are asked for."""
    turns = Turns()
    config = CASES[name].config(folder)
    sys.path.insert(0, str(Path(sys.prefix) / "parity"))
    import torch

    torch.set_num_threads(THREADS)
    if bf16.needed():
        bf16.apply()
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(config, folder, out, int(micro_rows), turns)
        trainer.train()


def make_trainer(config: Config, folder: str, out: str, micro_rows: int, turns: Turns) -> Any:
    """Make a GRPOTrainer that waits before each step, and reports it after it.

    Args:
        micro_rows: rows of a forward and backward pass; a step is an update on all rows whatever it is.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Timed(GRPOTrainer):  # type: ignore[misc]
        """Times what it calls, and changes nothing."""

        parts: dict[str, float]
        tokens: int
        asked: list[list[int]]

        def _generate(self, prompts: Any) -> Any:
            began = perf_counter()
            made = super()._generate(prompts)
            self.parts["generate"] += perf_counter() - began
            self.asked += made[0]
            return made

        def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
            began = perf_counter()
            scored = super()._get_per_token_logps_and_entropies(*args, **options)
            if not torch.is_grad_enabled():
                self.parts["score"] += perf_counter() - began
            return scored

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            self.tokens += int(inputs["completion_mask"].sum())
            return super()._compute_loss(model, inputs)

    import torch

    class InTurns(TrainerCallback):  # type: ignore[misc]
        """Sleeps where a step begins until it is asked for: the step before has then been logged too."""

        began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.began:
                seconds = perf_counter() - self.began
                parts = {**trainer.parts, "update": seconds - sum(trainer.parts.values())}
                turns.answer(
                    seconds=seconds, response_tokens=trainer.tokens, prompts=digest(trainer.asked), parts=parts
                )
            else:
                turns.answer(settings=args.to_dict())
            if not turns.wait():
                os._exit(0)
            trainer.parts = {"generate": 0.0, "score": 0.0}
            trainer.tokens = 0
            trainer.asked = []
            self.began = perf_counter()

    prompts = prompts_of(config)
    examples = [prompts.task.example("train", row) for step in range(STEPS) for row in prompts.at(step).tolist()]
    rows = [{"prompt": one.prompt, "answer": one.answer} for one in examples]

    grade = graders.get(config.reward.grader)

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        return [grade(text, given) for text, given in zip(texts, answer, strict=True)]

    args = GRPOConfig(**settings(config, out, micro_rows))
    trainer = Timed(
        model=folder, reward_funcs=reward, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(folder), callbacks=[InTurns()],
    )  # fmt: skip
    return trainer


def settings(config: Config, out: str, micro_rows: int) -> dict[str, Any]:
    """Return what a GRPOConfig is told beside its defaults: the run's settings, and what is fastest on a CPU."""
    optimizer = config.actor.optimizer
    return dict(
        output_dir=out, seed=config.run.seed, max_steps=STEPS, use_cpu=True,
        # The step: all rows sampled at once, one update, no pass for old log-probs.
        num_generations=SAMPLES, per_device_train_batch_size=micro_rows, num_iterations=1, shuffle_dataset=False,
        gradient_accumulation_steps=ROWS // micro_rows, steps_per_generation=ROWS // micro_rows, beta=KL_COEF,
        # Every response has as many tokens, as on the other side.
        max_completion_length=TOKENS, generation_kwargs={"min_new_tokens": TOKENS},
        temperature=config.rollout.temperature,
        # Weights of that format, and no second one for products.
        bf16=False, fp16=False,
        model_init_kwargs={"dtype": config.actor.model.dtype.value, "attn_implementation": "sdpa"},
        gradient_checkpointing=False, pad_to_multiple_of=None, optim="adamw_torch",
        learning_rate=optimizer.lr, lr_scheduler_type="constant_with_warmup", warmup_steps=optimizer.warmup_steps,
        adam_beta1=optimizer.beta1, adam_beta2=optimizer.beta2, max_grad_norm=optimizer.clip_grad,
        save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=1, dataloader_num_workers=0,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
