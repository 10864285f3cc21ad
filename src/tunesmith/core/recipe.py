"""The recipe: what a user writes. Few dials; ``auto`` is resolved by ``plan`` and shown with its reason.

Notable: unknown keys are errors with the nearest name and the key's full path. Reading of YAML, JSON and TOML is in
``core/recipe_file.py``. Every field below acts: ``tests/flows/test_recipe_acts.py`` proves it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from tunesmith.core.errors import RecipeError
from tunesmith.core.noun import Noun
from tunesmith.core.sentences import Sentences

Auto = Literal["auto"]
Task = Literal["generate", "classify", "prefer"]
OBJECTIVE: dict[Task, str] = {"generate": "sft", "classify": "classify", "prefer": "dpo"}  # what auto means
Fraction = Annotated[float, Field(ge=0, lt=1)]


_TIME = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)h)?(?:([0-9]+(?:\.[0-9]+)?)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?")


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgt]i?)?b?")


def size(text: str) -> int:
    """Bytes in a size such as 8GB. Raises ValueError.

    >>> size("8GB"), size("512 MiB"), size("1024")
    (8000000000, 536870912, 1024)
    """
    found = _SIZE.fullmatch(text.replace(" ", "").lower())
    if found is None:
        raise ValueError("expected a size such as 8GB, 512MiB or a number of bytes")
    number, unit = found[1], found[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    value = float(number) * base ** " kmgt".index(unit[:1] or " ")
    if value >= 2**63:
        raise ValueError("expected a size below 8 EiB")
    return int(value)


def seconds(text: str) -> float:
    """Seconds in a time such as 30m. Raises ValueError.

    >>> seconds("30m"), seconds("1h30m"), seconds("90s"), seconds("45")
    (1800.0, 5400.0, 90.0, 45.0)
    """
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", compact):
        return float(compact)
    parts = _TIME.fullmatch(compact)
    if not compact or parts is None:
        raise ValueError("expected a time such as 30m, 2h, 1h30m, 90s or a number of seconds")
    return sum(float(part or 0) * size for part, size in zip(parts.groups(), (3600, 60, 1), strict=True))


class SplitRecipe(Noun):
    dev: Fraction = Field(0.1, description="share of the rows for dev (early stopping and choices)")
    test: Fraction = Field(0.15, description="share of the rows for the locked test")
    group_by: str | None = Field(None, description="column whose equal values never straddle two splits")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="draws the splits and the limits; not the training")


class DataRecipe(Noun):
    train: str = Field(description="file with the examples; the format is detected")
    dev: str | None = Field(None, description="a dev file of its own, instead of a share of train")
    test: str | None = Field(None, description="a test file of its own, instead of a share of train")
    format: str = Field("auto", description="name of a format, when detection is wrong")
    columns: dict[str, str] = Field(
        {}, description="maps our names (prompt, completion, text, label, ...) to the file's columns"
    )
    split: SplitRecipe = SplitRecipe()
    on_bad_row: Literal["stop", "quarantine"] = Field(
        "stop", description="stop, or set bad rows aside with their reason"
    )
    allow: tuple[str, ...] = Field((), description="checks whose blocking findings are accepted")
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="use at most this many training rows, drawn by split.seed"
    )


class MethodRecipe(Noun):
    name: str = Field("lora", description="how to tune: lora, full, dora, ...; docs/methods.md lists them")
    rank: Annotated[int, Field(ge=1)] = Field(
        16, description="rank of the update, or what stands for it in docs/methods.md"
    )
    alpha: Annotated[float, Field(gt=0)] | None = Field(
        None, description="the update is scaled by alpha / rank; default 2 x rank"
    )
    dropout: Fraction = Field(0.0, description="dropout on the input of the update")
    target_modules: tuple[str, ...] = Field(("all-linear",), description="module names to adapt, or to train")
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="another rank for some modules")
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field({}, description="another alpha for some modules")
    modules_to_save: tuple[str, ...] = Field((), description="modules that are trained whole beside the adapter")
    new_tokens: tuple[str, ...] = Field((), description="tokens to add to the vocabulary; their rows alone are trained")
    b_rate: Annotated[float, Field(gt=0)] = Field(16.0, description="lora_plus: learning rate of B over that of A")


class ObjectiveRecipe(Noun):
    """What an objective does not read is refused; what is not given has the objective's default."""

    name: str = Field("auto", description="what is learned: sft, classify, dpo, ...; docs/objectives.md lists them")
    beta: Annotated[float, Field(gt=0)] | None = Field(
        None, description="how hard a preference pulls, against staying near the reference"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = Field(
        None, description="share of preferences that are believed to be the wrong way round"
    )
    target_margin: Annotated[float, Field(ge=0)] | None = Field(
        None, description="lead that the better answer should have"
    )
    sft_weight: Annotated[float, Field(ge=0)] | None = Field(
        None, description="weight of the better answer's own likelihood"
    )
    unwanted_weight: Annotated[float, Field(gt=0)] | None = Field(
        None, description="weight of an unwanted answer, in times that of a wanted one"
    )
    clip: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="how far below 1 a token's ratio to the policy that wrote it counts"
    )
    clip_high: Annotated[float, Field(gt=0)] | None = Field(None, description="how far above 1 it counts")
    value_clip: Annotated[float, Field(gt=0)] | None = Field(
        None, description="how far a critic's value may move in one rollout and still count"
    )
    value_weight: Annotated[float, Field(ge=0)] | None = Field(None, description="weight of the critic's error")
    kl_target: Annotated[float, Field(ge=0)] | None = Field(
        None, description="KL in nats an answer to which beta is adapted; 0: beta is fixed"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="what a later token's reward counts")
    lam: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="how far advantages look ahead: 0 one token, 1 to the end"
    )
    entropy: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="bonus for an open policy, in rewards a nat (grpo, dapo: in their deviations); it falls to 0",
    )

    @property
    def given(self) -> dict[str, float]:
        """The settings that were given."""
        return {k: v for k, v in self.model_dump(exclude={"name"}).items() if v is not None}


