"""Predictions beside what is published: they come out, and by how much they differ is held here."""

import pytest

from tunesmith.plan.published import JOB, LADDER, throughputs, typical_jobs, within

LARGEST = {  # difference, as a share of what is published
    "full, plain": 0.50,  # float32 moments against bf16 ones, with hardly a token to a step
    "full, packed, compiled, chunked loss": 0.25,
    "LoRA": 0.25,
    "QLoRA": 0.25,
}


def test_the_well_known_table_comes_out_of_one_job() -> None:
    jobs = typical_jobs()
    assert "90,000 examples x 1,000 tokens x 3 epochs" in JOB
    assert [(job.method, job.published) for job in jobs[:3]] == [
        ("full", (100, 500)),
        ("lora", (20, 50)),
        ("qlora", (0, 10)),
    ]
    for job in jobs[:3]:
        assert job.comes_out, (job.method, job.cost)
        assert job.cost.usd is not None
        assert job.cost.middle is not None
        assert job.cost.usd[0] < job.cost.middle < job.cost.usd[1]
        assert job.cost.kwh is not None


def test_the_priced_jobs_fit_their_devices() -> None:
    jobs = typical_jobs()
    assert [job.limit >> 30 for job in jobs] == [80, 80, 24, 140]
    assert all(job.peak < job.limit for job in jobs)
    assert jobs[0].peak < jobs[3].peak / 4  # eight devices share


def test_of_the_priced_jobs_the_middle_alone_lies_within() -> None:
    jobs = typical_jobs()
    assert not any(job.wholly for job in jobs)
    assert within((100, 500), (100, 500))
    assert not within((99, 500), (100, 500)) and not within((100, 501), (100, 500))


def test_a_device_of_today_does_full_fine_tuning_for_less_than_is_published() -> None:
    last = typical_jobs()[-1]
    assert "1 x NVIDIA H200" in last.where
    assert not last.comes_out


def test_the_ladder_is_met_within_a_quarter_but_where_the_moments_decide() -> None:
    assert "A100" in LADDER
    found = throughputs()
    assert [row.published for row in found] == [2091, 9174, 8210, 8035]
    for row in found:
        assert abs(row.difference) < LARGEST[row.what], (row.what, row.difference)
        assert row.difference == pytest.approx(row.predicted / row.published - 1)
        assert row.note
