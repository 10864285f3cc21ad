"""How cost grows: tokens a second and peak memory over sequence length and over model size, with TRL beside.

Notable: each point trains rows of exactly one length, a fixed number of tokens a step, LoRA as in the main part. TRL's
points are fewer, for each takes minutes. Points of one sweep differ in one thing alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import figures
from peers.bench import Bench, tell
from peers.configurations import GROWTH_PEERS, LORA_PEERS, Shape
from peers.processes import Failed, Result
from peers.sft import specified
from tunesmith import present
from tunesmith.present.charts import Series, lines

STEPS = 4  # two of them warm up
TRAINED = 0.6  # share of each row in the loss, as in the chats
HEIGHT = 350
SIDES = {"ours": ("Tunesmith", "series-a"), "peer": ("TRL", "series-b")}


def weights(shape: Shape) -> int:
    """Weights of the network, norms left out."""
    inside = sum(outputs * inputs * often for outputs, inputs, often in figures.linear(shape))
    return int(inside + shape["vocab_size"] * shape["hidden_size"])


def measure(bench: Bench, peer: str) -> dict[str, Any]:
    """Both sweeps; ``peer`` names the configuration of TRL that is run at some of the points."""
    sizes = bench.sizes
    runs: list[Result] = []
    for length in sizes.growth_lengths:
        runs += point(bench, peer if length in GROWTH_PEERS else None, sizes.name, sizes.shape, length)
    for name, shape in sizes.growth_shapes.items():
        if name != sizes.name:
            runs += point(bench, peer if name in GROWTH_PEERS else None, name, shape, sizes.growth_length)
    told = [row(run) for run in runs if "failed" not in run]
    return {
        "settings": {"method": "lora", "tokens_per_step": sizes.growth_tokens, "timed_steps": STEPS - figures.WARM},
        "peer": peer,
        "points": told,
        "failed": {run["name"]: run["failed"] for run in runs if "failed" in run},
        "runs": runs,
    }


def point(bench: Bench, peer: str | None, name: str, shape: Shape, length: int) -> list[Result]:
    """Ours, and TRL where ``peer`` is named, on rows of ``length`` tokens."""
    rows = max(1, bench.sizes.growth_tokens // length)
    blocks = f"blocks-{shape['vocab_size']}-{length}"
    paths, _ = bench.material(name, shape, blocks, length=length, count=rows * STEPS, trained=TRAINED)
    micro = min(bench.sizes.micro_rows, rows)
    spec = specified("lora", paths, rows, STEPS, micro) | {"max_length": length, "pack_tokens": length}
    at = {"shape": name, "weights": weights(shape), "length": length}
    sides: list[tuple[str, str, dict[str, Any]]] = [("ours", f"ours_{name}_{length}", spec)]
    if peer is not None:
        how = next(p for p in LORA_PEERS if p.name == peer).spec()
        sides.append(("trl_sft", f"{peer}_{name}_{length}", spec | how | {"packing": False}))  # of one length: no need
    found: list[Result] = []
    for module, name_, told in sides:
        try:
            found.append(bench.go(module, name_, told) | at)
        except Failed as error:  # such as too long for the memory: one point less, and said so
            tell(str(error))
            found.append({"name": name_, "side": "ours" if module == "ours" else "peer", "failed": str(error)} | at)
    return found


def row(run: Result) -> dict[str, Any]:
    kept = {key: run[key] for key in ("side", "shape", "weights", "length", "peak_bytes")}
    return kept | {"tokens_per_s": round(figures.rate(run), 1)}


def drawn(found: dict[str, Any]) -> str:
    """Four charts in one SVG file that stands alone: speed and memory over length, and over size."""
    points = found["points"]
    main = max({p["shape"] for p in points}, key=lambda s: len({p["length"] for p in points if p["shape"] == s}))
    common = min(p["length"] for p in points if p["shape"] != main)
    by_length = [p | {"x": p["length"]} for p in points if p["shape"] == main]
    by_size = [p | {"x": p["weights"] / 1e6} for p in points if p["length"] == common]
    charts = [
        chart(f"Speed over sequence length ({main})", "tokens a row", "tokens a second", by_length),
        chart(f"Memory over sequence length ({main})", "tokens a row", "peak GiB", by_length),
        chart(f"Speed over model size (rows of {common} tokens)", "million weights", "tokens a second", by_size),
        chart(f"Memory over model size (rows of {common} tokens)", "million weights", "peak GiB", by_size),
    ]
    return stacked(charts, HEIGHT)


def stacked(charts: Sequence[str], height: int) -> str:
    """Charts of one height, one below the other, as an SVG file that stands alone."""
    style = (Path(present.__file__).parent / "report.css").read_text(encoding="utf-8")
    placed = [
        text.replace("<svg ", f'<svg y="{20 + i * (height + 20)}" width="760" height="{height}" ', 1)
        for i, text in enumerate(charts)
    ]
    high = 20 + len(charts) * (height + 20)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-20 0 800 {high}" width="800" height="{high}" '
        f'font-family="system-ui, sans-serif"><style><![CDATA[{style}]]></style>'
        f'<rect x="-20" width="800" height="{high}" style="fill: var(--paper)"/>{"".join(placed)}</svg>\n'
    )


def chart(title: str, x_name: str, y_name: str, points: Sequence[dict[str, Any]]) -> str:
    series = []
    for side, (name, style) in SIDES.items():
        held = sorted((p["x"], value(p, y_name)) for p in points if p["side"] == side)
        series.append(Series(name, tuple(held), style, dots=True))
    return lines(title, x_name, y_name, series)


def value(point: dict[str, Any], y_name: str) -> float:
    return float(point["peak_bytes"] / 2**30 if y_name == "peak GiB" else point["tokens_per_s"])
