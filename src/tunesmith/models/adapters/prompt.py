"""Prompt tuning (Lester et al., 2021): ``method.rank`` tokens stand before every row, and their embeddings alone are
trained; in PEFT's file format.

Notable: they begin as the embeddings of tokens drawn from the vocabulary, so the adapted model does not begin as the
base. The update is no change of a weight: it cannot be merged.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.adapters._method import method
from tunesmith.models.model import Model
from tunesmith.models.soft_tokens import SoftEmbedding, SoftTokens

FILE, KEY = "adapter_model.safetensors", "prompt_embeddings"
UNMERGEABLE = "puts tokens of its own before every row, which no weight of the base can hold"


def drawn(model: Model, count: int, seed: int) -> torch.Tensor:
    """Ids of ``count`` tokens of the vocabulary, each once while it lasts."""
    order = torch.randperm(model.card.vocabulary, generator=torch.Generator().manual_seed(seed))
    return order.repeat(-(-count // len(order)))[:count].to(model.device)


def attach(model: Model, recipe: MethodRecipe, seed: int) -> None:
    start = model.network.get_input_embeddings()(drawn(model, recipe.rank, seed))  # scaled, where the family scales
    put(model, recipe.rank, nn.Parameter(start.detach().float().clone()))


def put(model: Model, count: int, rows: nn.Parameter | None) -> SoftTokens:
    """``count`` soft tokens before every row; all else of the network is frozen."""
    model.network.requires_grad_(False)
    soft = SoftTokens(count, model.card.vocabulary)
    model.network.set_input_embeddings(SoftEmbedding(model.network.get_input_embeddings(), soft, rows))
    model.soft = soft
    model.adapted = {"soft tokens": soft}
    return soft


def save(model: Model, folder: Path) -> None:
    import peft

    rows = model.network.get_input_embeddings().rows.detach().contiguous()
    text = model.network.config.get_text_config()
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM" if model.card.kind == "decoder" else "FEATURE_EXTRACTION",
        base_model_name_or_path=model.card.path,
        num_virtual_tokens=len(rows),
        token_dim=rows.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=text.num_attention_heads,
        num_layers=text.num_hidden_layers,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file({KEY: rows}, folder / FILE, metadata={"format": "pt"})


def load(model: Model, folder: Path) -> None:
    """Put the soft tokens in ``folder`` before every row. Raises ModelError."""
    tensors = load_file(folder / FILE)
    width = model.network.get_input_embeddings().weight.shape[1]
    if set(tensors) != {KEY} or tensors[KEY].shape[1:] != (width,):
        found = {name: list(t.shape) for name, t in tensors.items()}
        raise ModelError(f"{folder}: expected {KEY} of width {width}, found {found}. Name its own base.")
    rows = nn.Parameter(tensors[KEY].to(model.device))
    put(model, len(rows), rows)


PART = method("prompt", attach, save, load, reads=("rank",), unmergeable=UNMERGEABLE)
