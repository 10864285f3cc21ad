"""What can be loaded, and a sentence for each folder that cannot."""

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import load as loading

Spoil = Callable[[Path], object]
WEIGHTS = "model.safetensors"


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1000])


def claim_length(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 63) + data[8:])


def widen_a_tensor(folder: Path) -> None:
    """The file's size is right, one tensor's shape is not."""
    data = (folder / WEIGHTS).read_bytes()
    length = small.header_length(folder / WEIGHTS)
    header = json.loads(data[8 : 8 + length])
    name = next(n for n in header if n != "__metadata__")
    header[name]["shape"][0] += 1
    text = json.dumps(header, separators=(",", ":")).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def reshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = torch.ones(31)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def spoil_a_number(value: float) -> Spoil:
    return lambda folder: small.edit_tensor(folder / WEIGHTS, "model.layers.1.mlp.up_proj.weight", value)


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def gguf_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-q4.gguf")


def become_an_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')


def point_elsewhere(folder: Path) -> None:
    """Beside a whole model: transformers would follow it to another base."""
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere", "peft_type": "LORA"}')


def add_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra {n}>" for n in range(5)])
    tokenizer.save_pretrained(folder)


def slow_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')


def edit(name: str, **changes: Any) -> Spoil:
    return lambda folder: small.edit_json(folder / name, **changes)


def write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def drop(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


FAULTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "no weights": (drop(WEIGHTS), ("no weights", "safetensors")),
    "pickle only": (pickle_only, ("pickle", "pytorch_model.bin", "Convert")),
    "GGUF only": (gguf_only, ("model-q4.gguf", "running, not for training")),
    "weights of another name": (lambda f: (f / WEIGHTS).rename(f / "weights.safetensors"), ("weights.safetensors",)),
    "code of its own": (edit("config.json", auto_map={"AutoModel": "x.Y"}), ("auto_map", "never runs")),
    "code of its tokenizer": (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
        ("tokenizer_config.json", "auto_map", "never runs"),
    ),
    "code of its processor": (
        write("processor_config.json", '{"auto_map": {"AutoProcessor": "x.Y"}}'),
        ("processor_config.json", "auto_map", "never runs"),
    ),
    "tokenizer's config is no JSON": (write("tokenizer_config.json", "{"), ("tokenizer_config.json", "not valid JSON")),
    "config without bottom": (write("config.json", "[" * 200_000), ("config.json", "not valid JSON")),
    "no config": (drop("config.json"), ("no config.json",)),
    "config is no JSON": (write("config.json", '{"model_type": '), ("config.json", "not valid JSON", "line 1")),
    "config is a list": (write("config.json", "[]"), ("config.json", "holds a list")),
    "config of an unknown kind": (edit("config.json", model_type="nonesuch"), ("cannot be read", "nonesuch")),
    "config of wrong type": (edit("config.json", hidden_size="wide"), ("cannot be read", "hidden_size")),
    "config that divides by zero": (
        edit("config.json", num_attention_heads=0),
        ("config.json", "cannot be read", "Error", "Fetch the model again"),
    ),
    "config without a size": (edit("config.json", vocab_size=None), ("config.json", "cannot be read", "vocab_size")),
    "tokenizer of another kind": (write("tokenizer.json", '{"a": 1}'), ("tokenizer of", "cannot be read", "Fetch")),
    "no tokenizer": (
        drop("tokenizer.json", "tokenizer_config.json"),
        ("tokenizer of", "cannot be read", "Fetch tokenizer.json"),
    ),
    "empty file": (write(WEIGHTS, ""), (WEIGHTS, "0 bytes", "Fetch it again")),
    "cut file": (cut, (WEIGHTS, "damaged", "Fetch it again")),
    "no safetensors": (write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), (WEIGHTS, "Fetch it again")),
    "header of 2**63 bytes": (claim_length, (WEIGHTS, "damaged", "Fetch it again")),
    "shape against offsets": (widen_a_tensor, (WEIGHTS, "damaged", "Fetch it again")),
    "a tensor lost": (lose_a_tensor, ("no weights for model.layers.1.mlp.up_proj.weight", "Fetch")),
    "a tensor of another shape": (reshape_a_tensor, ("model.norm.weight is [31]", "[32] by config")),
    "a weight that is NaN": (
        spoil_a_number(math.nan),
        ("model.layers.1.mlp.up_proj.weight holds nan among its 2,048 weights", "Fetch the model again"),
    ),
    "a weight without end": (spoil_a_number(math.inf), ("up_proj.weight holds inf", "finite")),
    "a weight without end below": (spoil_a_number(-math.inf), ("up_proj.weight holds -inf", "finite")),
    "an adapter": (become_an_adapter, ("an adapter", "Name its base")),
    "an adapter's config beside a base": (point_elsewhere, ("adapter_config.json", "Name its base")),
    "tokenizer larger than the embedding": (add_tokens, ("8197 ids", "8192 rows")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_refused_with_a_sentence(fault: str, llama: Path, tmp_path: Path) -> None:
    spoil, words = FAULTS[fault]
    folder = small.copy(llama, tmp_path / "spoiled")
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        loading.load(str(folder))
    sentence = str(caught.value)
    assert all(word in sentence for word in (str(folder), *words)), sentence
    assert sentence.endswith(".") and "\n" not in sentence


SHARD_FAULTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing shard": (drop("model-2.safetensors"), ("index.json", "'model-2.safetensors'", "not in the folder")),
    "cut shard": (lambda f: (f / "model-1.safetensors").write_bytes(b"\0" * 64), ("model-1.safetensors", "damaged")),
    "index is no JSON": (write("model.safetensors.index.json", "{"), ("index.json", "damaged", "weight_map")),
    "index without a map": (write("model.safetensors.index.json", "{}"), ("index.json", "weight_map")),
    "index of another kind": (write("model.safetensors.index.json", '{"weight_map": [1]}'), ("index.json", "damaged")),
    "index of nothing": (write("model.safetensors.index.json", '{"weight_map": {}}'), ("index.json", "no shard")),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_a_faulty_sharded_folder_is_refused_with_a_sentence(fault: str, llama: Path, tmp_path: Path) -> None:
    spoil, words = SHARD_FAULTS[fault]
    folder = small.shards(llama, tmp_path / "sharded")
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        loading.load(str(folder))
    assert all(word in str(caught.value) for word in (str(folder), *words)), str(caught.value)


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/one.safetensors", "..", "..\\outside.safetensors"])
def test_a_shard_outside_the_folder_is_refused(name: str, llama: Path, tmp_path: Path) -> None:
    folder = small.shards(llama, tmp_path / "sharded")
    (folder / "sub").mkdir()
    for copied in (tmp_path / "outside.safetensors", folder / "sub" / "one.safetensors"):
        copied.write_bytes((folder / "model-2.safetensors").read_bytes())
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-2.safetensors", json.dumps(name)[1:-1]))
    with pytest.raises(ModelError, match="not in the folder"):
        loading.load(str(folder))


def test_shards_give_the_same_states_as_one_file(llama: Path, tmp_path: Path) -> None:
    whole, sharded = loading.load(str(llama)), loading.load(str(small.shards(llama, tmp_path / "sharded")))
    assert torch.equal(small.states(whole), small.states(sharded))
    assert whole.card.parameters == sharded.card.parameters


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nobody/no-such-model", ('"nobody/no-such-model"', "not in the local cache", "model: bundled")),
        ("no such model!", ('"no such model!"', "model: bundled")),
        ("package:no_such_package/model", ("no_such_package", "not installed")),
        ("package:no.such.package/model", ("no.such.package", "not installed")),
        ("package:transformers/no_such_folder", ("no_such_folder", "no folder")),
        ("./no_such_folder", ("no_such_folder", "no folder", "model: bundled")),
        ("/no/such/folder", ("/no/such/folder", "no folder")),
    ],
)
def test_an_unknown_reference_is_refused_with_the_way_out(reference: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        loading.load(reference)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"model\.bin is no folder"):
        loading.load(str(tmp_path / "model.bin"))


