"""TRL's preference losses on fixed log-probabilities: what tests/objectives/trl_losses.json holds.

    python benchmarks/peers/preference_losses.py tests/objectives/trl_losses.json

Notable: TRL's trainers compute their loss inside a method that also runs the model, so that method is called as it is,
with a stand-in for the trainer and one for the model that returns the log-probabilities. Needs
benchmarks/requirements-peers.txt.
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

ROWS, TOKENS = 8, 6  # rows 2i and 2i + 1 are a pair


def inputs() -> dict[str, Any]:
    """Log-probabilities of each row's tokens, which of them belong to the answer, and the reference's sums."""
    draw = torch.Generator().manual_seed(0)
    logp = -3 * torch.rand(ROWS, TOKENS, generator=draw, dtype=torch.float64)
    first = torch.tensor([2, 2, 1, 1, 3, 3, 2, 2])
    last = torch.tensor([6, 4, 5, 6, 6, 5, 4, 6])
    place = torch.arange(TOKENS)
    mask = ((place >= first[:, None]) & (place < last[:, None])).long()
    reference = (logp * mask).sum(1) + torch.randn(ROWS, generator=draw, dtype=torch.float64)
    return {"logp": logp, "mask": mask, "reference": reference, "label": torch.tensor([1, 0, 1, 0, 1, 0, 1, 0])}


def dpo(kind: str, given: dict[str, Any], **settings: Any) -> float:
    from trl import DPOTrainer

    order = torch.cat([torch.arange(0, ROWS, 2), torch.arange(1, ROWS, 2)])  # TRL puts all better answers first
    logp, mask, reference = (given[name][order] for name in ("logp", "mask", "reference"))
    stand_in = _trainer(
        loss_types=[kind], loss_weights=[1.0], f_divergence_type="reverse_kl", ld_alpha=None, **settings
    )
    batch = {
        "input_ids": torch.zeros(ROWS, TOKENS + 1, dtype=torch.long),
        "attention_mask": torch.ones(ROWS, TOKENS + 1, dtype=torch.long),
        "completion_mask": torch.cat([torch.zeros(ROWS, 1, dtype=torch.long), mask], 1),
        "ref_chosen_logps": reference[: ROWS // 2],
        "ref_rejected_logps": reference[ROWS // 2 :],
    }
    return float(DPOTrainer._compute_loss(stand_in, _model(logp * mask), batch, False))


def kto(given: dict[str, Any], **settings: Any) -> float:
    """Judged rows are the even ones of ``given``, the odd ones are their mismatched answers."""
    from trl import KTOTrainer

    own, other = slice(0, ROWS, 2), slice(1, ROWS, 2)
    logp, mask, reference = given["logp"] * given["mask"], given["mask"], given["reference"]
    stand_in = _trainer(loss_type="kto", calculate_KL=True, **settings)
    stand_in._compute_kl_logps.return_value = logp[other].sum(1)
    batch = {
        "input_ids": torch.zeros(ROWS // 2, TOKENS + 1, dtype=torch.long),
        "attention_mask": torch.ones(ROWS // 2, TOKENS + 1, dtype=torch.long),
        "completion_mask": torch.cat([torch.zeros(ROWS // 2, 1, dtype=torch.long), mask[own]], 1),
        "label": torch.tensor([1, 0, 1, 0]),
        "ref_logps": reference[own],
        "ref_KL_logps": reference[other],
    }
    return float(KTOTrainer._compute_loss(stand_in, _model(logp[own]), batch, False))


def orpo(given: dict[str, Any], **settings: Any) -> float:
    from trl.experimental.orpo import ORPOTrainer

    mean = (given["logp"] * given["mask"]).sum(1) / given["mask"].sum(1)
    found = ORPOTrainer.odds_ratio_loss(_trainer(**settings), mean[0::2], mean[1::2])[0]
    return float(-(mean[0::2] + found).mean())  # TRL adds the likelihood of the prompt too; the paper's is the answer's


def cpo(given: dict[str, Any], kind: str, *, sft_weight: float = 0.0, **settings: Any) -> float:
    from trl.experimental.cpo import CPOTrainer

    total, count = (given["logp"] * given["mask"]).sum(1), given["mask"].sum(1)
    used = total / count if kind == "simpo" else total
    losses = CPOTrainer.cpo_loss(_trainer(loss_type=kind, alpha=0.0, **settings), used[0::2], used[1::2])[0]
    return float((losses - sft_weight * (total / count)[0::2]).mean())


def _trainer(**settings: Any) -> Any:
    stand_in = MagicMock()
    stand_in.accelerator.device = torch.device("cpu")
    stand_in.accelerator.gather_for_metrics = lambda value: value
    fixed = {"aux_loss_enabled": False, "precompute_ref_logps": True, "label_smoothing": 0.0, "loss_type": "sigmoid"}
    fixed |= {"use_weighting": False, "_total_train_tokens": 0, "_tp_size": 1}
    for name, value in ({"desirable_weight": 1.0, "undesirable_weight": 1.0} | fixed | settings).items():
        setattr(stand_in, name, value)
    return stand_in


def _model(log_probs: Tensor) -> Any:
    out = SimpleNamespace(
        log_probs=log_probs,
        entropy=torch.zeros_like(log_probs),
        mean_logits=torch.zeros_like(log_probs),
        is_top1=torch.zeros_like(log_probs, dtype=torch.bool),
    )
    return lambda **_: out


def main() -> int:
    given = inputs()
    losses = {
        "dpo": (dpo("sigmoid", given, beta=0.1), {"beta": 0.1}),
        "robust_dpo": (
            dpo("robust", given, beta=0.3, label_smoothing=0.2),
            {"beta": 0.3, "label_smoothing": 0.2},
        ),
        "ipo": (dpo("ipo", given, beta=0.2), {"beta": 0.2}),
        "kto": (kto(given, beta=0.4, undesirable_weight=1.5), {"beta": 0.4, "unwanted_weight": 1.5}),
        "orpo": (orpo(given, beta=0.2), {"beta": 0.2}),
        "simpo": (cpo(given, "simpo", beta=2.0, simpo_gamma=0.7), {"beta": 2.0, "target_margin": 0.7}),
        "cpo": (
            cpo(given, "sigmoid", beta=0.5, label_smoothing=0.1, sft_weight=0.6),
            {"beta": 0.5, "label_smoothing": 0.1, "sft_weight": 0.6},
        ),
    }
    document = {
        "trl": metadata.version("trl"),
        "inputs": {name: value.tolist() for name, value in given.items()},
        "losses": {name: {"settings": settings, "loss": loss} for name, (loss, settings) in losses.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
