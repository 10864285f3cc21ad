"""transformers' side of sampling, in a process of its own: ``generate`` in batches, or its continuous batching.

Notable: every row writes a number of tokens of its own. ``generate`` ends rows one by one through a stopping criterion
and computes a batch until its last row has ended; continuous batching takes the number with each request, and has a
cache for twice the rows, for by default it takes half of the memory. Both write a few tokens before the clock counts.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from peers.common import FIRST_TOKENS, Clock, write

Rows = list[dict[str, Any]]
PAGE = 256  # tokens of a block of the cache, as transformers has it


class Ends(StoppingCriteria):
    """Row b has ended once it has written ``new[b]`` tokens."""

    def __init__(self, prompt: int, new: list[int]) -> None:
        self.prompt, self.new = prompt, torch.tensor(new)

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        return input_ids.shape[1] - self.prompt >= self.new


@torch.no_grad()
def batched(model: Any, rows: Rows, size: int) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        wide = max(len(r["ids"]) for r in part)
        ids = torch.tensor([[0] * (wide - len(r["ids"])) + r["ids"] for r in part])
        seen = torch.tensor([[0] * (wide - len(r["ids"])) + [1] * len(r["ids"]) for r in part])
        new = [r["new"] for r in part]
        out = model.generate(
            ids,
            attention_mask=seen,
            max_new_tokens=max(new),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([Ends(wide, new)]),
        )
        found += [row[wide : wide + n].tolist() for row, n in zip(out, new, strict=True)]
    return found


def blocks(rows: Rows) -> int:
    """Of the cache that holds twice these rows.

    >>> blocks([{"ids": [5] * 100, "new": 100}, {"ids": [5] * 100, "new": 200}])
    6
    """
    return 2 * sum(math.ceil((len(r["ids"]) + r["new"]) / PAGE) for r in rows)


def continuous(model: Any, rows: Rows, few: Rows, clock: Clock) -> list[list[int]]:
    """``few`` first, then ``rows`` by the same manager, timed."""
    config = GenerationConfig(do_sample=False, max_new_tokens=max(r["new"] for r in rows), eos_token_id=-1)
    cache = ContinuousBatchingConfig(page_size=PAGE, num_blocks=blocks(rows), max_batch_tokens=2048)
    with model.continuous_batching_context_manager(
        generation_config=config, continuous_batching_config=cache
    ) as manager:
        _answered(manager, few)
        clock.begin()
        found = _answered(manager, rows)
        clock.step()
    return found


def _answered(manager: Any, rows: Rows) -> list[list[int]]:
    names = [manager.add_request(r["ids"], max_new_tokens=r["new"]) for r in rows]
    found: dict[str, list[int]] = {}
    while len(found) < len(rows):
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            found[result.request_id] = result.generated_tokens
        elif result is None and not manager.is_running():
            raise RuntimeError("the generation thread has ended")
    return [found[name] for name in names]


def main(spec: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    size = spec["batch"]
    attention = "sdpa" if size else "paged|sdpa"
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=spec["weights"], attn_implementation=attention)
    model.eval()
    few, clock = [r | {"new": 2} for r in rows[:2]], Clock(spec)
    if size:
        batched(model, few, size)
        clock.begin()
        found = batched(model, rows, size)
        clock.step()
    else:
        found = continuous(model, rows, few, clock)
    write(spec, clock, tokens=[sum(map(len, found))], first=[ids[:FIRST_TOKENS] for ids in found])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
