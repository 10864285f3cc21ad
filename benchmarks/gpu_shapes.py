"""The shapes of gpu.py and the arithmetic on them: weights, FLOPs a token, the memory that is needed at least.

Notable: the peaks are those of the data sheets; what a device reaches in plain matrix products is measured beside them.
"""

import re
from typing import Any

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE,
        "tie_word_embeddings": False,
    },
    "qwen3-1.7b": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "tie_word_embeddings": True,
    },
}
TINY = {
    "vocab_size": 9000,  # not below that of the tokenizer that the peers are given
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
PEAK_SOURCE = "dense bf16 with float32 accumulation, from NVIDIA's data sheets (half of what they state with sparsity)"
PEAKS = (  # words of the device's name, TFLOP/s; the first that fits
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H200 NVL", 835.0),
    ("H200", 989.4),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("A10", 125.0),
    ("RTX 4090", 165.2),
)


def peak(device: str) -> float | None:
    """bf16 FLOP/s of a device by its name; None where the table does not know it.

    >>> peak("NVIDIA H100 80GB HBM3"), peak("NVIDIA H100 PCIe"), peak("NVIDIA A100-SXM4-80GB"), peak("NVIDIA L40")
    (989400000000000.0, 756000000000000.0, 312000000000000.0, None)
    """
    found = (rate for name, rate in PEAKS if re.search(rf"\b{name}\b", device))
    return None if "MIG" in device else next((rate * 1e12 for rate in found), None)


def layer_weights(shape: dict[str, Any]) -> int:
    """Weights of the linear layers of one decoder layer."""
    width, inner, size = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    heads, groups = shape["num_attention_heads"], shape["num_key_value_heads"]
    return width * size * (2 * heads + 2 * groups) + 3 * width * inner


def matrix_weights(shape: dict[str, Any]) -> int:
    """Weights that meet each token in a matrix product: the linear layers and the output head.

    >>> round(matrix_weights(SHAPES["llama-3.1-8b"]) / 1e9, 2), round(matrix_weights(SHAPES["qwen3-1.7b"]) / 1e9, 2)
    (7.5, 1.72)
    """
    return shape["num_hidden_layers"] * layer_weights(shape) + shape["vocab_size"] * shape["hidden_size"]


def parameters(shape: dict[str, Any]) -> int:
    """All weights but the norms."""
    apart = 0 if shape["tie_word_embeddings"] else shape["vocab_size"] * shape["hidden_size"]
    return matrix_weights(shape) + apart


def flops_per_token(shape: dict[str, Any], method: str, length: int) -> float:
    """What the mathematics needs for forward and backward, recomputation not counted.

    Two FLOPs a weight forward, two for the gradient of the input, two for that of the weight, which frozen weights do
    not need. Causal attention over ``length`` tokens: two products of length / 2 x heads x size, forward once and
    backward twice.
    """
    attended = shape["num_hidden_layers"] * shape["num_attention_heads"] * shape["head_dim"]
    return (6 if method == "full" else 4) * matrix_weights(shape) + 6 * length * attended


def least_bytes(shape: dict[str, Any], method: str) -> int:
    """What our side holds of weights, gradients and moments; activations come on top.

    Full: bf16 weight, float32 master, its gradient, two float32 moments, 18 bytes a weight. LoRA: 2 bytes a weight.

    >>> [round(least_bytes(SHAPES["llama-3.1-8b"], method) / 1e9) for method in ("full", "lora")]
    [145, 16]
    """
    return round(parameters(shape) * {"full": 18, "lora": 2, "qlora": 0.6}[method])


def does_not_fit(shape: dict[str, Any], method: str, device_bytes: int) -> str | None:
    """The sentence for what cannot fit on the device, or None."""
    least = least_bytes(shape, method)
    if not device_bytes or least < device_bytes:
        return None
    return (
        f"does not fit: {parameters(shape) / 1e9:.2f}e9 weights take {least / 1e9:.0f} GB (bf16 weight 2 bytes, "
        "float32 master 4, gradient 4, AdamW's moments 8) before any activation; the device has "
        f"{device_bytes / 1e9:.0f} GB. train.memory: least takes about half"
    )
