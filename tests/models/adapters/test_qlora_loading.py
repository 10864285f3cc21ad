"""The peak of memory while a base of four bits is loaded, in a process of its own.

Notable: what the process owns is counted (RssAnon). Pages of the file are not: the system drops them when it wants.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import small
from tunesmith.models import load as loading

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="what a process owns is in /proc")
MEASURE = """
import sys, threading
from tunesmith.models import load as loading

def owned():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

def watch():
    while not done.wait(0.001):
        seen.append(owned())

loading.load(sys.argv[1], precision="bfloat16", four_bits=True)  # imports, and buffers that stay
before, seen, done = owned(), [], threading.Event()
thread = threading.Thread(target=watch)
thread.start()
loading.load(sys.argv[2], precision="bfloat16", four_bits=True)
done.set()
thread.join()
print(max(seen) - before)
"""


def test_the_whole_model_never_stands_in_memory(llama: Path, tmp_path: Path) -> None:
    wide = small.llama(tmp_path / "wide", hidden_size=384, intermediate_size=1024, num_hidden_layers=12)
    whole = (wide / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", MEASURE, str(llama), str(wide)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.splitlines()[-1])
    assert whole / 10 < peak < whole / 2, f"{peak / 2**20:.0f} of {whole / 2**20:.0f} MiB"


def test_the_file_is_let_go(tmp_path: Path) -> None:
    base = small.llama(tmp_path / "base")  # its own, which no other model holds
    held = loading.load(str(base), four_bits=True)
    assert held.network.get_input_embeddings().weight.dtype == torch.float32  # as in the file, so in its pages once
    assert str(base) not in Path("/proc/self/maps").read_text(encoding="utf-8")
