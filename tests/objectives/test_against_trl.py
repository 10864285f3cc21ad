"""The mean loss of each preference objective equals TRL's on the same log-probabilities, within 1e-5.

Notable: TRL is no dependency; benchmarks/peers/preference_losses.py asked it and wrote what it said.
"""

import json
from pathlib import Path

import pytest
import torch

from tunesmith.core import parts
from tunesmith.core.batch import Batch

TOLD = json.loads((Path(__file__).parent / "trl_losses.json").read_text())


@pytest.mark.parametrize("name", sorted(TOLD["losses"]))
def test_the_loss_is_trls(name: str) -> None:
    case, given = TOLD["losses"][name], TOLD["inputs"]
    weight_BT = torch.tensor(given["mask"], dtype=torch.float64)
    logp_BT, reference_B = (torch.tensor(given[k], dtype=torch.float64) for k in ("logp", "reference"))
    part = parts.find("objectives", name)
    label_B = torch.tensor([1, 1, 0, 0] * 2) if part.unit == "judged" else torch.tensor(given["label"])
    length_B, ids_BT = torch.full((len(label_B),), weight_BT.shape[1]), torch.zeros(weight_BT.shape).long()
    batch = Batch(ids_BT, ids_BT, weight_BT, length_B, label_B, unit=2, reference_B=reference_B)
    objective = part.with_settings(case["settings"])
    assert float(objective.loss(logp_BT, batch) / objective.weight(batch)) == pytest.approx(case["loss"], abs=1e-5)


def test_every_direct_objective_was_asked() -> None:
    direct = {n for n in parts.names("objectives") if parts.find("objectives", n).unit in ("pair", "judged")} - {
        "reward"
    }
    assert set(TOLD["losses"]) == direct
