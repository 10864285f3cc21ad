"""Write the reference pages in docs/ that come out of the code: cli, recipe, methods, objectives and errors.

    python scripts/make_docs.py           writes them
    python scripts/make_docs.py --check   exits 1 and names the pages that are out of date

Notable: the pages are read off the command objects, the recipe's fields and the error classes, so they cannot say
what the code does not do.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tunesmith.cli.main import PANELS, app
from tunesmith.core import errors, parts, recipe_file, strict_yaml
from tunesmith.core.recipe import Recipe
from tunesmith.core.sentences import expected, leaves
from tunesmith.plan.devices import known_devices
from tunesmith.plan.published import JOB, LADDER, throughputs, typical_jobs
from tunesmith.plan.published_memory import memories, well_known
from tunesmith.plan.resolve import SHORT_ANSWER

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by scripts/make_docs.py; change the code and run it again. -->"
STAGES = """## Stages

A recipe with `stages` is a run for each of them, carried out in order; started again, it goes on where it stopped. A
stage is the name of an objective, or keys with `objective` among them, which are laid over those of the whole recipe:

```yaml
model: bundled
stages:
  - sft
  - reward
  - {objective: ppo, rollout: {answers: 4}}
data: {train: pairs.jsonl}
```

`task` follows from the objective, `start` is the run of the last policy, and `reward.model` that of the last reward
model, unless they are given. Of the keys of the whole recipe, `reward` and `rollout` go to stages that learn from
rewards, and a stage with a task other than generate takes only `limit` and `min_gain` of `evaluate`.""".splitlines()


def cli_page() -> str:
    """Every verb with its arguments, options and examples."""
    group: Any = typer.main.get_command(app)
    lines = ["# The command line", "", NOTE, "", group.help, "", *_options(group), "", *_examples(group.epilog), ""]
    for panel, verbs in PANELS.items():
        lines += [f"## {panel}", ""]
        for verb in verbs:
            command = group.commands[verb.__name__]
            lines += [f"### tunesmith {command.name}", "", inspect.cleandoc(command.help), "", *_options(command), ""]
            lines += [*_examples(command.epilog), ""]
    lines += ["## Exit codes", "", *_exit_codes()]
    return "\n".join(lines) + "\n"


def _options(command: Any) -> Iterator[str]:
    yield "| option | default | what it does |"
    yield "|---|---|---|"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
        else:
            name = ", ".join([*parameter.opts, *parameter.secondary_opts])
            if not parameter.is_flag:
                name += f" {parameter.metavar or parameter.name.upper().strip('_')}"
        shown = getattr(parameter, "show_default", None)
        if isinstance(shown, str):
            default = shown
        elif parameter.required:
            default = "required"
        elif parameter.default is None or parameter.default is False or callable(parameter.default):
            default = ""
        else:
            default = f"`{parameter.default}`"
        yield f"| `{name.replace('|', chr(92) + '|')}` | {default} | {parameter.help} |"


def _examples(epilog: str) -> list[str]:
    return ["```sh", *epilog.splitlines()[1:], "```"]


def recipe_page() -> str:
    """Every key of a recipe: what it means, what it takes, its default."""
    lines = ["# The recipe", "", NOTE, "", inspect.cleandoc(Recipe.__doc__ or "").replace("``", "`"), ""]
    lines += [
        "A key that is not in this list is refused. `-s key=value` overrides one on the command line, for instance"
    ]
    lines += ["`tunesmith run support.yaml -s train.epochs=5`.", ""]
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{recipe_file.STAGES}` | a list of objectives | `none` | several runs in one recipe, see below |"]
    for path, field in leaves(Recipe):
        takes = expected(field.annotation, tuple(field.metadata))
        default = "required" if field.is_required() else f"`{_value(field.default)}`"
        lines.append(f"| `{'.'.join(path)}` | {takes} | {default} | {field.description} |")
    return "\n".join([*lines, "", *STAGES]) + "\n"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return strict_yaml.dump(list(value) if isinstance(value, tuple) else value, flow=True).strip()


def methods_page() -> str:
    """Every method: what it is, which dials it reads, what it leaves."""
    lines = ["# Methods", "", NOTE, "", "The values of `method.name`. Each is a file in `models/adapters/` and passes"]
    lines += ["the same tests (`tests/models/adapters/test_conformance.py`). A dial that a method does not read is"]
    lines += [
        "refused. Where `train.learning_rate` is `auto`, it is that of full fine-tuning times the last column.",
        "",
    ]
    lines += ["| method | what it is | reads | leaves | rate |", "|---|---|---|---|---|"]
    for name in parts.names("models.adapters"):
        part = parts.find("models.adapters", name)
        module = importlib.import_module(f"tunesmith.models.adapters.{name}")
        what = " ".join(inspect.cleandoc(module.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
        reads = ", ".join(f"`{key}`" for key in part.reads) or "nothing"
        leaves_ = "an adapter" if part.is_adapter else "a whole model"
        lines.append(f"| `{name}` | {what} | {reads} | {leaves_} | {part.rate:g} |")
    return "\n".join(lines) + "\n"


def objectives_page() -> str:
    """Every objective: what it is, what it learns from, which settings it reads with which defaults."""
    units = {"row": "rows", "pair": "pairs of answers", "judged": "judged answers, or pairs"}
    units |= {"answer": "rewards for its own answers"}
    lines = ["# Objectives", "", NOTE, "", "The values of `objective.name` (or of `objective` alone). Each is a pure"]
    lines += ["function in `objectives/` with an example worked by hand. A setting that an objective does not read is"]
    lines += ["refused. Where `train.learning_rate` is `auto`, it is the method's times the last column; with a star,"]
    lines += [f"times {SHORT_ANSWER} over the mean tokens of an answer as well, where these are more: what is compared"]
    lines += ["adds up over them.", ""]
    lines += ["| objective | what it is | learns from | settings | reference | rate |", "|---|---|---|---|---|---|"]
    for name in parts.names("objectives"):
        part = parts.find("objectives", name)
        module = importlib.import_module(f"tunesmith.objectives.{name}")
        what = " ".join(inspect.cleandoc(module.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
        reads = ", ".join(f"`{key}` {value:g}" for key, value in part.settings.items()) or "none"
        compared = part.reference or (part.unit == "answer" and part.settings.get("beta", 0.0) > 0)
        needs = "the base, adapter off, or the run of `start`" if compared else "none"
        learns = units[part.unit] + ("; ties" if part.ties else "") + (" and margins" if part.margins else "")
        rate = f"{part.rate:g}{'*' if part.adds_up else ''}"
        lines.append(f"| `{name}` | {what} | {learns} | {reads} | {needs} | {rate} |")
    return "\n".join(lines) + "\n"


def plan_page() -> str:
    """What a plan says beside what others have published, and the devices it knows."""
    lines = ["# Plans beside published figures", "", NOTE, ""]
    lines += ["`tunesmith plan` counts; no constant is tuned for a row of these tables. How far plans are off what our"]
    lines += ["own runs need is measured: [plan_accuracy.md](plan_accuracy.md). A large difference is often"]
    lines += ["one of what is done: moments in eight bits or bf16, masters or none, rows longer or shorter.", ""]
    lines += [*_well_known(), "## Memory", "", "| what | source | foreseen | published | unit | difference | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for m in memories():
        foreseen = f"{m.predicted:.1f}" if m.predicted >= 1 else f"{m.predicted:.3f}"
        told = f"{foreseen} | {m.published:g} | {m.unit} | {m.difference:+.0%}"
        lines.append(f"| {m.what} | {m.source} | {told} | {m.note} |")
    lines += ["", "## Speed", "", f"{LADDER}.", "", "| what | foreseen, tokens/s | published | difference | note |"]
    lines += ["|---|---|---|---|---|"]
    for t in throughputs():
        told = f"{t.predicted:,.0f} | {t.published:,.0f} | {t.difference:+.0%}"
        lines.append(f"| {t.what} | {told} | {t.note} |")
    lines += ["", "## Devices", "", "TFLOP/s are those of bf16, or of float32 where a device has none for bf16.", ""]
    lines += ["| device | memory, GiB | TFLOP/s | GB/s | W | USD an hour | facts of |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for device in known_devices().values():
        price, kind = device.price(), "bf16" if "bfloat16" in device.tflops else "float32"
        peak = f"{device.tflops.get('bfloat16', device.tflops['float32']):g} {kind}"
        usd = "owned" if price is None else f"{price[0]:g} to {price[1]:g}"
        told = f"{device.memory_gib:g} | {peak} | {device.bandwidth_gb:g} | {device.watts or '-'} | {usd}"
        lines.append(f"| {device.name} | {told} | {device.date} |")
    return "\n".join(lines) + "\n"


def _well_known() -> Iterator[str]:
    """What everyone says of a 7B model: memory, and money for a typical job."""
    jobs = typical_jobs()
    yield from ("## The well-known table", "", "Memory: Llama-2-7b and Llama-65b, rows of 512 tokens, rank 16 on all")
    yield "linear layers, bf16, activations recomputed. The middle is of the tokens at once that are named, the range"
    yield 'of half and twice as many. "About" is taken to be a quarter either way. Full fine-tuning can do with less'
    yield from ("than 80 GB: `train.memory: least` keeps moments in eight bits and no gradients.", "")
    yield "| what | tokens at once | foreseen, GB | middle | published, GB | middle within | whole range within |"
    yield "|---|---|---|---|---|---|---|"
    for row in well_known():
        told = f"{row.range[0]:.1f} to {row.range[1]:.1f} | {row.middle:.1f} | {row.published}"
        yield f"| {row.what} | {row.tokens:,} | {told} | {_yes(row.comes_out)} | {_yes(row.wholly)} |"
    yield from ("", f"Money, for a typical job: {JOB}.")
    yield "The tokens at once, the job and the devices were chosen so that the published figures come out, so they are"
    yield "no test of the plan: most of the difference between the rows is where one rents. A range is as wide as the"
    yield "time (a data sheet is good for a factor of two) and all prices of such a cloud. The last row is full"
    yield "fine-tuning on one device of today, for less than is published."
    alone = ", ".join(job.method for job in jobs if job.comes_out and not job.wholly)
    yield from (f"The middle alone, and not the whole range, lies within what is published for: {alone or 'none'}.", "")
    yield "| method | where | needs, of a device | hours | USD | middle | published | middle within | whole range |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for job in jobs:
        hours, usd = (f"{a:,.0f} to {b:,.0f}" for a, b in (job.cost.hours, job.cost.usd or (0, 0)))
        needs = f"{job.peak / 2**30:.1f} of {job.limit / 2**30:g} GiB"
        told = f"{needs} | {hours} | {usd} | {job.cost.middle:,.1f} | {job.published[0]:g} to {job.published[1]:g}"
        yield f"| {job.method} | {job.where} | {told} | {_yes(job.comes_out)} | {_yes(job.wholly)} |"
    yield ""


def _yes(so: bool) -> str:
    return "yes" if so else "no"


def errors_page() -> str:
    """The tree of errors with its exit codes."""
    lines = ["# Errors and exit codes", "", NOTE, ""]
    lines += ["Each message is a sentence: the value, the place, what was expected, the way out."]
    lines += ["In Python each class is also a standard one.", "", "| class | also a | exit code |", "|---|---|---|"]
    for kind in _tree(errors.TunesmithError):
        also = ", ".join(f"`{b.__name__}`" for b in kind.__bases__ if not issubclass(b, errors.TunesmithError))
        lines.append(f"| `{kind.__name__}` | {also} | {kind.exit_code} |")
    return "\n".join([*lines, "", "## Exit codes", "", *_exit_codes()]) + "\n"


def _tree(kind: type[errors.TunesmithError]) -> Iterator[type[errors.TunesmithError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below)


def _exit_codes() -> Iterator[str]:
    meaning = {
        0: "done; for `run` and `demo`: the verdict is SHIP",
        1: "a bug of ours",
        2: "bad input, or a check that failed",
    }
    meaning |= {3: "another process holds the run", 4: "out of memory", 5: "the training diverged", 6: "disk full"}
    meaning |= {errors.VERDICT_NO: "the run is sound and the verdict is HOLD or NOT ENOUGH EVIDENCE"}
    meaning |= {130: "stopped by Ctrl-C", 143: "stopped by SIGTERM"}
    yield "| code | meaning |"
    yield "|---|---|"
    yield from (f"| {code} | {text} |" for code, text in meaning.items())


PAGES = {
    "cli.md": cli_page,
    "recipe.md": recipe_page,
    "methods.md": methods_page,
    "objectives.md": objectives_page,
    "errors.md": errors_page,
    "plan.md": plan_page,
}


def main() -> int:
    """Write the pages, or with ``--check`` compare them."""
    parser = argparse.ArgumentParser(description="Write the reference pages in docs/.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path = ROOT / "docs" / name
        if path.is_file() and path.read_text(encoding="utf-8") == page():
            continue
        if check:
            stale.append(name)
        else:
            path.write_text(page(), encoding="utf-8")
    if stale:
        sys.stderr.write(f"Out of date: {', '.join(stale)}. Run python scripts/make_docs.py.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
