"""From a plan to rollouts: which prompts, how they are sampled, who is asked; and the look at dev beside them."""

from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from torch import Tensor

from tunesmith.core import seeds
from tunesmith.core.batch import Batch
from tunesmith.core.errors import DataError
from tunesmith.core.example import Example
from tunesmith.core.report import RolloutPoint, SampledAnswer
from tunesmith.data.render import Renderer
from tunesmith.evaluate.rewards import Asked
from tunesmith.flows.prepare import Prepared
from tunesmith.generate.sampler import Sampling, sample
from tunesmith.models.model import Model
from tunesmith.models.twin import reference
from tunesmith.train.rollout import How, Members, Prompt, Rollouts
from tunesmith.train.state import DevResult

DEV_PROMPTS = 128  # that each look answers
SHOWN = 3  # of these answers, the same prompts each time


def rollouts(
    model: Model, prepared: Prepared, tell: Callable[[RolloutPoint], None], note: Callable[[str], None]
) -> Rollouts:
    """The source of batches of a policy that learns from rewards; ``tell`` hears of each rollout, ``note`` of prompts
    that are left out. Raises DataError."""
    company, recipe, plan = prepared.company, prepared.recipe, prepared.plan
    assert company is not None  # the objective learns from rewards
    examples, prompts = _fitting(model, prepared, prepared.splits.train)
    if not prompts:
        raise DataError(
            f"No prompt leaves room for an answer of {prepared.max_new_tokens} tokens. Lower evaluate.max_new_tokens."
        )
    dev = prepared.splits.dev[:DEV_PROMPTS]
    fit = (("train", prepared.splits.train, examples), ("dev", dev, _fitting(model, prepared, dev)[0]))
    for name, rows, kept in fit:
        if left := len(rows) - len(kept):
            note(
                f"{left:,} of {len(rows):,} {name} prompts leave no room for an answer of {prepared.max_new_tokens} "
                "tokens and are left out. Lower evaluate.max_new_tokens, or shorten them."
            )
    asked = [Asked(e.prompt, e.answer) for e in examples]
    beta = prepared.objective.settings.get("beta", 0.0)

    def reward(places: Sequence[int], answers: Sequence[str]) -> Sequence[float]:
        return company.reward([asked[i] for i in places], answers)

    @torch.no_grad()
    def base(batch: Batch) -> Tensor:
        with reference(model, prepared.before) as found:
            return found.token_logp(batch)

    @torch.no_grad()
    def values(batch: Batch) -> Tensor:
        assert company.critic is not None  # asked for where there is one
        company.critic.train(False)
        found = company.critic.token_score(batch)
        company.critic.train(True)
        return found

    how = How(
        **recipe.rollout.model_dump(),
        sampling=sampling(model, prepared),
        micro_tokens=plan.micro_tokens,
        pad_id=model.tokenizer.pad_token_id or 0,
        seed=plan.seed,
        total=plan.steps,
    )
    members = Members(reward, base, None if company.critic is None else values, held=beta > 0)

    def told(point: RolloutPoint) -> None:
        tell(point.model_copy(update={"faults": tuple(company.reward.untold().items())}))

    return Rollouts(model, prompts, prepared.objective, how, members, told)


def sampling(model: Model, prepared: Prepared) -> Sampling:
    stops = Renderer(model.tokenizer).stop_ids()
    return Sampling(prepared.max_new_tokens, stops, temperature=1.0, seed=seeds.stream(prepared.plan.seed, "rollouts"))


def dev_rewards(model: Model, prepared: Prepared) -> DevResult:
    """Mean reward of one sampled answer to each of the first dev prompts, the same chance at each look; as a loss."""
    company = prepared.company
    assert company is not None  # the objective learns from rewards
    examples, prompts = _fitting(model, prepared, prepared.splits.dev[:DEV_PROMPTS])
    model.train(False)
    written = sample(model, [p.ids for p in prompts], sampling(model, prepared))
    texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    scored = company.reward([Asked(e.prompt, e.answer) for e in examples], texts)
    known = [x for x in scored if x == x]
    worst = min(known, default=float("nan"))  # what an answer without a reward counts as
    loss = -fmean(x if x == x else worst for x in scored) if known else float("inf")
    shown = [SampledAnswer.of(p.text, *told) for p, *told in zip(prompts, texts, scored, strict=True)][:SHOWN]
    return DevResult(loss, (loss,), tuple(shown))


def _fitting(model: Model, prepared: Prepared, examples: Sequence[Example]) -> tuple[list[Example], list[Prompt]]:
    """The rows whose prompts leave room for an answer, and their prompts."""
    renderer, room = Renderer(model.tokenizer), model.card.context - prepared.max_new_tokens - len(model.soft_ids)
    found = [(e, tuple(renderer.prompt_ids(e.prompt, e.tools))) for e in examples]
    kept = [(e, Prompt(e.id, ids, e.input_text)) for e, ids in found if len(ids) <= room]
    return [e for e, _ in kept], [p for _, p in kept]
