"""What the machine is said to have."""

from pathlib import Path

import pytest
import torch

from tunesmith.models import machine
from tunesmith.models.allocator import keep_freed_memory
from tunesmith.plan.here import memory


@pytest.mark.parametrize(
    ("name", "text", "limited"),
    [
        ("memory.max", "3000000\n", True),
        ("memory.max", "max\n", False),
        ("memory.max", "9223372036854771712\n", False),  # what the old groups say for no limit
        ("memory/memory.limit_in_bytes", "3000000\n", True),
        (None, "", False),
    ],
)
def test_a_container_s_limit_counts_where_it_is_lower(
    name: str | None, text: str, limited: bool, tmp_path: Path
) -> None:
    if name is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = memory(tmp_path / "nothing")
    assert whole is not None and whole > 1 << 30
    assert memory(tmp_path) == (3_000_000 if limited else whole)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_emulates_bf16_is_not_fast_at_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert machine.has_fast_bfloat16() is native


def test_the_peak_begins_anew_and_holds_what_was_freed_since() -> None:
    assert keep_freed_memory()  # as every run does
    block = torch.ones(1 << 26)  # 256 MiB
    del block
    peak = machine.PeakMemory()
    start = peak.bytes()
    assert start is not None
    block = torch.ones(1 << 25)
    del block
    end = peak.bytes()
    assert end is not None
    assert "while training" in peak.what
    assert 100 << 20 < end - start < 200 << 20  # 128 MiB more: not the block of before


def test_where_the_count_cannot_begin_anew_it_is_that_of_the_whole_process(tmp_path: Path) -> None:
    peak = machine.PeakMemory(tmp_path / "nothing")
    assert "whole process" in peak.what
    assert (peak.bytes() or 0) > 50 << 20
