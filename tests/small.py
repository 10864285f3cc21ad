"""Networks of a few hundred thousand weights in folders of their own, and rows for them.

Notable: random weights are drawn wide (``initializer_range``), so that attention, norms and logits are far from their
flat start and a wrong mask, shift or scale shows in the numbers.
Legend: B sequences, T tokens.
"""

import dataclasses
import json
import math
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core import parts
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import MethodRecipe
from tunesmith.data.batches import collate
from tunesmith.models import load as loading
from tunesmith.models.adapters.lora import targets
from tunesmith.models.model import Model
from tunesmith.models.scores import Score, weight_scores
from tunesmith.train.state import Snapshot

ASSETS = Path(loading.__file__).parents[1] / "assets" / "base"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
VOCABULARY = 8192
LABELS = ("a", "b", "c")
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 3,
}


def save(network: Any, folder: Path) -> Path:
    """``network`` with the bundled tokenizer in ``folder``."""
    network.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(ASSETS / name, folder / name)
    return folder


def llama(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True, **changes}
    return save(LlamaForCausalLM(LlamaConfig(**shape)), folder)


def gemma2(folder: Path, *, seed: int = 0, cap: float = 5.0) -> Path:
    """A network whose logits are bent by a soft-cap: its head is not plain."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(seed)
    shape = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": cap}
    return save(Gemma2ForCausalLM(Gemma2Config(**shape)), folder)


def bert(folder: Path, *, seed: int = 0, dropout: float = 0.0) -> Path:
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return save(BertModel(BertConfig(**SHAPE, **drop)), folder)


def roberta(folder: Path, *, seed: int = 0) -> Path:
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    return save(RobertaModel(RobertaConfig(**{**SHAPE, "pad_token_id": 1})), folder)


def copy(source: Path, target: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(source, target))


def shards(source: Path, target: Path) -> Path:
    """The same weights in two files with an index."""
    copy(source, target)
    tensors = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = sorted(tensors)
    cut = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in cut.items():
        save_file({n: tensors[n] for n in held}, target / file, metadata={"format": "pt"})
    weight_map = {n: file for file, held in cut.items() for n in held}
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensor(path: Path, name: str, value: float) -> None:
    """Set the first number of a tensor."""
    tensors = load_file(path)
    tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})


def header_length(path: Path) -> int:
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    return int(length)


def rows(count: int, *, seed: int = 0, shortest: int = 4, longest: int = 30, classes: int = 0) -> list[TokenRow]:
    """Rows of very unequal lengths; about a third of each is prompt. A row of class c begins with token 10 + c."""
    rng = random.Random(seed)
    made = []
    for n in range(count):
        size = rng.randint(shortest, longest)
        label = rng.randrange(classes) if classes else -1
        ids = [1, 10 + max(label, 0), *(rng.randrange(5, 60) for _ in range(size - 2))]
        weight = [float(t >= size / 3) for t in range(size)]
        made.append(TokenRow(tuple(ids), tuple(weight), label, f"row {n}"))
    return made


def answers_to_one_prompt(count: int, *, prompt: int = 5, seed: int = 0) -> list[TokenRow]:
    """Rows that begin with the same ``prompt`` tokens; answers of 2 to 9 tokens alone have weight."""
    rng = random.Random(seed)
    begin = (1, *(rng.randrange(5, 60) for _ in range(prompt - 1)))
    made = []
    for n in range(count):
        own = tuple(rng.randrange(5, 60) for _ in range(rng.randint(2, 9)))
        made.append(TokenRow(begin + own, (0.0,) * prompt + (1.0,) * len(own), example_id=f"answer {n}"))
    return made


def unit(held: Sequence[TokenRow], prefix: int) -> TokenRow:
    """Rows that begin with the same ``prefix`` tokens, as one unit."""
    first, *others = held
    return dataclasses.replace(first, others=tuple(dataclasses.replace(o, prefix=prefix) for o in others))


def split(held: Sequence[TokenRow], size: int) -> list[Batch]:
    """Micro-batches of ``size`` rows."""
    return [collate(held[i : i + size], 0) for i in range(0, len(held), size)]


class Passes:
    """A source of steps: the same rows each epoch, ``step`` rows a step in micro-batches of ``micro``."""

    def __init__(self, held: Sequence[TokenRow], *, step: int, micro: int) -> None:
        self.held, self.step, self.micro = held, step, micro

    def __call__(self, _epoch: int) -> Iterator[list[Batch]]:
        for i in range(0, len(self.held), self.step):
            yield split(self.held[i : i + self.step], self.micro)


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "learning_rate": 1e-2,
        "epochs": 1.0,
        "steps": 8,
        "warmup_steps": 2,
        "batch_tokens": 512,
        "micro_tokens": 256,
        "eval_every": 1000,
        "patience": 4,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "precision": "float32",
        "memory": "fast",
        "max_length": 64,
        "seconds": None,
        "seed": 0,
        "reasons": {},
    }
    return Plan(**{**fields, **changes})


def attach(model: Model, name: str, *, seed: int = 0, **changes: Any) -> Model:
    """``model`` with the method ``name``; of rank 4 unless told otherwise."""
    method = parts.find("models.adapters", name)
    options = {"rank": 4, **changes} if "rank" in method.reads else changes
    recipe = MethodRecipe(name=name, **options)
    if method.score is not None:
        model.scores = scores(model, method.score, recipe.target_modules)
    method.attach(model, recipe, seed)
    return model


def scores(model: Model, score: Score, wanted: tuple[str, ...] = ("all-linear",)) -> dict[str, Tensor]:
    """Of the weights of the wanted layers, by the hidden states of a few rows."""

    def loss(batch: Batch) -> Tensor:
        return model.hidden(batch.ids_BT, batch.length_B).float().square().mean()

    return weight_scores(model, targets(model, wanted), loss, split(rows(4), 2), score)


def base(folder: Path, method: str = "full") -> Model:
    """The model in ``folder`` as ``method`` has it: whole, or in four bits."""
    return loading.load(str(folder), four_bits=parts.find("models.adapters", method).four_bits)


def decoder(folder: Path, method: str = "full", **options: Any) -> Model:
    """The model in ``folder`` with ``method`` attached."""
    return attach(base(folder, method), method, **options)


def encoder(folder: Path, method: str = "full", **options: Any) -> Model:
    """The same with a head over ``LABELS``; a decoder will do as well."""
    model = base(folder, method)
    model.add_head(LABELS, seed=0)
    return attach(model, method, **options)


def listed(*steps: list[Batch]) -> Callable[[int], Iterator[list[Batch]]]:
    """A source that gives the same steps each epoch."""
    return lambda _epoch: iter(list(steps))


def spoiled(batch: Batch, value: float = math.nan) -> Batch:
    """The batch with its weights times ``value``: nothing to learn at 0, a broken loss where it is not finite."""
    return dataclasses.replace(batch, weight_BT=batch.weight_BT * value)


def stir(model: Model, *, seed: int = 0, size: float = 0.05) -> Model:
    """Move every trainable weight a little, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in model.trainable():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    model.refresh()
    return model


