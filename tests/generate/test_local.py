"""A loaded model as completer, embedder and classifier: likelihoods worked by hand, and the edges of the context."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from tests import small

from tunesmith.core.example import Example, Message
from tunesmith.generate import local as local_module
from tunesmith.generate.local import NOWHERE, LocalModel
from tunesmith.generate.sampler import Draw, Token
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off

ASKED = (Message(role="user", content="Where is my parcel?"),)
CHAT = (
    Message(role="system", content="Be brief."),
    *ASKED,
    Message(role="assistant", content="\n On its way."),
    Message(role="user", content="When?"),
)
ANSWERS = ["Tomorrow.", "", "A long answer, with <|im_end|> inside it, that goes on for a while.", " x"]


def by_hand(model: Model, ids: list[int], start: int) -> float:
    with torch.no_grad():
        logp_TV = model.network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logp_TV[t - 1, ids[t]]) for t in range(start, len(ids)))


@pytest.mark.parametrize("prompt", [ASKED, CHAT])
def test_the_likelihood_of_an_answer_is_the_sum_over_its_tokens_and_its_stop(
    llama: Model, prompt: tuple[Message, ...]
) -> None:
    local = LocalModel(llama)
    found = local.likelihood([prompt] * len(ANSWERS), ANSWERS)
    shown = local.renderer.prompt_ids(prompt)
    plain = [llama.tokenizer(a, add_special_tokens=False, split_special_tokens=True).input_ids for a in ANSWERS]
    for likelihood, ids in zip(found, plain, strict=True):
        row = [*shown, *ids, llama.tokenizer.eos_token_id]
        assert likelihood.tokens == len(ids) + 1
        assert likelihood.logp == pytest.approx(by_hand(llama, row, len(shown)), abs=1e-3)


def test_the_likelihood_of_a_plain_text_is_that_of_all_its_tokens_after_bos(llama: Model) -> None:
    ids = llama.tokenizer("Once upon a time.", add_special_tokens=False).input_ids
    (found,) = LocalModel(llama).likelihood([()], ["Once upon a time."])
    assert found.tokens == len(ids)
    assert found.logp == pytest.approx(by_hand(llama, [1, *ids], 1), abs=1e-3)


def test_a_likelihood_cut_at_the_context_says_how_many_tokens_were_scored(llama: Model) -> None:
    local = LocalModel(llama)
    shown = len(local.renderer.prompt_ids(ASKED))
    long, hopeless = local.likelihood([ASKED, (Message(role="user", content="word " * 200),)], ["word " * 200, "No."])
    assert long.tokens == llama.card.context - shown
    assert (hopeless.tokens, hopeless.logp) == (0, 0.0)


@pytest.mark.parametrize("prompt", [ASKED, CHAT])
def test_the_likelihood_of_labels_is_that_of_each_pair(llama: Model, prompt: tuple[Message, ...]) -> None:
    labels = ["refund", "card not arrived", "\nother", "x" * 40]
    local = LocalModel(llama)
    table = local.label_logp([prompt, ASKED], labels)
    for asked, row in zip([prompt, ASKED], table, strict=True):
        pairs = [x.logp for x in local.likelihood([asked] * len(labels), labels)]
        assert row == pytest.approx(pairs, abs=1e-3)
    assert len(set(table[0])) == len(labels)


def test_labels_that_do_not_fit_the_context_are_scored_as_pairs(llama: Model) -> None:
    local = LocalModel(llama)
    labels = ["yes", "word " * 200]
    pairs = [x.logp for x in local.likelihood([ASKED] * 2, labels)]
    assert local.label_logp([ASKED], labels)[0] == pytest.approx(pairs, abs=1e-3)


def test_labels_agree_where_the_head_bends_the_logits(gemma2: Model) -> None:
    """A soft-capped head: cached labels, pairs and the network's own logits give one number."""
    local = LocalModel(gemma2)
    row = local.label_logp([ASKED], ["yes", "no way"])[0]
    assert row == pytest.approx([x.logp for x in local.likelihood([ASKED] * 2, ["yes", "no way"])], abs=1e-3)
    shown = local.renderer.prompt_ids(ASKED)
    ids = [*shown, *gemma2.tokenizer("yes").input_ids, gemma2.tokenizer.eos_token_id]
    assert row[0] == pytest.approx(by_hand(gemma2, ids, len(shown)), abs=1e-3)


