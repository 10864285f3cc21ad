"""An advice is a value: it comes back from disk as it was, with limits that are out of reach."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

import sample_advice as sample
from tunesmith.core.advice import Advice, Facts


def test_an_advice_comes_back_from_disk_with_its_hash(tmp_path: Path) -> None:
    found = sample.build(curve=sample.curve(within=0.1, overtakes=math.inf))
    found.save(tmp_path / "advice.json")
    again = Advice.load(tmp_path / "advice.json")
    assert again == found
    assert again.content_hash() == found.content_hash()
    assert again.evidence.curve is not None and math.isinf(again.evidence.curve.overtakes.value)


def test_facts_are_not_known_until_they_are_told_and_cannot_be_changed() -> None:
    facts = Facts()
    assert set(facts.model_dump().values()) == {None}
    with pytest.raises(ValidationError, match="frozen"):
        facts.prototype = True
    with pytest.raises(ValidationError, match="facts_change"):
        Facts.model_validate({"facts_change": "hourly"})
