"""Whole exports of tiny runs: what lies in them, that they answer as the trained model, that a broken one stays out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import small
from tests.flows.conftest import MakeRecipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.core import files
from tunesmith.core.errors import DataError, ModelError, PartError, RecipeError
from tunesmith.core.export import Proof
from tunesmith.flows import export as flow
from tunesmith.flows import proving
from tunesmith.flows.finetune import finetune
from tunesmith.models import artefact
from tunesmith.models.exports import _llama_cpp
from tunesmith.records.folder import read_jsonl

NEW = ("<topic>", "<urgent>")
Made = Callable[..., Path]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "NEW_TOKENS", 5)


@pytest.fixture(scope="module")
def made(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``made("lora")``: the folder of a finished run with that method; each is trained once."""
    found: dict[str, Path] = {}

    def run(name: str = "lora", model: str = "llama", rows: str = "asked", **method: Any) -> Path:
        key = f"{name} {model} {rows} {method}"
        if key not in found:
            ranked = {"rank": 4} if name in ("lora", "qlora", "prompt", "bottleneck") else {}
            quick = {} if rows == "labelled" else {"max_new_tokens": 4}
            recipe = make_recipe(
                rows,
                model,
                method={"name": name, **ranked, **method},
                train={"epochs": 1, "learning_rate": 1e-2},
                evaluate={"baselines": ["majority"], "limit": 2, **quick},
            )
            found[key] = Path(finetune(recipe, workspace=tmp_path_factory.mktemp("runs")).folder)
        return found[key]

    return run


def exported(run: Path, to: str, out: Path, **options: Any) -> Proof:
    return flow.export(flow.order(run, to, out=out, **options))


def holds(proof: Proof) -> bool:
    equal = proof.same_ids == proof.same_answers + proof.ties == proof.questions > 0
    return equal and not proof.faults and not proof.unproven and proof.positions >= proof.questions


# -- the prompts that prove it ----------------------------------------------------------------------------------------


def test_a_run_keeps_held_out_prompts_apart_from_its_weights(made: Made, store: Path) -> None:
    run = made(new_tokens=NEW)
    kept = [row["messages"][-1]["content"] for row in read_jsonl(run / "data" / "proof.jsonl")]
    asked = read_jsonl(store / "asked.jsonl")
    locked = json.loads((run / "data" / "splits.json").read_text())
    number = {row["prompt"]: f"asked.jsonl:{i}" for i, row in enumerate(asked, 1)}
    assert len(kept) == 8
    assert all(number[text] in locked["test"] for text in kept)
    assert not any(row["completion"] in text for text in kept for row in asked)
    held = b"".join(p.read_bytes() for p in (run / "adapter").iterdir())
    assert not any(text.encode() in held for text in kept)


# -- what is written --------------------------------------------------------------------------------------------------


def test_an_adapter_with_new_tokens_is_proven_and_whole(made: Made, tmp_path: Path) -> None:
    run = made(new_tokens=NEW)
    assert holds(exported(run, "peft", tmp_path / "out"))
    files.verify(tmp_path / "out")
    assert artefact.load(tmp_path / "out").card.vocabulary == small.VOCABULARY + 2
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: peft" in card and f"resize_token_embeddings({small.VOCABULARY + 2})" in card
    assert "with nothing trained beside them. Use `--to merged`" in card


def test_merged_weights_load_without_us_and_stop_where_training_stopped(made: Made, tmp_path: Path) -> None:
    run = made(new_tokens=NEW)
    order = flow.order(run, "merged")
    proof = flow.export(order)
    assert order.out == run / "export" / "merged"
    assert holds(proof) and proof == Proof.load(order.out / "proof.json")
    assert 0 < proof.difference < 1e-4
    network = AutoModelForCausalLM.from_pretrained(order.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(order.out)
    model = artefact.load(run / "adapter")
    ids_1T = torch.tensor([tokenizer("a <topic> b", add_special_tokens=False).input_ids])
    assert int(ids_1T.max()) >= small.VOCABULARY
    with torch.no_grad():
        assert torch.allclose(network(ids_1T).logits, model.network(ids_1T).logits, rtol=1e-4, atol=1e-4)
    assert network.generation_config.eos_token_id == [3]
    card = (order.out / "README.md").read_text()
    assert "library_name: transformers" in card and "vllm serve path/to/this/folder" in card
    with pytest.raises(DataError, match=r"merged exists already\. Name another folder with --out"):
        flow.order(run, "merged")


def test_a_head_goes_along(made: Made, tmp_path: Path) -> None:
    for to in ("peft", "merged"):
        assert holds(exported(made(model="bert", rows="labelled"), to, tmp_path / to))
        about = json.loads((tmp_path / to / "head.json").read_text())
        assert about == {"labels": ["card", "fee", "login"], "pool": "mean"}
        assert "run no such head" in (tmp_path / to / "README.md").read_text()


def test_soft_tokens_are_proven_through_peft_and_merge_into_nothing(made: Made, tmp_path: Path) -> None:
    run = made("prompt")
    assert holds(exported(run, "peft", tmp_path / "out"))
    assert "LoRA family only" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ModelError, match=r"The method prompt puts tokens of its own before every row"):
        flow.order(run, "merged")


