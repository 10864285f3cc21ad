"""Published figures come out of the plan as far as the work is the same."""

from tunesmith.plan.published_memory import RULE, memories

ROWS = memories()


def test_the_rule_of_thumb_comes_out_within_a_fifth() -> None:
    rule = [row for row in ROWS if row.source == RULE]
    assert len(rule) == 12
    assert all(abs(row.difference) < 0.2 for row in rule), [(r.what, r.difference) for r in rule]


def test_a_model_of_65b_fits_a_gpu_of_48_gib_in_four_bits() -> None:
    (paper,) = (row for row in ROWS if row.what.startswith("65B"))
    assert paper.predicted * 1e9 < 48 * 2**30


def test_what_others_do_otherwise_is_said() -> None:
    assert all(row.note and row.published > 0 for row in ROWS)
    assert any(abs(row.difference) > 0.3 for row in ROWS)  # and not hidden
