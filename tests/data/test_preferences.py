"""Units of answers that are compared."""

from tunesmith.core.batch import TokenRow
from tunesmith.data.preferences import judged


def row(prompt: int, answer: int, label: int = 1) -> TokenRow:
    return TokenRow((prompt, prompt, answer), (0.0, 0.0, 1.0), label)


def test_a_mismatched_answer_is_to_another_question() -> None:
    """Pairs become two rows of one prompt side by side; neither is mismatched with the other."""
    pairs = [TokenRow(*_of(row(p, 10 * p)), others=(row(p, 10 * p + 1),)) for p in (1, 2, 3)]
    found = judged(pairs)
    assert [(u.ids[0], u.ids[2], u.label) for u in found] == [
        (1, 10, 1), (1, 11, 0), (2, 20, 1), (2, 21, 0), (3, 30, 1), (3, 31, 0)
    ]  # fmt: skip
    assert [u.others[0].ids for u in found] == [(1, 1, 20), (1, 1, 20), (2, 2, 30), (2, 2, 30), (3, 3, 10), (3, 3, 10)]
    assert all(u.others[0].prefix == 2 for u in found)


def _of(one: TokenRow) -> tuple[tuple[int, ...], tuple[float, ...], int]:
    return one.ids, one.weight, one.label


def test_rows_that_all_ask_the_same_are_measured_on_their_own_answers() -> None:
    found = judged([row(1, 10), row(1, 11, 0)])
    assert [u.others[0].ids for u in found] == [u.ids for u in found]
