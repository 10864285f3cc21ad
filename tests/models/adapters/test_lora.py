"""LoRA by hand, and against PEFT both ways: forward, gradients, files."""

import json
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

import small
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.models import load as loading
from tunesmith.models.adapters.lora import PART, targets
from tunesmith.models.lora_layer import LoraLinear
from tunesmith.models.model import Model, adapters_off

BATCH = small.split(small.rows(4), 4)[0]
SHORT = ["q_proj", "v_proj", "down_proj"]


def layer(**changes: Any) -> LoraLinear:
    torch.manual_seed(0)
    options: dict[str, Any] = {"rank": 3, "scale": 4.0, "dropout": 0.0}
    return LoraLinear(nn.Linear(6, 5), generator=torch.Generator().manual_seed(0), **{**options, **changes})


def peft_of(base: Path, **options: Any) -> Any:
    """A PEFT model with stirred adapter weights, in evaluation mode."""
    family = AutoModel if "bert" in str(base) else AutoModelForCausalLM
    model = peft.get_peft_model(
        family.from_pretrained(base, dtype=torch.float32), peft.LoraConfig(**{"r": 4, "lora_alpha": 12, **options})
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def logits_of(network: Any) -> Tensor:
    with torch.no_grad():
        out = network(input_ids=BATCH.ids_BT[:1])
    return out.logits if hasattr(out, "logits") else out.last_hidden_state  # type: ignore[no-any-return]


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert float((found - expected).detach().abs().max()) <= 1e-5 * float(expected.detach().abs().max())


def test_the_start_is_the_identity() -> None:
    one, x = layer(), torch.randn(7, 6)
    assert torch.equal(one(x), one.base(x))
    assert not one.lora_B.any()
    assert one.lora_A.std() > 0
    assert float(one.lora_A.detach().abs().max()) <= 1 / math.sqrt(6)  # Kaiming's uniform bound with a = sqrt(5)


def test_the_update_is_scaled_by_hand() -> None:
    one = layer(rank=2, scale=3.0)
    one.base.weight.data.zero_()
    one.base.bias.data.fill_(0.5)
    one.lora_A.data.zero_()
    one.lora_A.data[0, 0] = 2.0  # the first rank reads 2 x the first input
    one.lora_B.data[1, 0] = 5.0  # and writes 5 x that to the second output
    x = torch.tensor([[10.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert one(x).tolist() == [[0.5, 0.5 + 6.0 / 2 * 5.0 * 2.0 * 10.0, 0.5, 0.5, 0.5]]
    one.enabled = False
    assert one(x).tolist() == [[0.5] * 5]


def test_alpha_is_twice_the_rank_unless_it_is_set(llama: Path) -> None:
    default = small.attach(loading.load(str(llama)), "lora", rank=4)
    own = small.attach(loading.load(str(llama)), "lora", rank=4, alpha=3.0)
    assert {one.scale for one in default.adapted.values()} == {2.0}
    assert {one.scale for one in own.adapted.values()} == {0.75}
    assert {s.alpha for s in default.adapter_settings.values()} == {8.0}


def test_dropout_acts_in_training_alone_and_on_the_update_alone() -> None:
    one, x = layer(dropout=0.5), torch.randn(200, 6)
    one.lora_B.data.normal_()
    one.train()
    assert not torch.equal(one(x), one(x))
    one.enabled = False
    assert torch.equal(one(x), one.base(x))
    one.enabled = True
    one.eval()
    assert torch.equal(one(x), one(x))


def test_the_base_gets_no_gradient_and_the_update_does() -> None:
    one = layer()
    one.lora_B.data.normal_()
    one(torch.randn(3, 6)).square().sum().backward()
    assert one.base.weight.grad is None and one.base.bias.grad is None
    assert one.lora_A.grad is not None and one.lora_A.grad.abs().sum() > 0
    assert one.lora_B.grad is not None and one.lora_B.grad.abs().sum() > 0


def weights_into_peft(model: Model, other: Any) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Copy our adapter into PEFT's modules; pairs of (ours, theirs) by name."""
    theirs = dict(other.named_parameters())
    pairs = {}
    for name, one in model.adapted.items():
        for letter in "AB":
            parameter = theirs[f"base_model.model.{name}.lora_{letter}.default.weight"]
            parameter.data.copy_(getattr(one, f"lora_{letter}").data)
            pairs[f"{name}.{letter}"] = (getattr(one, f"lora_{letter}"), parameter)
    return pairs


@pytest.mark.parametrize("short", [SHORT, ["all-linear"]])
def test_forward_and_gradients_equal_peft(short: list[str], llama: Path) -> None:
    model = small.attach(loading.load(str(llama)), "lora", rank=4, alpha=12.0, target_modules=tuple(short))
    small.stir(model, size=0.1)
    other = peft_of(llama, target_modules=short[0] if short == ["all-linear"] else short)
    pairs = weights_into_peft(model, other)
    assert len(pairs) == sum("lora_" in n for n, _ in other.named_parameters())
    base = logits_of(loading.load(str(llama)).network)
    assert_near(logits_of(model.network), logits_of(other))
    assert float((logits_of(other) - base).abs().max()) > 0.01 * float(base.abs().max())

    model.train(True)
    other.train()
    (BATCH.weight_BT * model.token_logp(BATCH)).sum().backward()  # type: ignore[no-untyped-call]
    logp_BTV = other(input_ids=BATCH.ids_BT).logits.log_softmax(-1)
    logp_BT = logp_BTV.gather(-1, BATCH.target_BT[..., None])[..., 0]
    (BATCH.weight_BT * logp_BT).sum().backward()
    for ours, theirs in pairs.values():
        assert ours.grad is not None and theirs.grad is not None and theirs.grad.any()
        assert_near(ours.grad, theirs.grad)


@pytest.mark.parametrize("wanted", [("all-linear",), ("q_proj", "v_proj")])
def test_our_adapter_loads_in_peft_with_the_same_logits(wanted: tuple[str, ...], llama: Path, tmp_path: Path) -> None:
    model = small.stir(small.attach(loading.load(str(llama)), "lora", alpha=5.0, target_modules=wanted))
    PART.save(model, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    other = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert_near(logits_of(model.network), logits_of(other))
    with other.disable_adapter(), adapters_off(model):
        assert_near(logits_of(model.network), logits_of(other))


def test_our_encoder_adapter_loads_in_peft_with_the_same_states(bert: Path, tmp_path: Path) -> None:
    model = small.stir(small.attach(loading.load(str(bert)), "lora"))
    PART.save(model, tmp_path)
    other = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(bert, dtype=torch.float32), tmp_path).eval()
    assert_near(logits_of(model.network), logits_of(other))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": SHORT},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.1\.self_attn\.[qk]_proj"},
        {"target_modules": SHORT, "use_rslora": True},
        {"target_modules": SHORT, "lora_dropout": 0.1},
        {"target_modules": SHORT, "init_lora_weights": "gaussian"},
    ],
    ids=["short names", "all-linear", "regular expression", "rank-stabilised", "dropout", "gaussian"],
)
def test_peft_s_adapter_loads_here_with_the_same_logits(options: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    other = peft_of(llama, **options)
    other.save_pretrained(tmp_path)
    model = loading.load(str(llama))
    PART.load(model, tmp_path)
    assert_near(logits_of(model.network), logits_of(other))
    resaved = tmp_path / "again"
    resaved.mkdir()
    PART.save(model, resaved)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert_near(logits_of(peft.PeftModel.from_pretrained(base, resaved).eval()), logits_of(other))


def test_peft_s_encoder_adapter_loads_here_pooler_and_all(bert: Path, tmp_path: Path) -> None:
    other = peft_of(bert, target_modules=["query", "dense"])
    assert any("pooler" in n and "lora_" in n for n, _ in other.named_parameters())
    other.save_pretrained(tmp_path)
    model = loading.load(str(bert))
    PART.load(model, tmp_path)
    assert_near(logits_of(model.network), logits_of(other))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bias", "all"),
        ("lora_bias", True),
        ("layers_to_transform", [0]),
        ("init_lora_weights", "pissa"),
        ("peft_type", "IA3"),
        ("r", 0),
        ("something_new", 7),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(setting: str, value: object, llama: Path, tmp_path: Path) -> None:
    peft_of(llama, target_modules=SHORT).save_pretrained(tmp_path)
    small.edit_json(tmp_path / "adapter_config.json", **{setting: value})
    with pytest.raises(ModelError) as caught:
        PART.load(loading.load(str(llama)), tmp_path)
    assert setting in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"r": 4, "lora_alpha": 8}', '{"r": "many", "lora_alpha": 8}'])
def test_a_damaged_configuration_is_refused(text: str, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        PART.load(loading.load(str(llama)), tmp_path)


def test_keys_that_do_not_match_are_refused(llama: Path, tmp_path: Path) -> None:
    PART.save(small.stir(small.attach(loading.load(str(llama)), "lora")), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    whole = load_file(path)
    spoiled = {
        "one less": dict(list(whole.items())[1:]),
        "one more": whole | {"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 32)},
        "other names": {n.replace("base_model.", ""): t for n, t in whole.items()},
    }
    for tensors in spoiled.values():
        save_file(tensors, path)
        with pytest.raises(ModelError, match=r"do not match base: .*lora_"):
            PART.load(loading.load(str(llama)), tmp_path)
    save_file(whole, path)
    small.edit_json(tmp_path / "adapter_config.json", target_modules=["nonesuch"])
    with pytest.raises(ModelError, match="do not match base"):
        PART.load(loading.load(str(llama)), tmp_path)


def test_an_adapter_of_another_width_is_refused(llama: Path, tmp_path: Path) -> None:
    PART.save(small.stir(small.attach(loading.load(str(llama)), "lora", rank=2)), tmp_path)
    small.edit_json(tmp_path / "adapter_config.json", r=4)
    with pytest.raises(ModelError, match=r"is \[2, 32\], the base needs \[4, 32\]"):
        PART.load(loading.load(str(llama)), tmp_path)


def test_all_linear_is_every_linear_layer_but_head_and_pooler(llama: Path, untied: Path, bert: Path) -> None:
    names = targets(loading.load(str(llama)), ("all-linear",))
    leaves = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(names) == 2 * len(leaves)
    assert {n.rsplit(".", 1)[-1] for n in names} == leaves
    assert targets(loading.load(str(untied)), ("all-linear",)) == names
    encoder = targets(loading.load(str(bert)), ("all-linear",))
    assert len(encoder) == 12
    assert not [n for n in encoder if "pooler" in n]


def test_a_name_may_be_short_or_whole_and_overlap(llama: Path) -> None:
    model = loading.load(str(llama))
    assert targets(model, ("self_attn.q_proj", "q_proj", "model.layers.1.mlp.up_proj")) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("q_prj",), ('"q_prj" matches no linear layer of base', 'Did you mean "q_proj"?', "down_proj", "all-linear")),
        (("q_proj", "proj"), ('"proj" matches no linear layer',)),
        (("lm_head",), ('"lm_head" matches no linear layer',)),
        (("embed_tokens",), ('"embed_tokens" matches no linear layer',)),
        ((), ("method.target_modules is empty", "all-linear", "q_proj")),
    ],
)
def test_target_modules_that_match_nothing_are_refused(
    wanted: tuple[str, ...], words: tuple[str, ...], llama: Path
) -> None:
    model = loading.load(str(llama))
    with pytest.raises(RecipeError) as caught:
        small.attach(model, "lora", target_modules=wanted)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not model.adapted


def test_a_rank_above_the_dimension_is_refused(llama: Path) -> None:
    model = loading.load(str(llama))
    with pytest.raises(
        RecipeError, match=r"method\.rank is 17; model\.layers\.0\.self_attn\.k_proj of base has 16 dimensions"
    ):
        small.attach(model, "lora", rank=17)
    assert not model.adapted
    small.attach(model, "lora", rank=16)


def test_a_network_without_linear_layers_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": small.VOCABULARY}
    ends = {"bos_token_id": 1, "eos_token_id": 3}
    model = loading.load(str(small.save(GPT2LMHeadModel(GPT2Config(**shape, **ends)), tmp_path / "gpt2")))
    with pytest.raises(RecipeError, match=r"GPT2LMHeadModel\) has no linear layer to adapt\. Use method\.name: full"):
        small.attach(model, "lora")


def test_the_file_is_peft_s(llama: Path, tmp_path: Path) -> None:
    model = small.attach(loading.load(str(llama)), "lora", rank=4, dropout=0.1)
    PART.save(model, tmp_path)
    config = peft.LoraConfig.from_pretrained(str(tmp_path))
    assert (config.peft_type, config.task_type, config.r, config.lora_alpha, config.lora_dropout) == (
        peft.PeftType.LORA,
        peft.TaskType.CAUSAL_LM,
        4,
        8.0,
        0.1,
    )
    assert config.base_model_name_or_path == str(llama)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(model.adapted)
