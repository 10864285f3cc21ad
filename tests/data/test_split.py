"""What a split promises: nothing alike straddles, shares hold, labels are learnable, and the lock notices a change."""

import json
import random
from collections import Counter

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.example import Dataset, Example, Message, Place
from tunesmith.core.recipe import DataRecipe
from tunesmith.data import near
from tunesmith.data.read import read
from tunesmith.data.split import LOCK, check_lock, hash_rows, lock, write_lock

SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "xe", "zi"]


def sentence(rng: random.Random) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(8))


def rows(texts, labels=None, groups=None, file="train.jsonl") -> Dataset:
    examples = tuple(
        Example(
            place=Place(file=file, line=i + 1),
            messages=(Message(role="user", content=t),),
            label=labels[i] if labels else "a",
            group=groups[i] if groups else None,
        )
        for i, t in enumerate(texts)
    )
    return Dataset(examples=examples, format="text_label", why="w")


def random_rows(
    count: int, seed: int, *, labels: int = 4, groups: int = 0, twins: float = 0.0, file="train.jsonl"
) -> Dataset:
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        old = rng.choice(texts) if texts and rng.random() < twins else ""
        texts.append(old.replace("a", "aa", 1) if old else sentence(rng))
    names = [f"label{min(int(rng.expovariate(0.8)), labels - 1)}" for _ in texts]
    owners = [f"g{rng.randrange(groups)}" for _ in texts] if groups else None
    return rows(texts, names, owners, file)


def recipe(**options) -> DataRecipe:
    return DataRecipe(train="train.jsonl", **options)


def sides(splits) -> dict[str, str]:
    return {e.id: name for name in ("train", "dev", "test") for e in getattr(splits, name)}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_alike_straddles_and_nothing_is_lost(seed):
    data = random_rows(400, seed, groups=150, twins=0.3)
    splits = lock(data, recipe(split={"seed": seed, "group_by": "g"}), task="classify")
    side = sides(splits)
    assert len(side) == 400
    cluster = near.clusters([e.input_text for e in data.examples])
    for i, example in enumerate(data.examples):
        assert side[example.id] == side[data.examples[cluster[i]].id]
    by_group: dict = {}
    for example in data.examples:
        assert by_group.setdefault(example.group, side[example.id]) == side[example.id]


@pytest.mark.parametrize("seed", range(4))
def test_shares_and_strata_hold(seed):
    data = random_rows(1000, seed, twins=0.1)
    splits = lock(data, recipe(split={"seed": seed, "dev": 0.1, "test": 0.2}), task="classify")
    assert abs(len(splits.dev) - 100) <= 10
    assert abs(len(splits.test) - 200) <= 10
    everything = Counter(e.label for e in data.examples)
    for part, share in ((splits.dev, 0.1), (splits.test, 0.2)):
        counts = Counter(e.label for e in part)
        assert all(abs(counts[label] - share * n) <= max(3, 0.15 * share * n) for label, n in everything.items())


def test_many_small_labels_still_fill_the_test():
    data = rows([sentence(random.Random(i)) for i in range(600)], [f"l{i // 3}" for i in range(600)])
    splits = lock(data, recipe(), task="classify")
    assert abs(len(splits.test) - 90) <= 9
    assert {e.label for e in splits.train} == {e.label for e in data.examples}


def test_the_seed_decides_and_nothing_else():
    data = random_rows(200, 0)
    one, same, other = (lock(data, recipe(split={"seed": s}), task="classify") for s in (1, 1, 2))
    assert one == same
    assert one.test_hash != other.test_hash
    assert one.test_hash == hash_rows(one.test[::-1])


def test_a_label_with_one_row_goes_to_train():
    for seed in range(5):
        data = rows([sentence(random.Random(i)) for i in range(60)], ["a"] * 58 + ["b", "c"])
        splits = lock(data, recipe(split={"seed": seed, "dev": 0.3, "test": 0.3}), task="classify")
        assert {"b", "c"} <= {e.label for e in splits.train}


def test_a_giant_cluster_is_said_and_stays_in_train():
    rng = random.Random(0)
    base = sentence(rng)
    data = rows([base + " x" * (i % 2) for i in range(30)] + [sentence(rng) for _ in range(70)])
    splits = lock(data, recipe(), task="classify")
    assert "30 of them are one unit, all in train" in splits.how
    assert 8 <= len(splits.dev) <= 12
    assert 13 <= len(splits.test) <= 17


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_too_few_to_split_is_a_sentence(count):
    data = rows([sentence(random.Random(i)) for i in range(count)])
    with pytest.raises(DataError, match=r"too few for train 75%, dev 10%, test 15%.*data\.test"):
        lock(data, recipe(), task="classify")


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match="40 rows in 1 unit"):
        lock(rows([sentence(random.Random(i)) for i in range(40)], groups=["g"] * 40), recipe(), task="classify")


def test_shares_must_leave_a_train():
    with pytest.raises(DataError, match="leave no rows for train"):
        lock(random_rows(50, 0), recipe(split={"dev": 0.5, "test": 0.6}), task="classify")


