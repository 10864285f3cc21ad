"""A realistic report with hostile texts, for the tests of the renderers and for looking at the page."""

import math
import random

from tunesmith.core.card import ModelCard
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import DataRecipe, Recipe
from tunesmith.core.report import (
    Confusion,
    CurvePoint,
    DataReport,
    Decision,
    Estimate,
    Finding,
    Fit,
    Forgetting,
    Report,
    RowOutcome,
    SystemResult,
    Verdict,
)

SCRIPT = "<script>alert('x')</script></style></title><img src=https://evil.example/x.png onerror=alert(1)>"
BIDI = "refund \u202egnp.exe\u202c and \u200bhidden\x00\x1b[31m red"
LONG = "needle " + "x" * 100_000
RTL = "أين طلبي؟ رقم 1234"
LABELS = (
    "refund_request", "delivery_status", "broken_item", "cancel_order", "change_address", "invoice_copy",
    "password_reset",    "double_charge", "warranty_claim", "product_question", "<b>complaint</b>",
    "a label whose name goes on and on for ever",
)  # fmt: skip


def estimate(value: float, n: int = 214, spread: float = 0.05) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread * 0.9), n=n)


def system(name: str, exact: float, seconds: float, **fields: object) -> SystemResult:
    metrics = {
        "exact_match": estimate(exact),
        "json_fields": estimate(min(1.0, exact + 0.09), spread=0.03),
        "macro_f1": estimate(exact * 0.97),
        "token_f1": estimate(min(1.0, exact + 0.13), spread=0.02),
        "rouge_l": estimate(min(1.0, exact + 0.12), spread=0.025),
        "json_valid": estimate(min(1.0, exact + 0.18), spread=0.01),
    }
    if name != "nearest_neighbour":
        value = 1.2 + 40 * (1 - exact) ** 3
        metrics["perplexity"] = Estimate(value=value, low=value * 0.93, high=value * 1.08, n=2140)
    values: dict[str, object] = {"kind": "baseline", "prompt_tokens": 84.3, "new_tokens": 23.7}
    return SystemResult.model_validate({"name": name, "metrics": metrics, "seconds": seconds} | values | fields)


def systems() -> tuple[SystemResult, ...]:
    return (
        system("zero_shot", 0.037, 61.2, invalid=171, note="31 answers ended at the length limit."),
        system("few_shot", 0.411, 188.4, prompt_tokens=412.8, invalid=12),
        system("nearest_neighbour", 0.486, 0.31, prompt_tokens=0, new_tokens=0),
        system("tuned", 0.827, 58.9, kind="tuned", prompt_tokens=51.2, invalid=1),
    )


def curve(points: int = 60) -> tuple[CurvePoint, ...]:
    rng = random.Random(3)
    made = []
    for k in range(points):
        loss = 0.24 + 2.1 * math.exp(-k / 9) + rng.gauss(0, 0.03)
        dev = 0.33 + 1.9 * math.exp(-k / 10) + 0.0018 * max(0, k - 38) if k % 4 == 3 else None
        rate = 2e-4 * min(1, (k + 1) / 4) * (0.5 + 0.5 * math.cos(math.pi * k / points))
        made.append(
            CurvePoint(step=5 * k, tokens=20480 * k, seconds=1.4 * k, loss=loss, dev_loss=dev, learning_rate=rate)
        )
    return tuple(made)


def outcome(k: int, text: str, tuned: str, baseline: str, scores: tuple[float, float]) -> RowOutcome:
    expected = '{"intent": "refund_request", "urgency": "high", "product": "kettle"}'
    return RowOutcome(
        id=f"tickets.jsonl:{k}",
        input=text,
        expected=expected,
        tuned=tuned or expected,
        baseline=baseline,
        tuned_score=scores[0],
        baseline_score=scores[1],
    )


TICKET = "Hi,\nmy kettle arrived broken and I want my money back asap!!\nOrder 44-1293, thx\nMaria"
WRONG = '{"intent": "broken_item", "urgency": "high", "product": "kettle"}'


def data() -> DataReport:
    rng = random.Random(5)
    found = [
        Finding(check="token_length", severity="info", count=3, message="3 rows are longer than 256 tokens."),
        Finding(
            check="contradictions",
            severity="warning",
            count=14,
            message="7 inputs stand with different answers; a model cannot learn both.",
            rows=("tickets.jsonl:12", "tickets.jsonl:498"),
            samples=(TICKET, BIDI),
        ),
        Finding(
            check="personal_data",
            severity="blocking",
            count=23,
            message="23 rows hold e-mail addresses or phone numbers.",
            rows=tuple(f"tickets.jsonl:{k}" for k in range(23)),
            samples=("write to " + SCRIPT, LONG),
        ),
    ]
    return DataReport(
        rows=1500,
        format="chat messages",
        why="each of the first 100 rows holds a list called messages with role and content.",
        quarantined=9,
        findings=tuple(found),
        token_lengths=tuple(min(400, int(rng.lognormvariate(4.3, 0.4))) for _ in range(1491)),
        trained_share=0.318,
        label_counts={name: 40 + 17 * k for k, name in enumerate(LABELS)},
    )


