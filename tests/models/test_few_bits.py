"""Dense weights made in scratch memory have the bits of bitsandbytes' own, and take no memory of their own."""

import threading

import pytest
import torch

from tunesmith.models.few_bits import SCRATCH, dequantised

functional = pytest.importorskip("bitsandbytes.functional")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(192, 576), (64, 24), (8, 8), (3, 6), (5, 130)])
@pytest.mark.parametrize(("kind", "nested"), [("nf4", True), ("nf4", False), ("fp4", True)])
def test_the_bits_are_those_of_bitsandbytes(
    shape: tuple[int, int], dtype: torch.dtype, kind: str, nested: bool
) -> None:
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight_OI[0] *= 100  # blocks of very different scales
    held, bits = functional.quantize_4bit(weight_OI, quant_type=kind, compress_statistics=nested)
    expected, found = dequantised(held, bits), SCRATCH.dense(held, bits)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_dense_weights_share_their_memory_within_a_thread() -> None:
    one, two = (
        functional.quantize_4bit(torch.randn(size, 64), quant_type="nf4", compress_statistics=True) for size in (64, 32)
    )
    place = SCRATCH.dense(*one).data_ptr()
    assert SCRATCH.dense(*two).data_ptr() == place
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(SCRATCH.dense(*one).data_ptr()))
    thread.start()
    thread.join()
    assert seen != [place]
