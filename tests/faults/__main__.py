"""``python -m tests.faults [--smoke] [SUITE ...]``: break what we promise, on purpose, and count.

Notable: the last line is ``faults: N injected, V violations``; the exit code is 1 where V is not 0, and 2 where nothing
can be injected here. A whole run writes its table into ``docs/reliability.md``.
"""

import argparse
import sys

from tests.faults import points, table
from tests.faults.outcome import Outcome
from tests.faults.suites import SMOKE, SUITES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults and count violations.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"only these, of: {', '.join(SUITES)}")
    parser.add_argument("--smoke", action="store_true", help=f"every {SMOKE}th fault only")
    asked = parser.parse_args()
    if unknown := [name for name in asked.suites if name not in SUITES]:
        parser.error(f"no suite {unknown[0]}; there are {', '.join(SUITES)}")
    if reason := points.available():
        print(f"No fault can be injected: {reason}. Install strace, or run where a process may trace its child.")
        return 2
    outcomes = [_run(name, SMOKE if asked.smoke else 1) for name in asked.suites or SUITES]
    print("\n" + table.markdown(outcomes) + "\n")
    if not asked.smoke and not asked.suites:
        table.write(table.markdown(outcomes))
    injected, violations, _ = table.sums(outcomes)
    print(f"faults: {injected} injected, {len(violations)} violations")
    return 1 if violations else 0


def _run(name: str, share: int) -> Outcome:
    outcome = SUITES[name](share=share)
    print(f"{name}: {outcome.n}, {len(outcome.violations)} violations, {outcome.seconds:.1f} s", flush=True)
    for violation in outcome.violations:
        print(f"  {violation}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