def test_the_bundled_base_loads_and_its_card_is_right() -> None:
    card, config, tokenizer = loading.card_of("bundled")
    assert (card.kind, card.architecture, card.context) == ("decoder", "LlamaForCausalLM", 1024)
    assert card.vocabulary == len(tokenizer) == config.vocab_size
    assert 8e6 < card.parameters < 12e6


def test_a_package_reference_is_a_folder_inside_it() -> None:
    assert loading.locate("package:tunesmith/assets/base") == small.ASSETS


def test_the_card_tells_the_facts(llama: Path, bert: Path) -> None:
    model, encoder = loading.load(str(llama)), loading.load(str(bert))
    card = model.card
    assert card.parameters == sum(p.numel() for p in model.network.parameters())
    assert (card.name, card.kind, card.layers, card.width, card.vocabulary, card.context) == (
        "base",
        "decoder",
        2,
        32,
        small.VOCABULARY,
        64,
    )
    assert (encoder.card.kind, encoder.card.architecture) == ("encoder", "BertModel")


def test_weights_and_states_are_float32_whatever_the_file_holds(llama: Path, tmp_path: Path) -> None:
    folder = small.copy(llama, tmp_path / "bf16")
    tensors = {n: t.bfloat16() for n, t in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    model = loading.load(str(folder))
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert torch.equal(model.network.model.norm.weight.bfloat16(), tensors["model.norm.weight"])
    assert not model.network.training


def test_loading_changes_no_setting_that_a_saved_model_would_keep(llama: Path) -> None:
    assert loading.load(str(llama)).network.config.use_cache is True


def test_positions_that_begin_after_the_pad_id_shorten_the_context(tmp_path: Path) -> None:
    model = loading.load(str(small.roberta(tmp_path / "roberta")))
    assert model.card.context == small.SHAPE["max_position_embeddings"] - 2
    longest = small.rows(1, shortest=model.card.context, longest=model.card.context)
    assert torch.isfinite(small.states(model, longest)).all()


def test_a_pooler_that_the_file_lacks_is_no_fault(bert: Path, tmp_path: Path) -> None:
    folder = small.copy(bert, tmp_path / "bert")
    kept = {n: t for n, t in load_file(folder / WEIGHTS).items() if not n.startswith("pooler.")}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(small.states(loading.load(str(folder))), small.states(loading.load(str(bert))))


def test_a_tokenizer_without_a_pad_gets_one(llama: Path, tmp_path: Path) -> None:
    folder = small.copy(llama, tmp_path / "padless")
    small.edit_json(folder / "tokenizer_config.json", pad_token=None)
    assert loading.load(str(folder)).tokenizer.pad_token == "<|im_end|>"


def test_the_fingerprint_changes_with_any_byte_of_a_small_file(llama: Path, tmp_path: Path) -> None:
    folder = small.copy(llama, tmp_path / "changed")
    before = loading.fingerprint(folder)
    assert before == loading.fingerprint(llama)
    data = bytearray((folder / WEIGHTS).read_bytes())
    start = 8 + small.header_length(folder / WEIGHTS)
    for place in (start, (start + len(data)) // 2, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        (folder / WEIGHTS).write_bytes(changed)
        assert loading.fingerprint(folder) != before
    (folder / WEIGHTS).write_bytes(data)
    assert loading.fingerprint(folder) == before


def test_the_fingerprint_of_a_large_file_samples_its_whole_length(tmp_path: Path) -> None:
    wide = torch.zeros(6_000_000)  # 24 MB: above what is hashed whole
    prints = set()
    (tmp_path / "config.json").write_text("{}")
    for place in (None, 0, -1):
        tensor = wide.clone()
        if place is not None:
            tensor[place] = 1.0
        save_file({"w": tensor}, tmp_path / WEIGHTS)
        prints.add(loading.fingerprint(tmp_path))
    save_file({"v": wide}, tmp_path / WEIGHTS)
    prints.add(loading.fingerprint(tmp_path))
    assert len(prints) == 4


def test_the_hashes_tell_what_the_configs_make_of_the_same_weights(llama: Path, tmp_path: Path) -> None:
    def hashes() -> tuple[str, str]:
        card = loading.card_of(str(folder))[0]
        return card.fingerprint, card.tokenizer_hash

    folder = small.copy(llama, tmp_path / "copy")
    before = hashes()
    small.edit_json(folder / "config.json", transformers_version="9.9", use_cache=False)
    assert hashes() == before
    small.edit_json(folder / "config.json", rms_norm_eps=1e-3)
    other = hashes()
    assert other[0] != before[0] and other[1] == before[1]
    small.edit_json(folder / "tokenizer_config.json", eos_token="<|im_start|>")
    assert hashes()[1] != before[1]


def test_the_fingerprint_tells_one_name_from_another(llama: Path, other_llama: Path) -> None:
    cards = [loading.card_of(str(folder))[0] for folder in (llama, other_llama)]
    assert cards[0].fingerprint != cards[1].fingerprint
    assert cards[0].tokenizer_hash == cards[1].tokenizer_hash
    assert cards[0].template_hash == cards[1].template_hash


@pytest.mark.shared
def test_a_model_that_is_none_of_language_is_refused(shared_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config.json cannot be read: .*vocab_size"):
        loading.load(str(shared_folder / "models" / "mobilenet_v2_1.0_224"))


@pytest.mark.shared
def test_stories260k_loads_and_knows_its_language(shared_folder: Path) -> None:
    from tunesmith.core.batch import TokenRow
    from tunesmith.data.batches import collate

    model = loading.load(str(shared_folder / "models" / "stories260K"))
    assert model.card.parameters == 260_032
    ids = model.tokenizer("Once upon a time, there was a little girl named Lily. She loved to play outside.").input_ids
    batch = collate([TokenRow(tuple(ids), (1.0,) * len(ids))], 0)
    with torch.no_grad():
        mean = float(model.token_logp(batch).sum() / batch.weight_BT.sum())
    assert -1.8 < mean < 0


def test_the_licence_is_read_off_the_models_own_card(llama: Path, tmp_path: Path) -> None:
    assert loading.card_of("bundled")[0].licence == "apache-2.0"
    folder = Path(shutil.copytree(llama, tmp_path / "base"))
    assert loading.card_of(str(folder))[0].licence == "unknown"
    (folder / "README.md").write_text('---\nlanguage: en\nlicense: "mit"\n---\nlicense: gpl\n')
    assert loading.card_of(str(folder))[0].licence == "mit"
    (folder / "README.md").write_text("license: gpl, says no front matter\n")
    assert loading.card_of(str(folder))[0].licence == "unknown"


def test_a_file_of_the_makers_own_that_ends_in_config_is_let_be(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "base"))
    (folder / "data_config.json").write_text("[1, 2]")
    assert loading.card_of(str(folder))[0].vocabulary > 0