def test_completions_are_counted_and_say_how_they_ended(llama: Model) -> None:
    local = LocalModel(llama)
    context, shown = llama.card.context, len(local.renderer.prompt_ids(ASKED))
    long = (Message(role="user", content="word " * 200),)
    first, none, last = local.complete([ASKED, long, CHAT], max_new_tokens=8)
    assert (first.finish, first.new_tokens, first.prompt_tokens) == ("length", 8, shown)
    assert first.text.strip()
    assert (none.finish, none.new_tokens, none.text) == ("context", 0, "")
    assert none.prompt_tokens > context
    assert last == local.complete([CHAT], max_new_tokens=8)[0]
    assert local.complete([ASKED], max_new_tokens=context - shown)[0].finish == "length"  # fits to the last token
    assert local.complete([ASKED], max_new_tokens=context - shown + 1)[0].finish == "context"
    assert local.count_tokens(ASKED) == shown


def test_a_stop_token_ends_a_completion(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A network whose head knows one token only, the end of turn."""
    folder = small.llama(tmp_path_factory.mktemp("stops") / "base", tie_word_embeddings=False)
    model = loading.load(str(folder))
    local = LocalModel(model)
    shown = torch.tensor([local.renderer.prompt_ids(ASKED)])
    with torch.no_grad():
        state_D = model.backbone(input_ids=shown).last_hidden_state[0, -1]
        model.network.lm_head.weight[3] = state_D
    (done,) = local.complete([ASKED], max_new_tokens=8)
    assert (done.text, done.new_tokens, done.finish) == ("", 0, "stop")


def test_a_sampled_answer_does_not_hang_on_whether_its_neighbours_fit(llama: Model) -> None:
    local = LocalModel(llama, Draw(temperature=1.0, seed=3))
    long = (Message(role="user", content="word " * 200),)
    assert local.complete([long, ASKED], max_new_tokens=6)[1] == local.complete([CHAT, ASKED], max_new_tokens=6)[1]


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}])
def test_answers_are_drawn_as_told(llama: Model, cut: dict[str, float]) -> None:
    """With all tokens cut off but the likeliest, the answer is the greedy one; else the seed draws it."""
    greedy = LocalModel(llama).complete([ASKED], max_new_tokens=6)
    hot = [LocalModel(llama, Draw(temperature=5.0, seed=s)).complete([ASKED], max_new_tokens=6) for s in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2] and greedy not in hot
    assert LocalModel(llama, Draw(temperature=5.0, **cut)).complete([ASKED], max_new_tokens=6) == greedy


def test_what_is_streamed_ends_before_a_stop(llama: Model) -> None:
    """None of its characters is shown, however early they are written."""
    whole = "".join(LocalModel(llama).stream(ASKED, max_new_tokens=24))
    stop = whole[len(whole) // 2 :][:12]
    local = LocalModel(llama, Draw(stops=(stop, "never to be seen, and longer than what is held back anyway")))
    pieces = list(local.stream(ASKED, max_new_tokens=24))
    assert "".join(pieces) == local.complete([ASKED], max_new_tokens=24)[0].text
    assert stop not in "".join(pieces) and whole.startswith("".join(pieces))


def test_a_long_token_that_a_stop_begins_in_is_held_back_whole(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = {1: "a", 2: " " * 40, 3: "x"}
    written = [*(Token(0, i) for i in pieces), Token(0, None, finish="stop", kept=1)]
    monkeypatch.setattr(local_module, "stream", lambda *_: iter(written))
    local = LocalModel(llama, Draw(stops=("  x",)))
    decode = SimpleNamespace(decode=lambda ids, **_: "".join(pieces[i] for i in ids))
    local.model = cast(Model, SimpleNamespace(tokenizer=decode))
    assert "".join(local.stream(ASKED, max_new_tokens=9)) == "a"


def test_vectors_have_length_one_and_do_not_depend_on_padding(bert: Model) -> None:
    local = LocalModel(bert)
    texts = [
        "card",
        "The card that I ordered three weeks ago has still not arrived at my address",
        "a fee",
        "Zürich 漢字",
    ]
    together = local.embed(texts)
    for text, vector in zip(texts, together, strict=True):
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)
        assert local.embed([text])[0] == pytest.approx(vector, abs=1e-5)
    ids = torch.tensor([local.renderer.tokenizer(texts[0]).input_ids])
    with torch.no_grad():
        mean_D = bert.network(input_ids=ids).last_hidden_state[0].mean(0)
    assert together[0] == pytest.approx((mean_D / mean_D.norm()).tolist(), abs=1e-5)
    assert local.embed(["word " * 300]) != local.embed(["other " * 300])  # beyond the context: cut, not a crash


def test_a_classifier_names_the_likeliest_label_with_its_log_probability(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = loading.load(str(small.bert(tmp_path_factory.mktemp("head") / "base")))
    model.add_head(("card", "fee", "limit"), seed=4)
    assert model.head is not None
    with torch.no_grad():
        model.head.score.weight *= 50
    local = LocalModel(model)
    texts = ["card", "The card that I ordered three weeks ago", "a fee abroad", "limit", "?", "my money"]
    found = local.classify(texts)
    assert len({label for label, _ in found}) > 1
    for text, (label, logp) in zip(texts, found, strict=True):
        assert local.classify([text])[0] == (label, pytest.approx(logp, abs=1e-4))
        ids = torch.tensor([model.tokenizer(text).input_ids])
        with torch.no_grad():
            logp_C = model.head.score(model.network(input_ids=ids).last_hidden_state.mean(1))[0].log_softmax(-1)
        assert (label, logp) == (local.labels[int(logp_C.argmax())], pytest.approx(float(logp_C.max()), abs=1e-4))


def test_with_the_adapter_off_the_answers_are_the_bases(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = small.llama(tmp_path_factory.mktemp("off") / "base")
    base, tuned = loading.load(str(folder)), loading.load(str(folder))
    small.stir(small.attach(tuned, "lora"), size=0.3)
    plain = LocalModel(base).complete([ASKED], max_new_tokens=12)
    assert LocalModel(tuned).complete([ASKED], max_new_tokens=12) != plain
    with adapters_off(tuned):
        assert LocalModel(tuned).complete([ASKED], max_new_tokens=12) == plain


TOOL = {"type": "function", "function": {"name": "find"}}
CALL = Message(role="assistant", tool_calls=({"function": {"name": "find", "arguments": {"id": 7}}},), weight=0.0)


def test_a_prompt_with_tools_is_asked_as_it_is_trained_and_a_call_is_scored_as_a_turn(wide: Model) -> None:
    local = LocalModel(wide)
    row = Example(place=NOWHERE, messages=(*ASKED, CALL.model_copy(update={"weight": 1.0})), tools=(TOOL,))
    (trained,) = local.renderer.rows(row).rows
    start = next(i for i, weight in enumerate(trained.weight) if weight > 0)
    ids = list(trained.ids)
    done, bare = local.complete([ASKED, ASKED], max_new_tokens=4, tools=[(TOOL,), ()])
    assert (done.prompt_tokens, local.count_tokens(ASKED, tools=(TOOL,))) == (start, start)
    assert bare == local.complete([ASKED], max_new_tokens=4)[0]
    (found,) = local.likelihood([ASKED], [CALL], tools=[(TOOL,)])
    assert found.tokens == sum(weight > 0 for weight in trained.weight)
    assert found.logp == pytest.approx(by_hand(wide, ids[: start + found.tokens], start), abs=1e-3)
    labels = ["yes", "no way"]
    pairs = [x.logp for x in local.likelihood([ASKED] * 2, labels, tools=[(TOOL,)] * 2)]
    assert local.label_logp([ASKED], labels, tools=[(TOOL,)])[0] == pytest.approx(pairs, abs=1e-3)
    assert local.label_logp([ASKED], labels)[0] != pytest.approx(pairs, abs=1e-3)


def test_tools_are_given_for_each_prompt_or_for_none(llama: Model) -> None:
    with pytest.raises(ValueError, match="zip"):
        LocalModel(llama).complete([ASKED, ASKED], max_new_tokens=4, tools=[(TOOL,)])
