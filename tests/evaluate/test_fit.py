"""Overfitting in words."""

import pytest

from tunesmith.core.report import CurvePoint, Estimate
from tunesmith.evaluate.fit import overfitting


def curve(*points: tuple[int, float | None, float | None]) -> list[CurvePoint]:
    return [CurvePoint(step=s, tokens=s, seconds=s, loss=loss, dev_loss=dev) for s, loss, dev in points]


@pytest.mark.parametrize(
    ("last_train", "last_dev", "starts"),
    [
        (0.5, 1.5, "Overfitting after step 20: dev loss rose 50%"),
        (0.5, 1.03, "Mild overfitting after step 20: dev loss ended 3%"),
        (3.0, 1.5, "Mild overfitting"),  # dev rose, and train rose with it
        (0.5, 1.005, "No sign of overfitting"),
        (0.5, 0.9, "No sign of overfitting"),
    ],
)
def test_losses(last_train: float, last_dev: float, starts: str) -> None:
    points = curve((10, 2.0, 1.4), (20, 1.2, 1.0), (25, last_train, None), (30, last_train, last_dev))
    best = 20 if last_dev > 1 else 30
    assert overfitting(points, best, None, None, "accuracy").startswith(starts)


def test_rewards_are_told_as_rewards() -> None:
    points = curve((10, 0.0, -0.5), (20, 0.0, -0.9), (30, 0.0, -0.65))
    told = overfitting(points, 20, None, None, "reward", worth=True)
    assert told == "The mean reward on dev was best at step 20 (0.9), at last 0.65; the checkpoint of step 20 was kept."
    assert overfitting(points, 0, None, None, "reward", worth=True).startswith("It did not learn")
    high, low = (Estimate(value=v, low=v - 0.02, high=v + 0.02, n=90) for v in (0.95, 0.7))
    assert "memorised" in overfitting(points, 20, high, low, "accuracy", worth=True)


def test_scores_apart_mean_memorised_rows() -> None:
    high, low = (Estimate(value=v, low=v - 0.02, high=v + 0.02, n=90) for v in (0.95, 0.7))
    points = curve((10, 1.0, 1.0))
    assert "memorised" in overfitting(points, 10, high, low, "accuracy")
    assert "No gap between train and dev" in overfitting(points, 10, low, low, "accuracy")
    assert "No gap between train and dev" in overfitting(points, 10, low, high, "accuracy")
    assert "memorised" in overfitting(points, 10, low, high, "perplexity")


def test_no_dev_loss_cannot_be_judged() -> None:
    assert overfitting(curve((1, 2.0, None)), 1, None, None, "accuracy").startswith("Overfitting cannot be judged")


def test_a_dev_loss_that_rose_is_told_although_the_last_step_was_kept_for_its_error_rate() -> None:
    points = curve((10, 2.0, 1.0), (20, 1.0, 1.3), (30, 0.2, 1.6))
    assert overfitting(points, 30, None, None, "accuracy").startswith("Overfitting after step 10: dev loss rose 60%")


def test_a_run_that_never_beat_its_start_did_not_learn() -> None:
    text = overfitting(curve((10, 5.0, 4.4), (20, 5.2, 4.9)), 0, None, None, "accuracy")
    assert text.startswith("It did not learn")