def comes_back(method: str, found: Tensor, expected: Tensor) -> bool:
    """Whether what was saved and loaded answers as before: the same bits, but where a start is written as plain LoRA
    of twice the rank."""
    near = method in ("olora", "pissa")
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5) if near else torch.equal(found, expected)


def states(model: Model, held: Sequence[TokenRow] | None = None) -> Tensor:
    """Hidden states of the real tokens, one below the other."""
    batch = collate(held or rows(4), 0)
    model.train(False)
    with torch.no_grad():
        return model.hidden(batch.ids_BT, batch.length_B)


def gradient_norm(model: Model) -> float:
    """The norm of all gradients as one vector, in float64; clears them."""
    total = sum(float(p.grad.double().square().sum()) for _, p in model.trainable() if p.grad is not None)
    for _, parameter in model.trainable():
        parameter.grad = None
    return math.sqrt(total)


def through_json(snapshot: Snapshot) -> Snapshot:
    """What comes back from a disk."""
    return Snapshot(
        json.loads(json.dumps(snapshot.progress)),
        {k: t.clone() for k, t in snapshot.tensors.items()},
        None if snapshot.best is None else {k: t.clone() for k, t in snapshot.best.items()},
        json.loads(json.dumps(snapshot.numbers)),
    )


def weights(model: Model) -> dict[str, Tensor]:
    """Copies of the trainable weights."""
    return {name: p.detach().clone() for name, p in model.trainable()}
