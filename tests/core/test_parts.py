"""The file name is the registry, and other packages join through entry points."""

import sys
from pathlib import Path

import pytest

from tunesmith.core import parts
from tunesmith.core.errors import PartError

ROOMS = ["objectives", "models.adapters", "data.formats", "data.checks", "evaluate.metrics", "evaluate.baselines"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_a_part_named_as_it_is(room: str) -> None:
    folder = Path(parts.__file__).parent.parent / room.replace(".", "/")
    own = sorted(p.stem for p in folder.glob("*.py") if not p.name.startswith("_"))
    assert list(parts.names(room)) == own
    assert own
    for name in own:
        assert parts.find(room, name).name == name


def test_a_near_miss_is_told_with_the_whole_list() -> None:
    with pytest.raises(PartError) as caught:
        parts.find("models.adapters", "Lora")
    assert (
        str(caught.value)
        == 'No adapter called "Lora". Did you mean "lora"? There are: '
        + ", ".join(parts.names("models.adapters"))
        + "."
    )
    with pytest.raises(PartError, match=r'^No objective called "zzz". There are: '):
        parts.find("objectives", "zzz")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("name", ["_objective", "__init__", "", "sft.py", "../sft", "sft.PART"])
def test_what_is_no_part_is_not_imported(name: str) -> None:
    with pytest.raises(PartError):
        parts.find("objectives", name)


def test_a_package_adds_a_part_through_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours.py").write_text("PART = 'mine'\n")
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.objectives]\nmine = ours\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (parts.names, parts._foreign):
        cached.cache_clear()
    try:
        assert "mine" in parts.names("objectives")
        assert "mine" not in parts.names("data.checks")
        assert parts.find("objectives", "mine") == "mine"
        assert parts.find("objectives", "sft").name == "sft"
    finally:
        sys.modules.pop("ours", None)
        monkeypatch.undo()
        for cached in (parts.names, parts._foreign):
            cached.cache_clear()
    assert "mine" not in parts.names("objectives")
