"""TRL's side of learning from rewards, in a process of its own: ``GRPOTrainer`` as its users call it.

Notable: the model comes as an object, for TRL takes the tokens that end an answer from its generation config. All
answers of an optimiser step are written before it, at once or some prompts at a time (``generation_batch_size``); TRL
pads what was written at once to its longest prompt and answer, in the reference's pass and in training too. What
differs from TRL's defaults is named in ``trl_common`` and ``settings`` and no more.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from peers import trl_common
from peers.common import Clock, digest, ends, reward, write
from peers.watch import Watch


def settings(spec: dict[str, Any]) -> GRPOConfig:
    """The paper's loss (each answer counts alike) and its k3, as ours has them; the steps on a rollout are one."""
    micro, answers = spec["micro_rows"], spec["answers"]
    prompts = spec["prompts"] or spec["prompts_per_step"]
    step = spec["prompts_per_step"] * answers
    return GRPOConfig(
        **trl_common.settings(spec) | {"model_init_kwargs": None},  # the model is there already
        shuffle_dataset=False,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=step // micro,
        generation_batch_size=prompts * answers,
        num_generations=answers,
        max_completion_length=spec["longest_new"],
        beta=spec["beta"],
        loss_type="grpo",
        use_bias_correction_kl=False,
    )


class Told(GRPOTrainer):  # type: ignore[misc]
    """Notes what is written and what is trained, and where the seconds go."""

    def __init__(self, **options: Any) -> None:
        self.asked: list[list[int]] = []
        self.written: list[list[int]] = []
        self.advantages: list[float] = []
        self.trained: list[int] = []  # tokens, by micro-batch
        self.rows: list[int] = []
        self.spent = {"sampling": 0.0, "rest_of_rollout": 0.0}
        super().__init__(**options)

    def _generate(self, prompts: Any) -> Any:
        began = time.perf_counter()
        found = super()._generate(prompts)
        self.spent["sampling"] += time.perf_counter() - began
        self.asked += found[0]
        self.written += found[1]
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began, before = time.perf_counter(), self.spent["sampling"]
        found = super()._generate_and_score_completions(inputs)
        self.spent["rest_of_rollout"] += time.perf_counter() - began - (self.spent["sampling"] - before)
        self.advantages += found["advantages"].tolist()
        return found

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self.trained.append(int(inputs["completion_mask"].sum()))
        self.rows.append(len(inputs["completion_mask"]))
        return super()._compute_loss(model, inputs)


class Norms(Watch):
    """The gradient's norm of each step too."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.norms: list[float] = []

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        super().on_log(logs=logs)
        if logs and "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def main(spec: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    clock = Clock(spec)
    model: Any = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=spec["weights"])
    stops = ends(model.config.vocab_size, spec["ends"])
    model.generation_config.eos_token_id = stops
    rewards: list[float] = []
    known = set(stops)

    def letters(completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Of the text without the token that ended it, as ours is."""
        kept = [ids[:-1] if ids[-1] in known else ids for ids in completion_ids]
        found = [reward(text) for text in trainer.processing_class.batch_decode(kept, skip_special_tokens=True)]
        rewards.extend(found)
        return found

    watch = Norms(clock)
    trainer = Told(
        model=model,
        reward_funcs=letters,
        args=settings(spec),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        peft_config=trl_common.adapter(spec),
        callbacks=[watch],
    )
    trl_common.start_equal(trainer, spec)
    trainer.train()
    told(spec, clock, trainer, rewards, watch.norms)


def told(spec: dict[str, Any], clock: Clock, trainer: Any, rewards: list[float], norms: list[float]) -> None:
    step = spec["prompts_per_step"] * spec["answers"]
    each = step // spec["micro_rows"]
    seconds = clock.facts()["step_seconds"]
    lengths = [len(ids) for ids in trainer.written]
    spent = trainer.spent | {"update": sum(seconds) - sum(trainer.spent.values())}
    write(
        spec,
        clock,
        rows=[sum(trainer.rows[i : i + each]) for i in range(0, len(trainer.rows), each)],
        tokens=[sum(lengths[i : i + step]) for i in range(0, len(lengths), step)],
        trained_tokens=[sum(trainer.trained[i : i + each]) for i in range(0, len(trainer.trained), each)],
        lengths=lengths,
        digest=digest(trainer.asked, [[]] * len(trainer.asked)),
        spent={name: round(s, 2) for name, s in spent.items()},
        first={
            "answers": trainer.written[:step],
            "rewards": rewards[:step],
            "advantages": sorted(trainer.advantages[:step]),
            "norm": norms[0],
        },
        detail=trl_common.described(trainer.model),
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
