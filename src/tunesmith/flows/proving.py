"""The same held-out prompts to a trained model and to what became of it, and what the answers say.

Notable: an export renders and computes by itself (``models.exports``); here its ids, its logits along the trained
model's greedy answer, and its own greedy answer are laid beside the trained model's.
Legend: T positions from the prompt's last token to the end of the answer, V vocabulary or classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError
from tunesmith.core.example import Example
from tunesmith.core.export import Proof, Question
from tunesmith.data.render import Renderer
from tunesmith.generate.local import NOWHERE, LocalModel
from tunesmith.generate.sampler import Sampling, sample
from tunesmith.models.exports._export import ROUNDING, Reader, ScoresClasses
from tunesmith.models.model import Model

NEW_TOKENS = 32
LARGEST_KL = 0.01  # nats a token: by Pinsker's inequality at most 7% of the probability lies elsewhere


@dataclass(frozen=True)
class Asked:
    """What the trained model made of a question. For a classifier the answer is the class and T is 1."""

    question: Question
    ids: tuple[int, ...]
    answer: tuple[int, ...]
    logits_TV: Tensor
    most: int


@torch.no_grad()
def ask(model: Model, renderer: Renderer, questions: Sequence[Question]) -> list[Asked]:
    """The trained model's ids, greedy answers and logits. Raises DataError where no question fits the context."""
    asked = [found for q in questions if (found := _asked(model, renderer, q)) is not None]
    if not asked:
        raise DataError(
            f"None of the {len(questions)} stored prompts leaves room for an answer in {model.card.context} tokens, so "
            "nothing can be proven. Start a run with shorter test rows."
        )
    return asked


def _asked(model: Model, renderer: Renderer, question: Question) -> Asked | None:
    ids, most = _ids(model, renderer, question)
    if model.head is not None:
        logp = LocalModel(model).class_logp([TokenRow(tuple(ids), (0.0,) * len(ids))])
        logits_TV = torch.tensor(logp)
        return Asked(question, tuple(ids), (int(logits_TV.argmax()),), logits_TV, 0)
    if most < 1:
        return None
    (answer,) = sample(model, [ids], Sampling(most, renderer.stop_ids()))
    return Asked(question, tuple(ids), tuple(answer), logits(model)([*ids, *answer])[len(ids) - 1 :], most)


def _ids(model: Model, renderer: Renderer, question: Question) -> tuple[list[int], int]:
    """The prompt, and how many tokens may follow it."""
    context = LocalModel(model).context
    row = Example(place=NOWHERE, text=question.text)
    if model.head is not None:
        return renderer.classify_ids(row)[:context], 0
    if question.text is not None:
        ids = list(renderer.whole(row)[0].ids)[: context - NEW_TOKENS]
    else:
        ids = renderer.prompt_ids(question.messages, question.tools)
    return ids, min(NEW_TOKENS, context - len(ids))


def logits(model: Model) -> Callable[[Sequence[int]], Tensor]:
    """The logits [T, V] of a loaded decoder, in float32 on the CPU."""

    before = model.soft_ids

    @torch.no_grad()
    def found(ids: Sequence[int]) -> Tensor:
        ids_1T = torch.tensor([[*before, *ids]], device=model.device)
        out: Tensor = model.network(input_ids=ids_1T, use_cache=False).logits[0, len(before) :]
        return out.float().cpu()

    return found


def compare(reader: Reader, renderer: Renderer, asked: Sequence[Asked], form: str, numbers: tuple[str, str]) -> Proof:
    """What ``reader``, an export of the format ``form``, does with the same prompts. ``numbers`` are the types that the
    trained model computed with and that the export holds: the rougher one bounds how far they may lie apart."""
    same_ids = same = ties = 0
    differences, kls = [], []
    for one in asked:
        question = one.question
        if question.text is not None:
            ids = reader.text_ids(question.text)[: len(one.ids)]  # where it was cut, the cut is the caller's
        else:
            ids = reader.chat_ids(renderer.turns(question.messages), question.tools)
        same_ids += tuple(ids) == one.ids
        theirs_TV, answer = _answered(reader, one)
        difference_T = (theirs_TV - one.logits_TV).abs().amax(-1)
        differences.append(float(difference_T.max()) / max(float(one.logits_TV.abs().max()), 1.0))
        kls += _kl_T(one.logits_TV, theirs_TV)
        same += answer == one.answer
        ties += answer != one.answer and _is_tie(one, answer, difference_T, renderer.stop_ids)
    return Proof(
        format=form,
        weights=numbers[1],
        questions=len(asked),
        positions=len(kls),
        same_ids=same_ids,
        difference=max(differences),
        largest_difference=max(ROUNDING[n] for n in numbers),
        kl=fmean(kls),
        largest_kl=LARGEST_KL,
        same_answers=same,
        ties=ties,
    )


def _answered(reader: Reader, one: Asked) -> tuple[Tensor, tuple[int, ...]]:
    if not one.most:
        assert isinstance(reader, ScoresClasses)  # a format that holds no head is refused before it is written
        logp_1C = reader.class_logp_C(one.ids)[None]
        return logp_1C, (int(logp_1C.argmax()),)
    theirs_TV = reader.logits_TV([*one.ids, *one.answer])[len(one.ids) - 1 :]
    return theirs_TV, tuple(reader.greedy(one.ids, one.most))


def _is_tie(one: Asked, answer: tuple[int, ...], difference_T: Tensor, stops: Callable[[], Sequence[int]]) -> bool:
    """Whether the answers part where the trained model's best token leads the other by at most twice what logits differ
    by there, which moves both."""
    if not one.most:
        return False
    place = next((t for t, (a, b) in enumerate(zip(one.answer, answer, strict=False)) if a != b), None)
    place = min(len(one.answer), len(answer)) if place is None else place
    other = [answer[place]] if place < len(answer) else list(stops())
    row_V = one.logits_TV[place]
    return float(row_V.max() - row_V[other].max()) <= 2 * float(difference_T[place])


def mean_kl(asked: Sequence[Asked], theirs: Callable[[Sequence[int]], Tensor]) -> float:
    """KL(trained, theirs) in nats a position, along the trained model's answers."""
    found = [kl for one in asked for kl in _kl_T(one.logits_TV, theirs([*one.ids, *one.answer])[len(one.ids) - 1 :])]
    return fmean(found)


def _kl_T(ours_TV: Tensor, theirs_TV: Tensor) -> list[float]:
    ours, theirs = ours_TV.double().log_softmax(-1), theirs_TV.double().log_softmax(-1)
    found: list[float] = (ours.exp() * (ours - theirs)).sum(-1).clamp(min=0).tolist()
    return found
