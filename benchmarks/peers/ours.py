"""Our side, in a process of its own: the package's public pieces in the order in which a run joins them.

Notable: nothing here is made for the benchmark. The plan is ``plan.resolve``'s with the numbers that both sides share
(learning rate, warm-up, rows a step); precision, what is recomputed, what is compiled and the moments are what it says,
done by the functions that do it in a run. Each step's rows go through ``Steps``, which cuts them into micro-batches.
Time is read at the loop's own ``on_step``; compiling comes before the first.
"""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from peers.common import FIRST_TOKENS, Clock, digest, write
from peers.owned import Owned
from tunesmith.core import parts
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.plan import Plan, Technique
from tunesmith.core.recipe import DataRecipe, Recipe
from tunesmith.data import preferences
from tunesmith.data.batches import Steps, in_order
from tunesmith.data.read import read as read_rows
from tunesmith.data.render import Renderer
from tunesmith.flows.preferring import likelihoods, with_reference
from tunesmith.flows.training import compile_layers
from tunesmith.generate import sampler
from tunesmith.models import load as loading
from tunesmith.models import machine
from tunesmith.models.adapters._method import Method
from tunesmith.models.model import Model
from tunesmith.objectives._objective import Objective
from tunesmith.plan.families import shape_like
from tunesmith.plan.resolve import Data, resolve
from tunesmith.plan.shape import Shape
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import adamw, adamw_8bit

SEED = 0


def load(spec: dict[str, Any]) -> Model:
    chosen = "bfloat16" if machine.has_fast_bfloat16() else "float32"
    return loading.load(spec["model"], precision=spec.get("precision", chosen), four_bits=spec["method"] == "qlora")


def attach(model: Model, recipe: Recipe) -> None:
    method_of(recipe).attach(model, recipe.method, SEED)


def method_of(recipe: Recipe) -> Method:
    found: Method = parts.find("models.adapters", recipe.method.name)
    return found


def planned(recipe: Recipe, model: Model, rows: list[TokenRow], steps: int) -> Plan:
    """The plan of a run on these rows; ``steps`` counts its optimiser steps."""
    method, trained = method_of(recipe), sum(p.numel() for _, p in model.trainable())
    technique = Technique(not method.is_adapter, trained, method.rate, four_bits=method.four_bits)
    lengths = [len(r.ids) for r in rows]
    data = Data(lengths, lambda _batch, _longest: steps, 0, sum(r.trained for r in rows), max(lengths))
    plan, _ = resolve(recipe, model.card, data, shape=shape(model), machine=machine.machine(), technique=technique)
    return plan


def shape(model: Model) -> Shape:
    return shape_like(model.card, model.network.config.to_dict())


def recipe_of(spec: dict[str, Any], **train: Any) -> Recipe:
    method = {"name": spec["method"]} | ({} if spec["method"] == "full" else {"rank": spec["rank"]})
    compile = spec.get("compile", "auto")
    train |= {key: spec[key] for key in ("precision", "memory") if key in spec}
    train = {"epochs": 1, "learning_rate": spec["learning_rate"], "seed": SEED, "compile": compile} | train
    return Recipe.parse({"model": spec["model"], "data": {"train": "rows"}, "method": method, "train": train})


