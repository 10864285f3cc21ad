"""What autograd keeps of a layer for the backward pass, counted on the networks themselves; and how the table that a
plan reads (``plan/activations.json``) is made of it: ``python -m tests.plan.saved``.

Notable: a count is the sum of all distinct pieces of memory that are saved, without the weights, of four layers less
that of two. It is linear in a few sizes of the network, so that a dozen small random networks tell the coefficients,
which come out as whole numbers and halves.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.plan.networks import _fields, settings
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModel, AutoModelForCausalLM

from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.core.card import ModelCard
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.model import Model
from tunesmith.plan import activations
from tunesmith.plan.encoders import ENCODERS
from tunesmith.plan.families import KNOWN, shape_of
from tunesmith.plan.shape import Shape

LONG = {"float32": (208, 240), "bfloat16": (528, 560)}  # tokens a row, beyond ``packing.SHORT_ROW``
KEYS = {
    "gpt2": ("n_embd", "n_layer", "n_head", "n_inner", "vocab_size", "n_positions"),
    "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings"),
}
USUAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
         "max_position_embeddings")  # fmt: skip
RANK = 4
NO_LINEAR = ("gpt2",)  # its layers are Conv1D, which take no adapter
LEFT_OUT = tuple(activations.LIKE)


class _Tokenizer:
    pad_token_id = 0


def model_of(config: dict[str, Any], precision: str, method: str, every: int = 0) -> tuple[Model, Shape]:
    torch.manual_seed(0)
    kind = "encoder" if config["model_type"] in ENCODERS else "decoder"
    family: Any = AutoModel if kind == "encoder" else AutoModelForCausalLM
    network, shape = family.from_config(settings(config)), shape_of(config)
    numbers = {"parameters": shape.parameters, "layers": shape.layers, "width": shape.width}
    numbers |= {"vocabulary": shape.vocabulary, "context": shape.context}
    empty = dict.fromkeys(("path", "architecture", "fingerprint", "tokenizer_hash", "template_hash"), "")
    card = ModelCard(name="it", kind=kind, **empty, **numbers)  # type: ignore[arg-type]
    model = Model(network, _Tokenizer(), card, precision=precision)  # type: ignore[arg-type]
    parts.find("models.adapters", method).attach(model, MethodRecipe(name=method, rank=RANK), 0)
    if every:
        model.recompute(every)
    model.train(True)
    return model, shape


def saved_bytes(model: Model, lengths: list[int]) -> int:
    """Of a forward pass over rows of these lengths, all of them in the loss."""
    rows, longest = len(lengths), max(lengths)
    ids_BT = torch.randint(5, model.card.vocabulary, (rows, longest))
    weight_BT = (torch.arange(longest) < torch.tensor(lengths)[:, None]).float()
    batch = Batch(ids_BT, ids_BT, weight_BT, torch.tensor(lengths), torch.full((rows,), -1))
    own = {t.untyped_storage().data_ptr() for t in [*model.network.parameters(), *model.network.buffers()]}
    held: dict[int, torch.Tensor] = {}  # the tensors too, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        (model.token_logp(batch) if model.card.kind == "decoder" else model.features(batch)).sum()
    found = sum(t.untyped_storage().nbytes() for t in held.values())
    held.clear()
    return found


def kept(*asked: Any) -> float:
    """What a plan says that a layer keeps, kinds together; arguments as of ``activations.kept_by_kind``."""
    return sum(activations.kept_by_kind(*asked).values())


def a_layer(config: dict[str, Any], lengths: list[int], precision: str, method: str, every: int = 0) -> float:
    """Numbers (of the network's type) that a layer keeps for each token."""
    layers, found = KEYS.get(config["model_type"], USUAL)[1], []
    for count in (2, 4):
        model, _ = model_of({**config, layers: count}, precision, method, every)
        found.append(saved_bytes(model, lengths))
    return (found[1] - found[0]) / 2 / sum(lengths) / (2 if precision == "bfloat16" else 4)


def drawn(model_type: str, rng: random.Random) -> dict[str, Any]:
    """A small network whose sizes are independent of each other, as far as the family has them."""
    heads, width = rng.choice([2, 4, 8]), rng.choice([8, 16, 32])
    fields = _fields(model_type)
    hidden = rng.choice([16, 48, 96]) if "head_dim" in fields else heads * width
    values = (hidden, 2, heads, rng.choice([48, 80, 160, 256]), 60, 1024)
    config = {"model_type": model_type, **dict(zip(KEYS.get(model_type, USUAL), values, strict=True))}
    more = {
        "head_dim": width,
        "num_key_value_heads": rng.choice([g for g in (1, 2, 4, 8) if heads % g == 0]),
        "moe_intermediate_size": rng.choice([24, 40, 64]),
        "shared_expert_intermediate_size": rng.choice([24, 56]),
        "num_experts_per_tok": rng.choice([1, 2, 3]),
        "num_experts": (count := rng.choice([4, 6, 8])),
        "num_local_experts": count,
        "pad_token_id": 0,
    }
    return config | {key: value for key, value in more.items() if key in fields}


def coefficients(model_type: str, precision: str, method: str) -> tuple[dict[str, float], bool]:
    """(numbers a token for one of each size, whether the family packs); what the packed attention keeps is not among
    them."""
    rng = random.Random(model_type)
    names = list(activations.SIZES)
    rows, found, packs = [], [], True
    for n in range(3 * len(names)):
        config, length = drawn(model_type, rng), LONG[precision][n % 2]
        model, shape = model_of(config, precision, method)
        packs = model.packs
        kept = a_layer(config, [length] * 2, precision, method)
        sizes = activations.sizes(shape, length)
        if packs:
            kept -= (
                activations.packed_attention(shape, activations.Held(2 * length, 2 * length, length), precision, "cpu")
                / length
                / 2
            )
        if method == "lora":
            kept -= RANK * len(shape.linear_layers()) / shape.layers
        rows.append([sizes[name] for name in names])
        found.append(kept)
    table = np.array(rows, dtype=float)
    used = [
        i
        for i in range(len(names))
        if table[:, i].any() and not (names[i] == "queries" and not _separate(table, names))
    ]
    solved = np.linalg.lstsq(table[:, used], np.array(found), rcond=None)[0]
    error = np.abs(table[:, used] @ solved / np.array(found) - 1).max()
    if error > 0.02:
        print(f"{model_type} {precision} {method}: {error:.1%} off", file=sys.stderr)
    rounded = {names[i]: round(float(x) * 4) / 4 for i, x in zip(used, solved, strict=True)}
    return {name: x for name, x in rounded.items() if x}, packs


def _separate(table: Any, names: list[str]) -> bool:
    """Whether the width over all heads is another than the network's."""
    return bool((table[:, names.index("queries")] != table[:, names.index("width")]).any())


def table(families: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in families:
        made[name] = {}
        for method, key in (("full", "full"), ("lora", "adapter")):
            if method == "lora" and name in NO_LINEAR:
                continue
            for precision in ("float32", "bfloat16"):
                made[name][f"{key}, {precision}"], packs = coefficients(name, precision, method)
        made[name]["packs"] = packs
        print(name, json.dumps(made[name]), file=sys.stderr, flush=True)
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or [name for name in KNOWN if name not in LEFT_OUT]
    path = Path(activations.__file__).with_suffix(".json")
    held = json.loads(path.read_text()) if path.exists() else {}
    text = json.dumps(dict(sorted((held | table(chosen)).items())), indent=1)
    path.write_text(text + "\n")
