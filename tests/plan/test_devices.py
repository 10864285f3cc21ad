"""The table of devices: its facts, the look-up, files of users, and a sentence for each thing that can be wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.plan.devices import CLOUDS, find, known_devices

DEVICES = known_devices()
Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(rows: Any) -> Path:
        path = tmp_path / "mine.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
        return path

    return written


def test_the_table_spans_laptops_and_data_centres() -> None:
    assert len(DEVICES) >= 30
    assert {d.kind for d in DEVICES.values()} == {"cpu", "cuda"}
    assert min(d.memory_gib for d in DEVICES.values()) <= 12
    assert max(d.memory_gib for d in DEVICES.values() if d.kind == "cuda") >= 179


@pytest.mark.parametrize("name", DEVICES)
def test_each_row_is_plausible_and_says_where_it_is_from(name: str) -> None:
    device = DEVICES[name]
    assert "2017-01" <= device.date <= "2026-12"
    assert device.source
    for kind in ("tf32", "bfloat16", "float16"):
        assert device.tflops.get(kind, 1e9) >= device.tflops["float32"]
    if device.kind == "cuda":
        assert device.watts is not None
    if device.prices is not None:
        assert device.prices_as_of is not None
        ends = [device.prices[cloud] for cloud in CLOUDS if cloud in device.prices]
        assert ends == sorted(ends)  # a marketplace is the cheapest, a large cloud the dearest


def test_no_name_stands_twice() -> None:
    names = [n.casefold() for d in DEVICES.values() for n in (d.name, *d.aliases)]
    assert len(set(names)) == len(names)


def test_any_case_and_an_alias_find_a_device() -> None:
    assert find("RTX-4090") == find(" nvidia  rtx 4090 ") == find("4090")
    assert find("a100").memory == 80 * 2**30


def test_an_unknown_device_is_a_sentence_with_the_nearest_and_the_way_out() -> None:
    with pytest.raises(RecipeError, match=r'"a10-80gb" is not among .* Did you mean "a100-80gb".*file of your own'):
        find("a10-80gb")


def test_prices_are_those_of_the_clouds_that_are_named() -> None:
    device = find("a100-80gb")
    assert device.price("specialist") == (1.2, 2.7)
    assert device.price("marketplace", "specialist") == (0.6, 2.7)
    assert device.price() == (0.6, 5.1)
    assert find("laptop").price() is None
    assert find("3060").price("hyperscaler") is None


def test_a_users_file_adds_devices_and_replaces_those_of_the_same_name(write: Write) -> None:
    ours = find("a100-80gb")
    path = write(
        [
            {"name": "our A100", "like": ours.name, "prices": {"specialist": [1.0, 1.0]}, "prices_as_of": "2026-01"},
            {"name": "NVIDIA L4", "watts": 60},
            {
                "name": "Abacus",
                "kind": "cpu",
                "memory_gib": 1,
                "bandwidth_gb": 2,
                "tflops": {"float32": 0.1},
                "source": "counted",
                "date": "2026-01",
            },
        ]
    )
    mine = known_devices(path)
    assert len(mine) == len(DEVICES) + 2
    assert find("our a100", path).tflops == ours.tflops
    assert find("our A100", path).price() == (1.0, 1.0)
    assert find("l4", path).watts == 60
    assert find("abacus", path).prices is None
    assert find("a100", path) == ours


GOOD = {
    "name": "Abacus",
    "kind": "cpu",
    "memory_gib": 1,
    "bandwidth_gb": 2,
    "tflops": {"float32": 1},
    "source": "x",
    "date": "2026-01",
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "tpu"}, 'row 1 ("Abacus"): kind is "tpu"; expected cpu or cuda'),
        ({"memory_gib": -3}, "memory_gib is -3; expected a number above 0"),
        ({"memory_gib": True}, "memory_gib is True"),
        ({"bandwidth_gb": "fast"}, "bandwidth_gb is 'fast'"),
        ({"tflops": {"bfloat16": 1}}, "tflops has no float32"),
        ({"tflops": {"float32": 1, "bfloat61": 1}}, 'tflops.bfloat61 is unknown. Did you mean "bfloat16"?'),
        ({"tflops": 7}, "tflops is 7; expected numbers by name: float32"),
        ({"tflops": {"float32": float("inf")}}, "tflops.float32 is inf"),
        ({"prices": {"marketplace": [2, 1]}, "prices_as_of": "2026-01"}, "low is above high. Swap them"),
        ({"prices": {"marketplace": 2}, "prices_as_of": "2026-01"}, "expected [low, high] in US dollars an hour"),
        ({"prices": {"marketplace": [1, 2]}}, "prices_as_of is None; expected a text"),
        ({"prices": {"market": [1, 2]}}, "prices.market is unknown"),
        ({"aliases": "a"}, "aliases is 'a'; expected a list of names"),
        ({"watt": 3}, 'watt is no field. Did you mean "watts"?'),
        ({"date": ""}, "date is ''; expected a text"),
        ({"name": None}, "row 1: name is None; expected a text"),
        ({"like": "Abaqus"}, 'like is "Abaqus", which is no device.'),
    ],
)
def test_what_is_wrong_in_a_users_file_is_a_sentence(write: Write, change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        known_devices(write([GOOD | change]))
    assert told in str(caught.value)
    assert "mine.json" in str(caught.value)


def test_a_missing_field_is_named(write: Write) -> None:
    for key in ("kind", "memory_gib", "tflops", "source"):
        with pytest.raises(DataError, match=f"{key} is missing. State it, or name a device that it is like"):
            known_devices(write([{k: v for k, v in GOOD.items() if k != key}]))


def test_a_file_that_is_no_list_of_objects_is_a_sentence(write: Write, tmp_path: Path) -> None:
    for rows in ("{", "[" * 100_000, "", {"name": "x"}, [1]):
        with pytest.raises(DataError, match=r"xpected a JSON list"):
            known_devices(write(rows))
    with pytest.raises(DataError, match=r"nowhere\.json"):
        known_devices(tmp_path / "nowhere.json")


@pytest.mark.parametrize("change", [{"like": []}, {"like": {}}, {"memory_gib": 10**400}, {"kind": []}])
def test_odd_types_and_numbers_are_sentences(write: Write, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(change))):
        known_devices(write([GOOD | change]))


def test_two_devices_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('[{"name": "a", "like": "NVIDIA T4"}, {"name": "a", "like": "NVIDIA L4"}]')
    with pytest.raises(DataError, match=r'mine\.json row 2: name is "a" a second time'):
        known_devices(path)
