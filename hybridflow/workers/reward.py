"""The reward: a grader over response texts. Light: no model, no torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hybridflow.batch import Batch
from hybridflow.roles import RewardRole
from hybridflow.tasks import graders
from hybridflow.tasks.tokenizer import load_decoder
from hybridflow.workers.base import Context, Worker, workers


@workers.register("reward")
class RewardWorker(RewardRole[Batch], Worker):
    """Grades this rank's rows. An exception in a grader stops the run: it is never a reward."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.grader = graders.get(context.config.reward.grader)
        self.decode = load_decoder(context.config.actor.model.path)

    def compute_reward(self, rollout: Batch) -> Batch:
        """See `RewardRole`."""
        texts = self._texts(rollout, "response_ids")
        grades = [self.grader(text, answer) for text, answer in zip(texts, rollout.dense("answer"), strict=True)]
        rewards = np.array(grades, dtype=np.float32)
        self.context.metrics.mean("reward/mean", rewards.sum(), len(rewards))
        return Batch(rewards=rewards)

    def log_rollouts(self, rollout: Batch, *, step: int, folder: str) -> None:
        """See `RewardRole`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        prompts, responses = self._texts(rollout, "prompt_ids"), self._texts(rollout, "response_ids")
        with (path / f"rank{self.context.rank}.jsonl").open("a", encoding="utf-8") as file:
            for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
                line = {"step": step, "prompt": prompt, "response": response}
                if "rejected_ids" in rollout:
                    line["rejected"] = self.decode(rollout.ragged("rejected_ids")[row].tolist())
                line |= {name: _plain(rollout.dense(name)[row]) for name in LOGGED if name in rollout}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _texts(self, rollout: Batch, column: str) -> list[str]:
        return [self.decode(row.tolist()) for row in rollout.ragged(column)]


LOGGED = ("answer", "rewards", "sample_id", "group_id", "weight_version", "truncated")


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
