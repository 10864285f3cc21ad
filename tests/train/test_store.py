"""A snapshot on disk and back; what cannot be read is a sentence."""

import json
from pathlib import Path

import pytest
import torch

from tunesmith.core.errors import DataError, DiskError
from tunesmith.train import store
from tunesmith.train.state import Progress, Snapshot

SNAPSHOT = Snapshot(
    Progress(step=7, best_step=3).plain(),
    {"weight/a": torch.arange(6.0).view(2, 3), "moment/a/step": torch.tensor(7.0), "random/cpu": torch.get_rng_state()},
    {"a": torch.ones(2, 3)},
    {"a": {"step": 7}},
)


def same(one: Snapshot, other: Snapshot) -> bool:
    tensors = one.tensors.keys() == other.tensors.keys()
    tensors = tensors and all(torch.equal(t, other.tensors[n]) for n, t in one.tensors.items())
    return tensors and (one.progress, one.numbers) == (other.progress, other.numbers)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store.write(tmp_path, SNAPSHOT, "one")
    found = store.read(tmp_path, ["one"])
    assert same(found, SNAPSHOT)
    assert found.best is not None and torch.equal(found.best["a"], torch.ones(2, 3))
    assert {p.name for p in tmp_path.iterdir()} == {"state.safetensors", "best.safetensors", "state.json"}


def test_without_best_weights_there_is_no_file_of_them(tmp_path: Path) -> None:
    store.write(tmp_path, Snapshot(SNAPSHOT.progress, SNAPSHOT.tensors, None, {}), "one")
    assert store.read(tmp_path, ["one"]).best is None
    assert not (tmp_path / "best.safetensors").exists()


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    store.write(tmp_path, SNAPSHOT, "one")
    assert same(store.read(tmp_path, ["two", "one"]), SNAPSHOT)
    with pytest.raises(DataError, match="belongs to another run, or to other data: it stands on one, this run on two"):
        store.read(tmp_path, ["two"])


def test_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    store.write(tmp_path, SNAPSHOT, "one")
    values = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(values | {"schema": 2}))
    with pytest.raises(DataError, match="has schema 2; this Tunesmith reads 1"):
        store.read(tmp_path, ["one"])


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "state.json"])
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, name: str) -> None:
    store.write(tmp_path, SNAPSHOT, "one")
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(DataError, match=r"cannot be read .* Use an older checkpoint"):
        store.read(tmp_path, ["one"])


def test_a_folder_that_is_not_there_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="Free space"):
        store.write(tmp_path / "none", SNAPSHOT, "one")
