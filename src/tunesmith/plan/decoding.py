"""Seconds of writing answers: prompts read once, then one token a row and step, as the sampler does it.

Notable: a step of decoding is a forward pass on as many tokens as rows are open, so it is bound by the bytes of the
weights where rows are few and by operations where they are many; keys and values of the rows are read beside it. Rows
that end give their places to others, so the steps are tokens over rows. Drawing is done on the processor, row by row.
"""

import math

from tunesmith.plan.memory import CACHE_BYTES, MOST_ROWS
from tunesmith.plan.passes import Net, Parts, forward, head, product, seconds
from tunesmith.plan.work import Rollouts, Work

READ_TOKENS = {"cpu": 2048, "cuda": 16_384}  # of prompts at once
DRAW_SECONDS = 2e-9  # a number of the vocabulary: its share, added up
DRAW_OPERATIONS = 8  # a row
DECODING = 1.2  # of the operations of a forward pass: slots are filled, masks and rows kept


def writing(net: Net, prompts: int, answers: int, prompt_tokens: int, answer_tokens: int) -> Parts:
    """Seconds of ``answers`` to each of ``prompts``, of so many tokens (means)."""
    rates, shape = net.rates, net.shape
    rows = prompts * answers
    a_row = max(1, shape.cache_bytes(prompt_tokens + answer_tokens, net.size))
    at_once = max(1, min(rows, MOST_ROWS, CACHE_BYTES // a_row))
    steps = rows * answer_tokens / at_once
    together = min(READ_TOKENS[rates.kind] / max(prompt_tokens, 1), at_once / answers)  # prompts that are read at once
    chunks = math.ceil(prompts / max(1.0, together))
    reading = chunks * seconds(forward(net, prompts * prompt_tokens / chunks, prompt_tokens), rates)
    reading += chunks * product(net, prompts / chunks, shape.vocabulary, shape.width)
    one = forward(net, at_once, 1)
    one["overhead"] *= DECODING
    one["head"] = product(net, at_once, shape.vocabulary, shape.width)
    one["keys and values"] = at_once * shape.cache_bytes(prompt_tokens + answer_tokens // 2, net.size) / rates.bandwidth
    drawing = rows * answer_tokens * (shape.vocabulary * DRAW_SECONDS + DRAW_OPERATIONS * rates.overhead)
    return {"reading prompts": reading, "writing answers": steps * seconds(one, rates), "drawing tokens": drawing}


def rollout(work: Work, rollouts: Rollouts, policy: Net) -> Parts:
    """Seconds of one rollout before it is trained on: answers, rewards, and what the members say of each token."""
    rows = rollouts.prompts * rollouts.answers
    length = rollouts.prompt_tokens + rollouts.answer_tokens
    together = rollouts.prompts * (rollouts.prompt_tokens + rollouts.answers * rollouts.answer_tokens)
    written = rows * rollouts.answer_tokens
    found = writing(policy, rollouts.prompts, rollouts.answers, rollouts.prompt_tokens, rollouts.answer_tokens)
    asked = looked(policy, work, together, written, length)
    if rollouts.steps > 1:
        found["own log-probabilities"] = asked
    else:  # those of the first group, which are compared with the sampler's
        found["own log-probabilities"] = asked / max(rollouts.prompts, 1)
    found["reference"] = looked(policy.frozen(), work, together, written, length)
    if rollouts.critic:
        found["critic"] = looked(policy, work, together, 0, length)
    if rollouts.reward is not None:
        own = rollouts.reward
        few = policy.four_bits if own.stands_on(policy.precision) else own.four_bits
        scoring = Net(own.shape, policy.rates, own.precision or policy.precision, four_bits=few)
        found["reward"] = looked(scoring, work, rows * length, 0, length)
    return found


def looked(net: Net, work: Work, tokens: float, trained: float, context: int) -> float:
    """Seconds of a forward pass over ``tokens`` in batches of two micro-batches, with log-probabilities of the
    ``trained`` ones."""
    if tokens <= 0:
        return 0.0
    batches = math.ceil(tokens / (2 * work.at_once))
    one = forward(net, tokens / batches, context)
    one["head"] = head(net, trained / batches, learns=False, gradient=False) if trained else 0.0
    return batches * seconds(one, net.rates)