def test_qlora_is_merged_into_the_weights_it_was_trained_on(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = made("qlora")
    assert holds(exported(run, "peft", tmp_path / "peft"))
    proof = exported(run, "merged", tmp_path / "merged")
    others = {name.removeprefix("merged "): kl for name, kl in proof.others.items()}
    assert holds(proof) and proof.kl < 1e-6
    assert others["into the dequantised weights"] == pytest.approx(proof.kl, abs=1e-6)
    assert others["into the original weights"] > 1e-3 < others["and quantised again"]
    assert "into the original weights: KL" in (tmp_path / "merged" / "README.md").read_text()
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config


def test_a_base_that_was_quantised_before_becomes_dense(made: Made, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = small.base(store / "llama", "qlora")
    base.network.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    proof = exported(made(model=str(tmp_path / "base")), "merged", tmp_path / "out")
    assert holds(proof) and proof.kl < 1e-6
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


# -- what is not published --------------------------------------------------------------------------------------------


def nudge_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    small.edit_tensor(path, "model.layers.1.mlp.down_proj.weight", 9.0)


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>assistant", "<|im_start|>bot"))


def other_stop(folder: Path) -> None:
    small.edit_json(folder / "generation_config.json", repetition_penalty=9.0)


@pytest.mark.parametrize(("spoil", "words"), [
    (nudge_weight, r"logits differ by .* above 0\.001"),
    (other_template, r"8 of 8 prompts get other token ids"),
    (other_stop, r"greedy answers differ by more than a tie"),
])  # fmt: skip
def test_a_broken_export_is_refused_and_leaves_nothing(
    made: Made, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    order = flow.order(made(), "merged", out=tmp_path / "out")

    def opened(folder: Path) -> Any:
        spoil(folder)
        return order.part.open(folder)

    with pytest.raises(ModelError, match=words + r".*Nothing was published"):
        flow.export(replace(order, part=replace(order.part, open=opened)))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_a_sentence(made: Made, tmp_path: Path) -> None:
    run = made()
    for to, options, kind, words in (
        ("onnx", {}, PartError, r'No export called "onnx".*gguf, merged, peft'),
        ("merged", {"weights": "q8_0"}, RecipeError, r"--type is q8_0. merged keeps the numbers .* Leave it out"),
        ("gguf", {"weights": "q4_k"}, RecipeError, r"--type is q4_k. Expected one of: f16, bf16, q8_0"),
        ("merged", {"out": tmp_path}, DataError, r"exists already"),
    ):
        with pytest.raises(kind, match=words):
            flow.order(run, to, **options)
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelError, match=r"no report.json: the run did not finish"):
        flow.order(tmp_path / "run", "merged")
    with pytest.raises(ModelError, match=r"full trained the model's own weights"):
        flow.order(made("full"), "peft")
    with pytest.raises(ModelError, match=r"PEFT does not know bottleneck\. tunesmith chat runs it"):
        flow.order(made("bottleneck"), "peft")
    with pytest.raises(ModelError, match=r"BertModel cannot be written as GGUF"):
        flow.order(made(model="bert", rows="labelled"), "gguf")
    with pytest.raises(ModelError, match=r"classification head has no place in a GGUF"):
        flow.order(made(rows="labelled"), "gguf")


# -- GGUF -------------------------------------------------------------------------------------------------------------


def test_a_gguf_that_nobody_can_read_here_is_written_and_labelled(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf")
    monkeypatch.setattr(_llama_cpp, "installed", lambda: False)
    proof = exported(made("full"), "gguf", tmp_path / "out", weights="q8_0")
    assert proof.unproven.startswith("llama-cpp-python is not installed")
    assert "not verified" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./model.gguf")
    held = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    assert held.fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert held.fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert "<|im_start|>" in held.fields["tokenizer.chat_template"].contents()
    types = {t.name: t.tensor_type.name for t in held.tensors}
    assert len(types) == 2 * 9 + 2 and types["blk.0.attn_q.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"


@pytest.mark.parametrize("weights", ["f16", "q8_0"])
def test_llama_cpp_answers_as_the_trained_model(made: Made, tmp_path: Path, weights: str) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    run = made(new_tokens=NEW)
    assert holds(exported(run, "gguf", tmp_path / "out", weights=weights))


@pytest.mark.shared
def test_a_real_llama_with_a_sentencepiece_tokenizer_runs_in_llama_cpp(
    shared_folder: Path, made: Made, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    run = made(model=str(shared_folder / "models" / "stories260K"))
    proof = exported(run, "gguf", tmp_path / "out")
    assert holds(proof) and proof.kl < 1e-4
