"""The table of a whole run, on the terminal and in ``docs/reliability.md``.

Notable: the page is written by a whole run only, so its figures are never those of a share.
"""

from pathlib import Path

from tests.faults.outcome import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


def markdown(outcomes: list[Outcome]) -> str:
    """One row a suite, then the sums.

    >>> print(markdown([Outcome("save", "SIGKILL", 3, [], 0.6), Outcome("power", "nothing", 1, ["x"], 0.1, False)]))
    | suite | what is injected | n | violations | seconds |
    |---|---|---:|---:|---:|
    | save | SIGKILL | 3 | 0 | 0.6 |
    | power | nothing | 1 | 1 | 0.1 |
    | all | faults | 3 | 1 | 0.7 |
    """
    rows = [*map(_row, outcomes), _row(Outcome("all", "faults", *sums(outcomes)))]
    return "\n".join(["| suite | what is injected | n | violations | seconds |", "|---|---|---:|---:|---:|", *rows])


def sums(outcomes: list[Outcome]) -> tuple[int, list[str], float]:
    """How many faults were injected, every violation, and the seconds."""
    injected = sum(outcome.n for outcome in outcomes if outcome.faults)
    return injected, [v for o in outcomes for v in o.violations], sum(o.seconds for o in outcomes)


def _row(outcome: Outcome) -> str:
    return f"| {outcome.suite} | {outcome.injected} | {outcome.n} | {len(outcome.violations)} | {outcome.seconds:.1f} |"


def write(table: str, page: Path = PAGE) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} lacks {BEGIN} or {END}.")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