class RewardRecipe(Noun):
    """What a policy's own answers are worth: the weighted sum of rules and of a trained model's score."""

    rules: dict[str, float] = Field({}, description="metrics that reward each answer, and their weights")
    model: str | None = Field(
        None, description="run whose model rewards each answer: a reward model, or a classifier with reward.label"
    )
    weight: float = Field(1.0, description="weight of the model's reward")
    label: str | None = Field(None, description="label whose log-odds are a classifier's reward")
    judge: str | None = Field(None, description="run whose model judges the result and never trains it")
    judge_label: str | None = Field(None, description="label whose log-odds are a judging classifier's score")
    seconds: Annotated[float, Field(gt=0)] = Field(60.0, description="longest time for the rewards of 16 answers")


class RolloutRecipe(Noun):
    prompts: Annotated[int, Field(ge=1)] = Field(16, description="prompts that are answered in one rollout")
    answers: Annotated[int, Field(ge=1)] = Field(8, description="answers to each prompt")
    passes: Annotated[int, Field(ge=1)] = Field(1, description="passes over the answers of a rollout")
    steps: Annotated[int, Field(ge=1)] = Field(1, description="optimiser steps of one pass")
    kl_limit: Annotated[float, Field(gt=0)] = Field(
        2.0, description="KL in nats an answer to the policy that wrote them, at which further passes are left out"
    )

    def steps_of(self, prompts: int) -> int:
        """Optimiser steps of one pass over so many prompts, at most."""
        return -(-prompts // self.prompts) * self.passes * self.steps


class TrainRecipe(Noun):
    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(3, description="passes over the training rows")
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = Field("auto", description="peak learning rate")
    batch_tokens: Annotated[int, Field(ge=1)] | Auto = Field("auto", description="tokens an optimiser step")
    warmup: Fraction = Field(0.05, description="share of the steps with rising learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="decoupled weight decay")
    clip_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    patience: Annotated[int, Field(ge=1)] = Field(4, description="dev evaluations without improvement before stopping")
    max_length: Annotated[int, Field(ge=8)] | Auto = Field("auto", description="longest row in tokens")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="arithmetic of the matrix products")
    memory: Literal["auto", "fast", "selective", "checkpoint", "least"] = Field(
        "auto",
        description="how memory is saved: fast recomputes nothing, selective every second layer, checkpoint all; "
        "least also steps within the backward pass, with eight-bit moments",
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto", description="whether layers are compiled; auto: where that pays within the run"
    )
    save_every: Annotated[float, Field(ge=0)] | Auto = Field(
        "auto", description="time between two checkpoints; 10m, 90s, or seconds; 0: after each step"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="seed of the training: order, dropout, new weights")

    @field_validator("save_every", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) and value != "auto" else value


class RivalRecipe(Noun):
    """Another model to beat, behind an OpenAI-compatible endpoint: test rows, and the training rows that are shown with
    them, are sent there."""

    url: str | None = Field(
        None, description="address of the endpoint up to /chat/completions, such as https://host/v1"
    )
    model: Annotated[str, Field(min_length=1)] | None = Field(None, description="the endpoint's name of the model")
    key: str | None = Field(None, description="variable of the environment that holds the key; never the key itself")

    @field_validator("url")
    @classmethod
    def _reached(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and (parts.port or 1) > 0
            good = known and bool((parts.hostname or "").encode("idna")) and value.isascii() and value.isprintable()
        except ValueError:  # no port, or a name that no host can have
            good = False
        if not good or "@" in parts.netloc or parts.query or parts.fragment or " " in value:
            raise ValueError("expected an address such as https://host/v1, without a name, a key or a query in it")
        return value

    @field_validator("key")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isidentifier() and len(value) <= 64):
            raise ValueError("expected the name of a variable of the environment, such as OPENAI_API_KEY, not a key")
        return value


class EvaluateRecipe(Noun):
    metrics: tuple[str, ...] = Field((), description="the first is the primary; default by task")
    baselines: tuple[str, ...] | Auto = Field("auto", description="systems that tuning has to beat")
    shots: Annotated[int, Field(ge=1, le=64)] = Field(4, description="examples shown by few_shot")
    max_new_tokens: Annotated[int, Field(ge=1)] | Auto = Field("auto", description="longest answer")
    prompt: str | None = Field(
        None, description="system prompt of the prompted baselines; written from the data when absent"
    )
    min_gain: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="gain over the best baseline that is worth shipping, in the metric's own units; at 0, advise asks "
        "for 2 points, or 2% of a perplexity",
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="use at most this many test rows, drawn by data.split.seed"
    )
    rival: RivalRecipe = RivalRecipe()


