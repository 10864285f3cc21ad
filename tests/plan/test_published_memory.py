"""Published figures come out of the plan as far as the work is the same."""

import pytest

from tunesmith.plan.devices import find
from tunesmith.plan.published_memory import PAPER, RULE, memories, well_known

ROWS = memories()


def test_the_rule_of_thumb_comes_out_within_a_fifth() -> None:
    rule = [row for row in ROWS if row.source == RULE]
    assert len(rule) == 12
    assert all(abs(row.difference) < 0.2 for row in rule), [(r.what, r.difference) for r in rule]


def test_a_model_of_65b_fits_a_card_of_48_gb_in_four_bits() -> None:
    """Which holds 48 GiB."""
    (paper,) = (row for row in ROWS if row.what.startswith("65B"))
    assert (paper.unit, paper.published, find("a6000").memory) == ("GiB", 48, 48 << 30)
    assert 40 < paper.predicted < 48


def test_all_four_steps_of_the_ladder_stand_in_its_own_unit() -> None:
    ladder = [row for row in ROWS if row.source.startswith("torchtune")]
    assert [row.published for row in ladder] == [25.5, 42.9, 8.5, 4.6]
    assert {row.unit for row in ladder} == {"GiB"}
    assert {row.unit for row in ROWS if row.source == RULE} == {"GB"}


def test_double_quantisation_saves_what_its_paper_says() -> None:
    (saved,) = (row for row in ROWS if row.source == PAPER and row.published == 0.37)
    assert saved.unit == "bits a weight"
    assert saved.predicted == pytest.approx(32 / 64 - (8 / 64 + 32 / (64 * 256)))
    assert abs(saved.difference) < 0.01


def test_the_well_known_table_says_where_the_middle_alone_lies_within() -> None:
    known = {row.what: row for row in well_known()}
    assert list(known) == ["7B, full", "7B, lora", "7B, qlora", "65B, qlora"]
    assert all(row.comes_out and row.range[0] < row.middle < row.range[1] for row in known.values())
    assert [what for what, row in known.items() if not row.wholly] == ["7B, qlora"]
    assert known["7B, qlora"].bounds[0] > 5  # "about 10" has a lower bound too


def test_what_others_do_otherwise_is_said() -> None:
    assert all(row.note and row.published > 0 for row in ROWS)
    assert any(abs(row.difference) > 0.3 for row in ROWS)  # and not hidden
