"""Our side of learning from rewards, in a process of its own: GRPO's rollouts and the steps on them, as a run has them.

Notable: ``Rollouts`` shuffles the prompts; they are laid so that its shuffle gives the order of the file, in which the
peer takes them. ``check`` hands what a peer wrote in its first rollout to our own rollouts in place of the sampler's
answers, and tells what reward, advantage and gradient come of it.
"""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from peers import ours
from peers.common import digest, ends, reward, write
from tunesmith.core import parts, seeds
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.core.plan import Technique
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import RolloutPoint
from tunesmith.data.batches import Steps, collate
from tunesmith.flows.planning import rollouts_planned
from tunesmith.generate.sampler import Answer, Sampling
from tunesmith.models.model import Model
from tunesmith.models.twin import reference
from tunesmith.train import rollout


class Learning:
    """A policy with its source of rollouts, and what was seen on the way: ``points`` of the rollouts, the prompts
    ``asked``, ``rewards``, the ``lengths`` of the answers trained in each step, and where the seconds went."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.model = ours.load(spec)
        prompts = [
            tuple(json.loads(line)["ids"]) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()
        ]
        recipe = recipe_of(spec)
        ours.attach(self.model, recipe)
        self.rows = [TokenRow(ids, (0.0,) * len(ids)) for ids in prompts]
        method, trained = ours.method_of(recipe), sum(p.numel() for _, p in self.model.trainable())
        technique = Technique(not method.is_adapter, trained, method.rate, four_bits=method.four_bits)
        self.objective = parts.find("objectives", "grpo").with_settings(recipe.objective.given)
        network = (self.model.card, ours.shape(self.model))
        self.plan = rollouts_planned(recipe, network, self.objective, self.rows, spec["longest_new"], technique)
        self.points: list[RolloutPoint] = []
        self.asked: list[tuple[int, ...]] = []
        self.rewards: list[float] = []
        self.lengths: list[list[int]] = []
        self.spent = dict.fromkeys(("sampling", "reference", "rest_of_rollout"), 0.0)
        self.began = 0.0
        stops = tuple(ends(self.model.card.vocabulary, spec["ends"]))
        sampling = Sampling(spec["longest_new"], stops, temperature=1.0, seed=seeds.stream(self.plan.seed, "rollouts"))
        how = rollout.How(
            **recipe.rollout.model_dump(),
            sampling=sampling,
            micro_tokens=self.plan.micro_tokens,
            pad_id=self.model.tokenizer.pad_token_id or 0,
            seed=self.plan.seed,
            total=self.plan.steps,
        )
        self.laid = laid(prompts, how.seed)
        named = [rollout.Prompt(str(i), ids) for i, ids in enumerate(self.laid)]
        members = rollout.Members(self.reward, self.base)
        self.source = rollout.Rollouts(self.model, named, self.objective, how, members, self.points.append)

    def reward(self, places: Sequence[int], texts: Sequence[str]) -> Sequence[float]:
        self.spent["sampling"] += time.perf_counter() - self.began
        self.asked += [self.laid[i] for i in places]
        found = [reward(text) for text in texts]
        self.rewards += found
        return found

    @torch.no_grad()
    def base(self, batch: Batch) -> Tensor:
        began = time.perf_counter()
        with reference(self.model, None) as found:
            values = found.token_logp(batch)
        self.spent["reference"] += time.perf_counter() - began
        return values

    def steps(self, epoch: int) -> Iterator[list[Batch]]:
        """The source's steps, with an eye on the clock and on what is trained. The loop asks for one step more before
        it sees that it has done all; nothing is written for that one."""
        if epoch > 0:
            yield []
        source = self.source(epoch)
        while True:
            before, self.began = sum(self.spent.values()), time.perf_counter()
            batches = next(source, None)
            if batches is None:
                return
            known = sum(self.spent.values()) - before
            self.spent["rest_of_rollout"] += time.perf_counter() - self.began - known
            self.lengths.append([n for b in batches for n in (b.weight_BT > 0).sum(1).tolist()])
            yield batches


def recipe_of(spec: dict[str, Any]) -> Recipe:
    return Recipe.parse(
        {
            "model": spec["model"],
            "data": {"train": "rows"},
            "method": {"name": spec["method"], "rank": spec["rank"]},
            "objective": {"name": "grpo", "beta": spec["beta"]},
            "rollout": {"prompts": spec["prompts_per_step"], "answers": spec["answers"]},
            "train": {"epochs": 1, "learning_rate": spec["learning_rate"], "warmup": 0.0, "seed": ours.SEED},
        }
    )


def laid(prompts: Sequence[tuple[int, ...]], seed: int) -> list[tuple[int, ...]]:
    """``prompts`` in an order that the source's shuffle of its first pass turns into theirs."""
    order = list(range(len(prompts)))
    random.Random(seeds.stream(seed, "prompts/0")).shuffle(order)
    found = list(prompts)
    for place, prompt in zip(order, prompts, strict=True):
        found[place] = prompt
    return found


