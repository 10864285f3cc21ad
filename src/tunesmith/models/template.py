"""Proof, before any row is rendered, that a model's chat template ends in time and in bounded memory.

Notable: a template is a program of strangers. A sandbox keeps it from files, not from looping (three nested loops of
99,999) or growing (a text doubled forty times), and neither can be stopped from within one process: filters and
string methods run in C. So a probe is rendered once at load in a process of its own, which is killed when it overruns.
The probe holds long texts, many turns, tools and calls, so that loops over what a row holds show as well; a template
that waits for a certain word in a row is not found by it.
"""

import json
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith.core.errors import ModelError

SECONDS = 5  # of processor time, which load on the machine does not shorten; a sound template takes milliseconds
PATIENCE = 60.0  # the same by the clock, for systems without such a limit
MEMORY = 1 << 28
CHARACTERS = 4 << 20  # the longest probe holds about 70,000
OUT_OF_TIME = (-getattr(signal, "SIGXCPU", 24), -getattr(signal, "SIGKILL", 9))
PROGRAM = Path(__file__).with_name("template_probe.py")

_TEXT = "Where is my order? It was promised for Monday.\n" * 20
_ASK = {"role": "user", "content": _TEXT}
_SAY = {"role": "assistant", "content": _TEXT}
_CALL = {"type": "function", "function": {"name": "find_order", "arguments": {"id": 7}}}
_CALLS: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_FOUND = {"role": "tool", "content": _TEXT, "name": "find_order", "tool_call_id": "1"}
_TOOL = {"type": "function", "function": {"name": "find_order", "description": _TEXT, "parameters": {"type": "object"}}}
_SYSTEM = {"role": "system", "content": _TEXT}
PROBES: tuple[tuple[list[dict[str, Any]], list[dict[str, Any]] | None], ...] = (
    ([{"role": "user", "content": "a"}], None),
    ([_SYSTEM, *[_ASK, _SAY] * 16, _ASK], None),  # templates without system turns refuse it: the next is theirs
    ([_ASK, _SAY] * 16, None),
    ([_SYSTEM, *[_ASK, _CALLS, _FOUND, _SAY] * 4], [_TOOL] * 4),
)


def check_template(folder: Path, template: str, special_tokens: dict[str, str]) -> None:
    """Raise ModelError for a template that overruns its probe. Each template is probed once a process."""
    fault = _fault(template, tuple(sorted(special_tokens.items())))
    if fault:
        raise ModelError(
            f"model: the chat template of {folder} {fault}. Fetch the model again, put a template you trust into "
            "its chat_template.jinja, or use another model."
        )


@lru_cache(maxsize=64)
def _fault(template: str, special_tokens: tuple[tuple[str, str], ...]) -> str:
    """What the probe found, in words that follow "the chat template of X"; empty when all is well."""
    order = {
        "template": template,
        "special_tokens": dict(special_tokens),
        "memory": MEMORY,
        "seconds": SECONDS,
        "characters": CHARACTERS,
        "conversations": [
            {"messages": turns, "tools": tools, "documents": None, "add_generation_prompt": ask}
            for turns, tools in PROBES
            for ask in (True, False)
        ],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(PROGRAM)],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"was still rendering a probe of a few turns after {PATIENCE:g} seconds"
    if done.returncode in OUT_OF_TIME:
        return f"was still rendering a probe of a few turns after {SECONDS} seconds of processor time"
    if done.returncode:  # a signal, or an interpreter that had no memory left to say so
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return f"broke the process that renders its probe (exit {done.returncode}; {said[-1] if said else 'no word'})"
    return str(json.loads(done.stdout))
