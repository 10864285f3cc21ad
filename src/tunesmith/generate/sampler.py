"""The one sampler: batched decoding with a key-value cache, for evaluation, chat and later rollouts and serving.

Notable: what all prompts of a batch begin with (an instruction) is computed once; the rest is left-padded so that all
rows write at the same place. Rows that ended are removed from the batch and its cache, so a long answer does not keep
short ones computing; each row draws from a seed of its own, so its answer does not depend on the batch.
Legend: B sequences, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.core import seeds
from tunesmith.models.model import Model

CACHE_BYTES = 1 << 28  # keys and values held at once
BATCH_TOKENS = 49_152  # prompt plus answer tokens held at once, at most
SHORTEST_PREFIX = 16  # tokens; less is not worth a pass of its own


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy. ``seed`` names the stream of each row together with the row's number."""

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 0.0
    seed: int = 0


@torch.no_grad()
def sample(
    model: Model, prompts: Sequence[Sequence[int]], sampling: Sampling, numbers: Sequence[int] = ()
) -> list[list[int]]:
    """New token ids for each prompt, in order, without the stop token. Each prompt must leave room in the context.

    ``numbers`` names the stream that each row draws from; its place when not given.
    """
    numbers = numbers or range(len(prompts))
    prompts = [[*model.soft_ids, *prompt] for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    budget = min(BATCH_TOKENS, CACHE_BYTES // _bytes_a_token(model))
    for group in _groups([len(prompts[i]) + sampling.max_new_tokens for i in order], budget):
        rows = [order[i] for i in group]
        drawn = _decode(model, [list(prompts[i]) for i in rows], [numbers[i] for i in rows], sampling)
        for index, ids in zip(rows, drawn, strict=True):
            answers[index] = ids
    return answers


def _bytes_a_token(model: Model) -> int:
    """Bytes of keys and values that one token leaves in the cache."""
    text = model.network.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * (2 if model.precision == "bfloat16" else 4))


def _groups(sizes: list[int], budget: int) -> Iterator[list[int]]:
    group: list[int] = []
    for i, size in enumerate(sizes):  # sizes ascend, so the last is the widest
        if group and size * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _shared(model: Model, prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 where that is not worth a pass. A sliding
    window counts places, and pads behind a prefix would shift them."""
    text = model.network.config.get_text_config()
    if len(prompts) < 2 or getattr(text, "sliding_window", None):
        return 0
    first, last = min(prompts), max(prompts)  # in this order, what these two share all share
    most = min(len(p) for p in prompts) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return min(same, most) if min(same, most) >= SHORTEST_PREFIX else 0


def _decode(model: Model, prompts: list[list[int]], numbers: list[int], sampling: Sampling) -> list[list[int]]:
    from transformers import DynamicCache

    device = model.device
    cache = DynamicCache(config=model.network.config)
    shared = _shared(model, prompts)
    if shared:
        prefix_1T = torch.tensor([prompts[0][:shared]], device=device)
        model.network(input_ids=prefix_1T, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(prompts))
    pads = [max(len(p) for p in prompts) - len(p) for p in prompts]
    ids_BT = torch.tensor([[0] * pad + p[shared:] for p, pad in zip(prompts, pads, strict=True)], device=device)
    seen = [[1] * shared + [0] * pad + [1] * (len(p) - shared) for p, pad in zip(prompts, pads, strict=True)]
    mask_BT = torch.tensor(seen, device=device)
    position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    generators = [torch.Generator().manual_seed(seeds.stream(sampling.seed, f"row/{n}")) for n in numbers]
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    padded = bool((mask_BT == 0).any())
    for step in range(sampling.max_new_tokens):
        out = model.network(  # the whole network: some bend or scale the logits behind their head
            input_ids=ids_BT,
            attention_mask=mask_BT if padded else None,
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV = out.logits[:, -1].float()
        chosen = _choose(logits_BV, sampling.temperature, [generators[i] for i in alive])
        keep = []
        for place, (i, token) in enumerate(zip(alive, chosen, strict=True)):
            if token not in sampling.stop_ids:
                answers[i].append(token)
                keep.append(place)
        if not keep or step + 1 == sampling.max_new_tokens:
            break
        kept = torch.tensor(keep, device=device)
        if len(keep) < len(alive):
            cache.batch_select_indices(kept)
            mask_BT, position_BT = mask_BT[kept], position_BT[kept]
        alive = [alive[p] for p in keep]
        ids_BT = torch.tensor([[chosen[p]] for p in keep], device=device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        position_BT = position_BT[:, -1:] + 1
    return answers


def _choose(logits_BV: Tensor, temperature: float, generators: list[torch.Generator]) -> list[int]:
    if temperature == 0.0:
        return [int(t) for t in logits_BV.argmax(-1)]
    share_BV = (logits_BV / temperature).softmax(-1).cpu()
    return [int(torch.multinomial(share_V, 1, generator=g)) for share_V, g in zip(share_BV, generators, strict=True)]