def train(spec: dict[str, Any]) -> None:
    own = Learning(spec)
    first = Steps(own.rows, batch_tokens=2048, micro_tokens=2048, pad_id=0, seed=ours.SEED)
    ours.ready(own.model, own.objective, next(first(0))[0], own.plan)
    clock = ours.timed(spec, own.model, own.objective, own.steps, own.plan, floor=1.0)
    facts = clock.facts()
    update = sum(facts["step_seconds"]) - sum(own.spent.values())
    write(
        spec,
        clock,
        rows=[len(step) for step in own.lengths],
        tokens=[round(point.length * point.answers) for point in own.points],
        trained_tokens=[sum(step) for step in own.lengths],
        lengths=[n for step in own.lengths for n in step],
        digest=digest(own.asked, [[]] * len(own.asked)),
        spent={name: round(s, 2) for name, s in (own.spent | {"update": update}).items()},
        detail=ours.detail(own.model, own.plan),
    )


def check(spec: dict[str, Any]) -> None:
    """Rewards and advantages (sorted, for steps are shuffled) and the gradient's norm of a peer's first rollout."""
    first = json.loads(Path(spec["theirs"]).read_text(encoding="utf-8"))["first"]
    own = Learning(spec)
    stops = ends(own.model.card.vocabulary, spec["ends"])

    def given(policy: Model, prompts: Sequence[Sequence[int]], *_: Any) -> list[Answer]:
        return [_answer(policy, p, ids, stops) for p, ids in zip(prompts, first["answers"], strict=True)]

    with patch.object(rollout, "answers", given):
        batches = next(own.source(0))
    weight = sum(float(own.objective.weight(b)) for b in batches)
    for batch in batches:
        loss = own.objective.loss(own.model.token_logp(batch), batch) / weight
        loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for _, p in own.model.trainable() if p.grad is not None])
    told = {"rewards": own.rewards, "advantages": sorted(_advantages(batches)), "norm": float(norm)}
    Path(spec["out"]).write_text(json.dumps(told), encoding="utf-8")


def _advantages(batches: Sequence[Batch]) -> Iterator[float]:
    """That of each answer, which all of its tokens share."""
    for batch in batches:
        assert batch.advantage_BT is not None  # rollouts give it
        for row_T, weight_T in zip(batch.advantage_BT, batch.weight_BT, strict=True):
            yield float(row_T[weight_T > 0][0])


@torch.no_grad()
def _answer(policy: Model, prompt: Sequence[int], ids: list[int], stops: Sequence[int]) -> Answer:
    """An answer as the sampler gives it, with the log-probabilities that training computes."""
    row = TokenRow((*prompt, *ids), (0.0,) * len(prompt) + (1.0,) * len(ids))
    logp = policy.token_logp(collate([row], 0))[0].tolist()[len(prompt) - 1 :][: len(ids)]
    if ids[-1] in stops:
        return Answer(ids[:-1], logp[:-1], "stop", (ids[-1], logp[-1]))
    return Answer(ids, logp)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    {"check": check, "online": train}[told["task"]](told)