def confusion() -> Confusion:
    rng = random.Random(11)
    counts = []
    for row in range(12):
        line = [1 if rng.random() < 0.09 else 0 for _ in range(12)]
        line[row] = 6 + row
        counts.append(tuple(line))
    return Confusion(field="intent", labels=LABELS, counts=tuple(counts))


def verdict(decision: Decision = "SHIP") -> Verdict:
    return Verdict(
        decision=decision,
        metric="exact_match",
        baseline="nearest_neighbour",
        difference=Estimate(value=0.341, low=0.266, high=0.416, n=214),
        p_value=2.1e-12,
        test="McNemar, exact",
        rule="SHIP when the 95% interval of the gain over the best baseline lies above min_gain (0) and p < 0.05.",
        sentence="The tuned model answers 34.1 points more of the locked test rows exactly than the best baseline.",
        cost_sentence="Prompting (few_shot) reaches 50% of the tuned quality at 320% of its cost.",
    )


def plan() -> Plan:
    return Plan(
        learning_rate=2e-4, epochs=3, steps=300, warmup_steps=15, batch_tokens=4096, micro_tokens=2048, eval_every=20,
        patience=4, weight_decay=0.0, clip_norm=1.0, precision="float32", memory="fast", max_length=256,
        seconds=95.0, seed=0,
        reasons={
            "learning_rate": "LoRA on a 9.8M model: ten times the rate of full fine-tuning.",
            "max_length": "the 99.8th percentile of the rows is 241 tokens.",
            "precision": "a CPU without bfloat16 units.",
            "memory": "weights 39 MB, gradients and moments 9 MB, activations 410 MB.",
        },
    )  # fmt: skip


def fit() -> Fit:
    return Fit(
        curve=curve(), best_step=215, steps=295, stopped="early: dev loss did not improve in 4 evaluations",
        train_loss=0.251, dev_loss=0.352, train_score=estimate(0.902, 200), dev_score=estimate(0.838, 149),
        overfit="Mild overfitting: dev loss rose 3% after step 215, so the weights of step 215 were kept.",
        trainable_parameters=286_720, tokens_per_second=5432.1, trained_tokens=390_112, seconds=83.2,
        peak_bytes=3 << 28, peak_of="resident memory of the process while training",
    )  # fmt: skip


def build(decision: Decision = "SHIP") -> Report:
    rows = (
        outcome(17, TICKET, "", WRONG, (1.0, 0.0)),
        outcome(33, RTL, "", LONG, (1.0, 0.25)),
        outcome(90, BIDI, "", "", (1.0, 0.0)),
    )
    losses = (outcome(41, SCRIPT, WRONG, TICKET, (0.0, 1.0)), outcome(52, LONG, SCRIPT, BIDI, (0.0, 1.0)))
    card = ModelCard(
        name="tunesmith-base", path="/models/base", kind="decoder", architecture="LlamaForCausalLM",
        parameters=9_800_000, layers=8, width=320, vocabulary=8192, context=1024, fingerprint="5f1c" * 4,
        tokenizer_hash="77ab" * 4,
        template_hash="19de" * 4, licence="Apache-2.0",
    )  # fmt: skip
    return Report(
        run_id="20260301-141502-ab12cd",
        created="2026-03-01T14:18:40Z",
        recipe=Recipe(data=DataRecipe(train="/data/tickets.jsonl", columns={"prompt": SCRIPT})),
        card=card,
        plan=plan(),
        data=data(),
        split_sizes={"train": 1128, "dev": 149, "test": 214},
        split_how="grouped by customer_id, stratified by intent, seed 0; 11 near-duplicates moved to train.",
        test_hash="c0ffee0123456789",
        primary="exact_match",
        systems=systems(),
        verdict=verdict(decision),
        fit=fit(),
        forgetting=Forgetting(
            before=Estimate(value=1.95, low=1.88, high=2.02, n=64),
            after=Estimate(value=2.07, low=1.99, high=2.15, n=64),
            difference=Estimate(value=0.12, low=0.09, high=0.15, n=64),
            sentence="It forgot: general text costs 0.120 bits per byte more than before " + SCRIPT,
        ),
        confusions=(confusion(),),
        worst=losses[:1],
        best=rows[:1],
        wins=rows,
        losses=losses,
        seconds={"read": 0.21, "check": 1.34, "baselines": 250.2, "train": 83.2, "evaluate": 71.0},
        environment={"python": "3.11.7", "torch": "2.13.0", "machine": "x86_64, 2 cores", "note": SCRIPT},
        adapter="runs/20260301-141502-ab12cd/adapter",
        warnings=("The disk was nearly full; one checkpoint was skipped.",),
    )