def read(spec: dict[str, Any], model: Model) -> list[TokenRow]:
    """Rendered chats, or rows that come as ids."""
    renderer = Renderer(model.tokenizer)
    rows = []
    for number, line in enumerate(Path(spec["rows"]).read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        if "ids" in row:
            rows.append(TokenRow(tuple(row["ids"]), tuple(map(float, row["weight"]))))
        else:
            turns = tuple(Message(**m) for m in row["messages"])
            rows += renderer.rows(Example(place=Place(file="rows", line=number + 1), messages=turns)).rows
    return rows


def sft(spec: dict[str, Any], owned: Owned | None = None) -> None:
    model = load(spec)
    if owned is not None:
        owned.mark("loading")
    rows, size = read(spec, model), spec["rows_per_step"]
    groups = [rows[i : i + size] for i in range(0, len(rows), size)][: spec["steps"]]
    most = max(sum(len(r.ids) for r in g) for g in groups)  # a step's budget bounds it from above
    recipe = recipe_of(spec, batch_tokens=most, warmup=0.0)
    attach(model, recipe)
    plan = planned(recipe, model, rows, len(groups))
    pad = model.tokenizer.pad_token_id or 0

    def steps(epoch: int) -> Iterator[list[Batch]]:
        for group in groups:  # both sides take the same rows in each step; everything below that is Steps' own
            whole = sum(len(r.ids) for r in group)
            micro = plan.micro_tokens
            yield from Steps(group, batch_tokens=whole, micro_tokens=micro, pad_id=pad, seed=SEED)(epoch)

    clock = train(spec, model, "sft", steps, plan, floor=1.0)
    told = detail(model, plan)
    if owned is not None:
        owned.mark("training")
        told |= {"owned": owned.marks, "weights": sum(map(bytes_of, model.network.parameters()))}
    kept = [r for g in groups for r in g]
    write(
        spec,
        clock,
        tokens=[sum(len(r.ids) for r in g) for g in groups],
        trained=[sum(r.trained for r in g) for g in groups],
        rows=[len(g) for g in groups],
        digest=digest([r.ids for r in kept], [[w > 0 for w in r.weight] for r in kept]),
        detail=told,
    )


def dpo(spec: dict[str, Any]) -> None:
    """Pairs with the reference's likelihoods computed before the first step, as a run has them."""
    model = load(spec)
    rows, size = pairs(spec, model), spec["rows_per_step"]
    recipe = recipe_of(spec, batch_tokens=max(r.size for r in rows) * size, warmup=0.0)
    attach(model, recipe)
    plan = planned(recipe, model, rows, spec["steps"])
    began = time.perf_counter()
    found = likelihoods(model, rows, plan.micro_tokens)
    rows, seconds = [with_reference(unit, found) for unit in rows], time.perf_counter() - began
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    pad = model.tokenizer.pad_token_id or 0

    def steps(epoch: int) -> Iterator[list[Batch]]:
        for group in groups:
            whole = sum(r.size for r in group)
            yield from Steps(group, batch_tokens=whole, micro_tokens=plan.micro_tokens, pad_id=pad, seed=SEED)(epoch)

    clock = train(spec, model, "dpo", steps, plan, floor=1.0)
    both = [r for unit in rows for r in unit.unit]
    write(
        spec,
        clock,
        rows=[len(g) for g in groups],
        reference_seconds=seconds,
        digest=digest([r.ids for r in both], [[w > 0 for w in r.weight] for r in both]),
        detail=detail(model, plan) | {"tokens_computed_a_pair": round(sum(r.size for r in rows) / len(rows), 1)},
    )


def pairs(spec: dict[str, Any], model: Model) -> list[TokenRow]:
    """The pairs of a file as units, read and rendered as a run does."""
    data = DataRecipe(train=spec["rows"])
    renderer = Renderer(model.tokenizer, max_length=spec["max_length"])
    return [
        preferences.together(e, [r for v in preferences.variants(e) for r in renderer.rows(v).rows], shares=True)
        for e in read_rows(Path(spec["rows"]), data, "prefer").examples
    ]


def sample(spec: dict[str, Any]) -> None:
    """Greedy answers of the asked lengths to all prompts; a few tokens first, that nobody pays for first touches."""
    model = load(spec)
    asked = [json.loads(line) for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
    prompts, most = [row["ids"] for row in asked], [row["new"] for row in asked]
    model.train(False)
    sampler.answers(model, prompts[:2], sampler.Sampling(2, ()))
    clock = Clock(spec)
    clock.begin()
    found = sampler.answers(model, prompts, sampler.Sampling(max(most), ()), most=most)
    clock.step()
    write(spec, clock, tokens=[sum(len(a.ids) for a in found)], first=[a.ids[:FIRST_TOKENS] for a in found])


def memory(spec: dict[str, Any]) -> None:
    """The same, and what the process owned beyond its imports while it loaded and trained."""
    importlib.import_module("transformers.models.llama.modeling_llama")  # else they would count as loading
    importlib.import_module("bitsandbytes.optim")
    with Owned() as owned:
        sft(spec, owned)


def bytes_of(parameter: torch.nn.Parameter) -> int:
    """Of a weight, with the scales of its blocks where it is held in four bits."""
    scales = getattr(parameter, "quant_state", None)
    more = [] if scales is None else [scales.absmax, scales.state2.absmax]
    return sum(t.numel() * t.element_size() for t in (parameter, *more))


def train(spec: dict[str, Any], model: Model, objective: str, steps: Any, plan: Plan, *, floor: float) -> Clock:
    """``fit`` as a run has it. ``floor`` 1 keeps the rate constant after warm-up."""
    part = parts.find("objectives", objective)
    ready(model, part, next(steps(0))[0], plan)
    return timed(spec, model, part, steps, plan, floor=floor)


def ready(model: Model, part: Objective, first: Batch, plan: Plan) -> None:
    """What a run does before its first step, for which it needs a batch."""
    model.check_packing(first)
    if plan.memory != "fast":
        model.recompute(2 if plan.memory == "selective" else 1)
    if plan.compiled and (why := compile_layers(model, part, first)):
        raise RuntimeError(f"the layers could not be compiled: {why}")


def timed(spec: dict[str, Any], model: Model, part: Objective, steps: Any, plan: Plan, *, floor: float) -> Clock:
    """``fit`` with nothing but a clock in its hooks."""
    clock = Clock(spec)

    def on_step(point: Any, _total: int, _speed: float) -> None:
        clock.step()
        clock.losses.append(point.loss)

    torch.manual_seed(SEED)
    clock.begin()
    make = adamw_8bit if plan.moments == "int8" else adamw
    fit(model, part, steps, plan, Hooks(on_step=on_step, schedule_floor=floor, make_optimisers=make))
    return clock


def detail(model: Model, plan: Plan) -> dict[str, Any]:
    trained = sum(p.numel() for _, p in model.trainable())
    kept = ("precision", "memory", "moments", "compiled", "micro_tokens", "batch_tokens", "learning_rate", "clip_norm")
    return {name: getattr(plan, name) for name in kept} | {
        "trained_weights": trained,
        "threads": torch.get_num_threads(),
    }


def encoder(spec: dict[str, Any]) -> None:
    """One epoch over labelled texts with a head on the mean of the hidden states, then accuracy on the test rows."""
    model = load(spec)
    labels, renderer = spec["labels"], Renderer(model.tokenizer, max_length=model.card.context)
    rows, test = (labelled(Path(spec[name]), renderer, labels) for name in ("rows", "test"))
    mean = sum(len(r.ids) for r in rows) / len(rows)
    recipe = recipe_of(spec, batch_tokens=round(spec["rows_per_step"] * mean), warmup=spec["warmup"], weight_decay=0.01)
    attach(model, recipe)
    model.add_head(labels, seed=SEED)
    pad = model.tokenizer.pad_token_id or 0
    cut = recipe.train.batch_tokens
    assert isinstance(cut, int)  # set above
    micro = planned(recipe, model, rows, 1).micro_tokens
    source = Steps(rows, batch_tokens=cut, micro_tokens=micro, pad_id=pad, seed=SEED)
    sizes = [sum(len(batch.length_B) for batch in micro_batches) for micro_batches in source(0)]
    plan = planned(recipe, model, rows, len(sizes))
    clock = train(spec, model, "classify", source, plan, floor=0.0)
    accuracy = right(model, test, pad) / len(test)
    write(spec, clock, rows=sizes, accuracy=accuracy, detail=detail(model, plan))


def labelled(path: Path, renderer: Renderer, labels: list[str]) -> list[TokenRow]:
    number = {label: i for i, label in enumerate(labels)}
    rows: list[TokenRow] = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(text)
        turn = Message(role="user", content=row["text"])
        example = Example(place=Place(file=path.name, line=line + 1), messages=(turn,), label=row["label"])
        rows += renderer.rows(example, number[row["label"]]).rows
    return rows


@torch.no_grad()
def right(model: Model, rows: list[TokenRow], pad: int) -> int:
    found = 0
    for batch in in_order(rows, budget=8192, pad_id=pad):
        found += int((model.class_logp(batch.to(model.device)).argmax(-1) == batch.label_B.to(model.device)).sum())
    return found


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    {"dpo": dpo, "encoder": encoder, "memory": memory, "sample": sample, "sft": sft}[told["task"]](told)