class BudgetRecipe(Noun):
    memory: Annotated[int, Field(gt=0)] | None = Field(
        None, description="memory that training may take at most; 8GB, 512MiB, or bytes; never more than a device has"
    )
    time: Annotated[float, Field(gt=0)] | None = Field(None, description="longest training time; 30m, 2h, or seconds")

    @field_validator("time", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) else value

    @field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return size(value) if isinstance(value, str) else value


class Recipe(Noun):
    """One YAML file. Paths are relative to the recipe's folder (``recipe_file.load`` makes them absolute)."""

    model: str = Field("bundled", description="bundled, a local folder, or a hub id")
    start: str | None = Field(None, description="run whose adapter training goes on from")
    task: Task = Field(
        "generate", description="generate: write an answer; classify: choose a label; prefer: tell better answers"
    )
    objective: ObjectiveRecipe = ObjectiveRecipe()
    data: DataRecipe
    method: MethodRecipe = MethodRecipe()
    reward: RewardRecipe = RewardRecipe()
    rollout: RolloutRecipe = RolloutRecipe()
    train: TrainRecipe = TrainRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    budget: BudgetRecipe = BudgetRecipe()

    @field_validator("objective", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def parse(cls, raw: Any, where: str = "recipe", places: Mapping[tuple[str, ...], str] | None = None) -> Self:
        """A recipe from plain values. ``places`` names the line of a key, where it is known.

        Raises RecipeError with one sentence a bad key: place, what was found, what was expected.
        """
        tell = Sentences(cls, where, places or {})
        if not isinstance(raw, dict):
            found = "nothing" if raw is None else type(raw).__name__
            raise RecipeError(
                f"{where}: found {found}; expected keys such as model and data. tunesmith init writes a recipe."
            )
        try:
            recipe = cls.model_validate(raw)
        except ValidationError as error:
            raise RecipeError("\n".join(tell.of(error))) from None
        problems = [
            *tell.booleans(raw),
            *tell.not_finite(recipe),
            *(tell.at(*path, text=text) for path, text in recipe._idle()),
        ]
        if problems:
            raise RecipeError("\n".join(problems))
        return recipe

    def _idle(self) -> Iterator[tuple[tuple[str, str], str]]:
        """Settings that would act on nothing: a key acts or is refused."""
        if self.budget.memory is not None and self.train.memory != "auto":
            yield ("budget", "memory"), "has no effect beside train.memory. Leave one of them out."
        yield from self._idle_evaluation()
        for name, needed in (("label", "model"), ("weight", "model"), ("judge_label", "judge")):
            if name in self.reward.changed() and getattr(self.reward, needed) is None:
                yield ("reward", name), f"has no effect without reward.{needed}. Leave it out, or name a run there."
        for name in ("dev", "test"):
            if getattr(self.data, name) is not None and name in self.data.split.changed():
                yield (
                    ("data", f"split.{name}"),
                    f"has no effect beside data.{name}, a file of its own. Leave one of them out.",
                )
        if self.data.split.dev + self.data.split.test >= 1:
            share = f"{self.data.split.dev:g} + {self.data.split.test:g}"
            yield (
                ("data", "split"),
                f"has dev + test = {share}; expected a sum below 1, so that rows are left to train on.",
            )

    def _idle_evaluation(self) -> Iterator[tuple[tuple[str, str], str]]:
        asked = self.evaluate.baselines
        changed = self.evaluate.changed()
        if "shots" in changed and asked != "auto" and not {"few_shot", "rival"} & set(asked):
            yield ("evaluate", "shots"), "has no effect without the baseline few_shot. Leave it out, or add few_shot."
        rival = self.evaluate.rival
        if (rival.url is None) != (rival.model is None):
            yield ("evaluate", "rival"), "names an address or a model alone. Give both evaluate.rival.url and .model."
        elif rival.url is None and (rival.key is not None or "rival" in asked):
            yield ("evaluate", "rival"), "has no url. Give evaluate.rival.url and .model, or leave it out."
        elif rival.url is not None and asked != "auto" and "rival" not in asked:
            yield ("evaluate", "rival"), "has no effect without the baseline rival. Leave it out, or add rival."
        if "prompt" in changed and asked != "auto" and not {"zero_shot", "few_shot", "rival"} & set(asked):
            yield ("evaluate", "prompt"), "has no effect without a prompted baseline. Leave it out, or add zero_shot."
        if "max_new_tokens" in changed and self.task != "generate":
            text = f"has no effect with task: {self.task}, which chooses. Leave it out."
            yield ("evaluate", "max_new_tokens"), text
        if "patience" in self.train.changed() and self.data.dev is None and not self.data.split.dev:
            yield ("train", "patience"), "has no effect without dev rows. Leave it out, or set data.split.dev."