def test_train_gives_way_to_a_test_of_its_own():
    test = random_rows(60, 1, file="test.jsonl")
    data = random_rows(300, 2)
    leaked = rows(
        [e.input_text.upper() + "!" for e in test.examples[:7]], [e.label for e in test.examples[:7]], file="l.jsonl"
    )
    data = data.model_copy(update={"examples": (*data.examples, *leaked.examples)})
    splits = lock(data, recipe(), task="classify", test=test)
    assert (splits.test, splits.moved) == (test.examples, 7)
    assert "7 rows of train left out" in splits.how
    held = [e.input_text for e in splits.test]
    assert not near.touching([e.input_text for e in (*splits.train, *splits.dev)], held).any()
    assert len(splits.train) + len(splits.dev) == 300
    assert 25 <= len(splits.dev) <= 35


def test_dev_gives_way_to_test_and_groups_count():
    data = rows([sentence(random.Random(i)) for i in range(50)], groups=[f"g{i}" for i in range(50)])
    test = rows([sentence(random.Random(i)) for i in range(100, 110)], groups=["g0"] * 10, file="test.jsonl")
    dev_texts = [test.examples[0].input_text, *(sentence(random.Random(i)) for i in range(200, 209))]
    dev = rows(dev_texts, groups=["g1"] * 10, file="dev.jsonl")
    splits = lock(data, recipe(), task="classify", dev=dev, test=test)
    assert (len(splits.train), len(splits.dev), len(splits.test), splits.moved) == (48, 9, 10, 3)
    assert "1 row of dev left out" in splits.how


def test_a_label_only_in_test_names_its_row():
    test = rows([sentence(random.Random(i)) for i in range(900, 905)], ["a", "a", "zebra", "a", "a"], file="test.jsonl")
    with pytest.raises(DataError, match=r"test\.jsonl line 3: label 'zebra' stands in test and not in train"):
        lock(rows([sentence(random.Random(i)) for i in range(40)]), recipe(), task="classify", test=test)
    lock(rows([sentence(random.Random(i)) for i in range(40)]), recipe(), task="generate", test=test)


def test_a_label_that_train_has_only_as_a_copy_of_test_is_left_out():
    texts = [sentence(random.Random(i)) for i in range(40)]
    test = rows([texts[0], sentence(random.Random(99))], ["rare", "a"], file="test.jsonl")
    splits = lock(rows(texts, ["rare"] + ["a"] * 39), recipe(), task="classify", test=test)
    assert [e.label for e in splits.test] == ["a"]
    assert splits.moved == 2
    assert "1 row of test left out: no other training row has their label" in splits.how


def test_limit_draws_evenly_and_keeps_every_label():
    data = random_rows(800, 3, labels=6)
    splits = lock(data, recipe(limit=60), task="classify")
    full = lock(data, recipe(), task="classify")
    assert len(splits.train) == 60
    assert (splits.dev, splits.test) == (full.dev, full.test)
    assert {e.label for e in splits.train} == {e.label for e in full.train}
    share = Counter(e.label for e in full.train)
    drawn = Counter(e.label for e in splits.train)
    assert all(abs(drawn[k] - 60 * n / len(full.train)) <= 2 for k, n in share.items())
    with pytest.raises(DataError, match=r"data\.limit"):
        lock(data, recipe(limit=2), task="classify")


def test_json_answers_are_stratified_by_a_telling_field():
    def answer(i: int) -> str:
        return json.dumps({"id": i, "intent": f"intent{i % 4}", "urgent": i % 2 == 0})

    examples = tuple(
        Example(
            place=Place(file="a.jsonl", line=i + 1),
            messages=(
                Message(role="user", content=sentence(random.Random(i))),
                Message(role="assistant", content=answer(i) if i % 40 else "oops"),
            ),
        )
        for i in range(400)
    )
    splits = lock(Dataset(examples=examples, format="chat", why="w"), recipe(), task="generate")
    counts = Counter(json.loads(e.answer)["intent"] for e in splits.test if e.answer != "oops")
    assert max(counts.values()) - min(counts.values()) <= 3
    assert "stratified over" in splits.how


def test_the_lock_notices_a_change(tmp_path):
    data = random_rows(100, 0)
    splits = lock(data, recipe(), task="classify")
    write_lock(splits, tmp_path)
    check_lock(lock(data, recipe(), task="classify"), tmp_path)
    saved = json.loads((tmp_path / LOCK).read_text())
    assert saved["test_hash"] == splits.test_hash
    assert saved["test"] == [e.id for e in splits.test]
    with pytest.raises(DataError, match=r"train and dev and test differ"):
        check_lock(lock(data, recipe(split={"seed": 1}), task="classify"), tmp_path)
    changed = splits.test[0].model_copy(update={"label": "other"})
    with pytest.raises(DataError, match=r"splits\.json: test differ"):
        check_lock(splits.model_copy(update={"test": (changed, *splits.test[1:])}), tmp_path)


def test_a_missing_or_damaged_lock_is_a_sentence(tmp_path):
    splits = lock(random_rows(100, 0), recipe(), task="classify")
    with pytest.raises(DataError, match="is missing"):
        check_lock(splits, tmp_path)
    for text in ("", "{", "[]", '{"hashes": 3}'):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(DataError, match="is damaged"):
            check_lock(splits, tmp_path)


@pytest.mark.shared
def test_banking77_keeps_its_whole_test(shared_folder):
    train, test = (
        read(shared_folder / "data" / "banking77" / f"{n}.jsonl", recipe(), "classify") for n in ("train", "test")
    )
    splits = lock(train, recipe(), task="classify", test=test)
    assert len(splits.test) == 3080
    assert len({e.label for e in splits.train}) == 77
    assert 100 < splits.moved < 300
    assert len(splits.train) + len(splits.dev) + splits.moved == 10_003
