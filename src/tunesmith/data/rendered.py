"""Every example of a data set as whole token rows: rendered once, by several processes where there are many, and kept
on disk under a hash of all that they depend on.

Notable: the pool forks, so the children have the examples and the tokenizer without a copy and no module is imported
anew; they run the template and the tokenizer and nothing else. A stored set is verified before it is believed, and
whatever is wrong with it means that the rows are rendered again. Small sets are neither shared out nor kept: both would
cost more than rendering.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunesmith.core import files
from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError, DiskError
from tunesmith.core.example import Example
from tunesmith.core.noun import canonical_json
from tunesmith.data.render import Renderer

MANY = 2_000  # examples from which on rows are kept on disk, and for each of which a further process is worth its start
PIECE = 250  # examples that a process takes at once
KEPT = 8  # sets on disk; the oldest goes
STALE = 3600.0  # seconds after which a temporary has no writer any more
FORM = 1  # of what lies on disk and of how rows are rendered; a change of either makes it 2

Found = tuple[TokenRow, ...] | str  # rows, or why there are none
_task: tuple[Sequence[Example], Renderer, int] | None = None  # what the children of a fork find


def render_all(
    examples: Sequence[Example], renderer: Renderer, *, label: int = -1, store: Path | None = None, identity: str = ""
) -> list[Found]:
    """``renderer.whole`` of each example with ``label``, or the sentence with which it was refused.

    ``store`` is the folder of kept sets, ``identity`` names the tokenizer and the template.
    """
    place = store / _key(examples, label, identity) if store is not None and len(examples) >= MANY else None
    found = _read(place, examples, label) if place is not None else None
    if found is None:
        found = _rendered(examples, renderer, label)
        if place is not None:
            _keep(place, found)
    return found


def _rendered(examples: Sequence[Example], renderer: Renderer, label: int) -> list[Found]:
    workers = min(_processors(), len(examples) // MANY)
    if workers < 2:
        return [_whole(example, renderer, label) for example in examples]
    with contextlib.suppress(BrokenProcessPool, OSError):  # a child was killed, or none could be made
        return _shared_out(examples, renderer, label, workers)
    return [_whole(example, renderer, label) for example in examples]


def _processors() -> int:
    """That this process may run on."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _shared_out(examples: Sequence[Example], renderer: Renderer, label: int, workers: int) -> list[Found]:
    global _task
    _task = (examples, renderer, label)
    try:
        with _one_thread_a_child(), ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            pieces = pool.map(_piece, range(0, len(examples), PIECE))
            return [found for piece in pieces for found in piece]
    finally:
        _task = None


@contextlib.contextmanager
def _one_thread_a_child() -> Iterator[None]:
    """The tokenizers library starts threads of its own, which do not live through a fork."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        os.environ.pop("TOKENIZERS_PARALLELISM")
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _piece(start: int) -> list[Found]:
    assert _task is not None  # set before the fork
    examples, renderer, label = _task
    return [_whole(example, renderer, label) for example in examples[start : start + PIECE]]


def _whole(example: Example, renderer: Renderer, label: int) -> Found:
    try:
        return renderer.whole(example, label)
    except DataError as error:
        return str(error)


# -- on disk -----------------------------------------------------------------------------------------------------------


def _key(examples: Sequence[Example], label: int, identity: str) -> str:
    digest = hashlib.sha256(f"{FORM}/{label}/{identity}".encode())
    for example in examples:
        digest.update(canonical_json(example.model_dump(mode="json")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _keep(place: Path, found: Sequence[Found]) -> None:
    """Best effort: a full disk costs the next run some seconds, never this run."""
    refused = {str(n): one for n, one in enumerate(found) if isinstance(one, str)}
    rows = [(n, row) for n, one in enumerate(found) if not isinstance(one, str) for row in one]
    table: dict[str, Any] = {
        "ids": np.fromiter((i for _, row in rows for i in row.ids), np.int32),
        "weight": np.fromiter((w for _, row in rows for w in row.weight), np.float64),
        "length": np.fromiter((len(row.ids) for _, row in rows), np.int64),
        "example": np.fromiter((n for n, _ in rows), np.int64),
    }
    with contextlib.suppress(DiskError, OSError, SafetensorError):  # the last is what a full disk makes of save_file
        with files.publish(place) as folder:
            save_file(table, folder / "rows.safetensors")
            (folder / "refused.json").write_text(canonical_json(refused), encoding="utf-8")
        _forget_old(place.parent)


def _forget_old(store: Path) -> None:
    """The oldest sets, and what writers that died have left: no lock tells who is alive, so it has to be old."""
    found = sorted(((p.stat().st_mtime, p) for p in store.iterdir() if p.is_dir()), reverse=True)
    stale = [p for when, p in found if p.name.startswith(files.TEMPORARY) and when < time.time() - STALE]
    for path in [p for _, p in found if not p.name.startswith(files.TEMPORARY)][KEPT:] + stale:
        files.remove(path)


def _read(place: Path, examples: Sequence[Example], label: int) -> list[Found] | None:
    try:
        files.verify(place)
        table: dict[str, Any] = load_file(place / "rows.safetensors")
        refused = json.loads((place / "refused.json").read_text(encoding="utf-8"))
        found: list[Found] = [refused.get(str(n), ()) for n in range(len(examples))]
        ends = table["length"].cumsum()
        ids, weight = table["ids"].tolist(), table["weight"].tolist()
        for n, end, size in zip(table["example"].tolist(), ends.tolist(), table["length"].tolist(), strict=True):
            row = TokenRow(tuple(ids[end - size : end]), tuple(weight[end - size : end]), label, examples[n].id)
            rows = found[n]
            assert not isinstance(rows, str)  # the manifest vouches for what was written
            found[n] = (*rows, row)
        os.utime(place)
    except (DataError, OSError, SafetensorError, ValueError, LookupError):
        return None
    return found
