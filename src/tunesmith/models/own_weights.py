"""Weights of the network's own that are trained beside an adapter: whole modules, or single rows of the embeddings.

Notable: float32 masters are trained and copied down (``masters``), so the base's values, which are kept, can be put
back while adapters are off. Of an embedding whose new rows alone are trained the optimiser sees these rows and nothing
else; the other rows stay what they are bit for bit. A tied output matrix is the same weight and needs no care.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.models.masters import Masters
from tunesmith.models.model import Model
from tunesmith.models.skeleton import HasNetwork


class OwnWeights:
    """``modules`` are trained whole, ``rows`` are ids whose rows of the embedding ``tables`` are."""

    def __init__(self, model: Model, modules: Sequence[str], rows: Sequence[int]) -> None:
        if model.twinned:
            raise ModelError(
                "method.modules_to_save and method.new_tokens train weights of the base, which is shared here with a "
                "critic, a reference or a reward model. Leave them out."
            )
        self.modules, self.rows = tuple(modules), tuple(rows)
        self.tables = _tables(model) if rows else []
        held = {id(p): n for n, p in model.network.named_parameters()}  # a tied weight has one name here
        whole = [held[id(p)] for m in modules for p in model.network.get_submodule(m).parameters()]
        names = dict.fromkeys([*whole, *(held[id(model.network.get_submodule(t).weight)] for t in self.tables)])
        places = torch.tensor(self.rows, device=model.device)
        weights = {n: model.network.get_parameter(n).requires_grad_(True) for n in names}
        self.masters = Masters(weights, {n: places for n in names if n not in whole})
        self.start = {n: m.detach().to(weights[n].dtype, copy=True) for n, m in self.masters.of.items()}
        self._on = True
        model.masters = self.masters

    @property
    def enabled(self) -> bool:
        return self._on

    @enabled.setter
    def enabled(self, on: bool) -> None:
        self._on = on
        self.masters.put(self.masters.of if on else self.start)


def _tables(model: HasNetwork) -> list[str]:
    """Names of the embedding and, where it is another weight, of the output matrix."""
    names = {id(m): n for n, m in model.network.named_modules()}
    output = None if model.head is not None else model.network.get_output_embeddings()  # which a head leaves idle
    tables = [model.network.get_input_embeddings(), output]
    found: dict[int, str] = {}
    for table in tables:
        if table is not None:
            found.setdefault(id(table.weight), names[id(table)])
    return list(found.values())


def grow(model: Model, tokens: Sequence[str]) -> list[int]:
    """Give the tokenizer ``tokens`` and the embeddings a row for each: the mean of those of its pieces. Returns their
    ids. Raises RecipeError."""
    pieces = [model.tokenizer(t, add_special_tokens=False).input_ids for t in tokens]
    add(model.tokenizer, tokens)
    ids = [int(model.tokenizer.convert_tokens_to_ids(t)) for t in tokens]
    size = max(model.card.vocabulary, len(model.tokenizer))
    if size > model.card.vocabulary:
        model.network.resize_token_embeddings(size, mean_resizing=False)
        model.card = model.card.model_copy(update={"vocabulary": size})
    with torch.no_grad():
        for table in _tables(model):
            weight = model.network.get_submodule(table).weight
            for i, own in zip(ids, pieces, strict=True):
                weight[i] = weight[own].float().mean(0).to(weight.dtype)
    return ids


def add(tokenizer: object, tokens: Sequence[str]) -> None:
    """Raises RecipeError for a token that the tokenizer has already, or that no text could hold."""
    known = tokenizer.get_vocab()  # type: ignore[attr-defined]
    for token in tokens:
        if not token.strip() or token in known or tokens.count(token) > 1:
            why = "is known already" if token in known else "stands there twice" if token.strip() else "is empty"
            raise RecipeError(f"method.new_tokens: {token!r} {why}. Leave it out.")
    tokenizer.add_tokens(list(tokens))  # type: ignore[attr-defined]


def tensors(model: Model, own: OwnWeights) -> dict[str, Tensor]:
    """By PEFT's names below its prefix: modules whole, under each of their names where weights are tied; then rows."""
    found: dict[str, Tensor] = {}
    for module in _with_tied(model, own.modules):
        for name, weight in model.network.get_submodule(module).named_parameters():
            found[f"{module}.{name}"] = weight.detach().clone()
    for table in own.tables:
        weight = model.network.get_submodule(table).weight
        found[f"{table}.token_adapter.trainable_tokens_delta"] = weight.detach()[list(own.rows)].clone()
    return found


def _with_tied(model: Model, modules: Sequence[str]) -> list[str]:
    """``modules`` and whatever shares their weights."""
    held = {id(p) for m in modules for p in model.network.get_submodule(m).parameters()}
    tables = [model.network.get_input_embeddings(), model.network.get_output_embeddings()]
    names = {id(m): n for n, m in model.network.named_modules()}
    tied = [names[id(t)] for t in tables if t is not None and id(t.weight) in held]
    return list(dict.fromkeys([*modules, *tied]))


def settings(model: Model, own: OwnWeights) -> dict[str, object]:
    """PEFT's settings."""
    return {
        "modules_to_save": _with_tied(model, own.modules) or None,
        "trainable_token_indices": {t.rpartition(".")[2]: list(own.rows) for t in own.tables} or None,
    }


@torch.no_grad()
def take(model: Model, own: OwnWeights, found: dict[str, Tensor]) -> None:
    """Put what ``tensors`` gave back. Raises ModelError where names, shapes, or two copies of one weight differ."""
    wanted = {k: tuple(t.shape) for k, t in tensors(model, own).items()}
    odd = sorted(set(wanted.items()) ^ {(k, tuple(t.shape)) for k, t in found.items()})
    if odd:
        raise ModelError(f"The weights trained beside the adapter do not match {model.card.name}: {odd[0][0]}.")
    for module in _with_tied(model, own.modules):
        for name, weight in model.network.get_submodule(module).named_parameters():
            weight.copy_(found[f"{module}.{name}"])
    for table in own.tables:
        weight = model.network.get_submodule(table).weight
        weight[list(own.rows)] = found[f"{table}.token_adapter.trainable_tokens_delta"].to(weight)
    if any(not torch.equal(t.to(found[k]), found[k]) for k, t in tensors(model, own).items()):
        raise ModelError(
            f"The adapter holds two different copies of a weight that {model.card.name} ties: embedding and output "
            "matrix. Untie them in its base first."
        )
    own.masters.copy_up()
