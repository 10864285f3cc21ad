"""A Modelfile for Ollama, whose templates are Go's and not Jinja's.

Notable: the Go template is not translated but found by asking: the chat template is rendered with marked contents, and
what stands around the marks is what each role begins and ends with. It is written only where joining these pieces gives
what the chat template gives on probes of other shapes; conversations with tools are not tried, and are said to be left
out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from tunesmith.models.exports._export import Subject

MARKS = {"system": "\u2460SYSTEM\u2460", "user": "\u2461USER\u2461", "assistant": "\u2462ASSISTANT\u2462"}
PROBES = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)


@dataclass(frozen=True)
class Pieces:
    """What stands before and after each role's content, at the beginning, and before the answer."""

    begin: str
    before: dict[str, str]
    after: dict[str, str]
    ask: str

    def joined(self, turns: Sequence[dict[str, Any]]) -> str:
        found = [self.before[t["role"]] + t["content"] + self.after[t["role"]] for t in turns]
        return self.begin + "".join(found) + self.ask


def render(subject: Subject, turns: Sequence[dict[str, Any]], *, ask: bool) -> str:
    return str(
        subject.model.tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=ask, chat_template=subject.template
        )
    )


def modelfile(subject: Subject, file: str) -> str:
    own = subject.model.tokenizer
    stops = [str(own.convert_ids_to_tokens(i)) for i in subject.stop_ids]
    found = pieces(subject)
    template = (
        "# TEMPLATE is left out: the chat template does more than write turns one after the other. Ollama then takes\n"
        "# the one inside the file where it knows it. Compare a few answers before you rely on them.\n"
        if found is None or '"""' in _go(found)
        else f'# Without tools; those are in the file\'s own template alone.\nTEMPLATE """{_go(found)}"""\n'
    )
    limits = f"PARAMETER temperature 0\nPARAMETER num_ctx {subject.model.card.context}\n"
    return f"FROM ./{file}\n{template}{limits}" + "".join(f'PARAMETER stop "{s}"\n' for s in stops)


def pieces(subject: Subject) -> Pieces | None:
    """None where the template is no joining of pieces."""
    try:
        found = _guess(subject)
        probes = [[{"role": r, "content": f" {r} {i}\n"} for i, r in enumerate(roles)] for roles in PROBES]
        holds = found is not None and all(found.joined(p) == render(subject, p, ask=True) for p in probes)
    except (TemplateError, ValueError, TypeError, LookupError):  # it refuses a system turn, or an order of turns
        return None
    return found if holds else None


def _guess(subject: Subject) -> Pieces | None:
    def turn(role: str) -> dict[str, str]:
        return {"role": role, "content": MARKS[role]}

    bos = subject.model.tokenizer.bos_token or ""
    whole = render(subject, [turn("system"), turn("user"), turn("assistant")], ask=False)
    head, _, rest = whole.partition(MARKS["system"])
    between, _, rest = rest.partition(MARKS["user"])
    answer, _, tail = rest.partition(MARKS["assistant"])
    alone = render(subject, [turn("user")], ask=True)
    first, _, asked = alone.partition(MARKS["user"])
    begin = bos if bos and first.startswith(bos) else ""
    user = first.removeprefix(begin)
    ask = asked.removeprefix(render(subject, [turn("user")], ask=False).partition(MARKS["user"])[2])
    if not (between.endswith(user) and answer.endswith(ask) and asked.endswith(ask) and head.startswith(begin)):
        return None
    before = {"system": head.removeprefix(begin), "user": user, "assistant": ask}
    after = {"system": between[: len(between) - len(user)], "user": answer[: len(answer) - len(ask)], "assistant": tail}
    return Pieces(begin, before, after, ask)


def _go(found: Pieces) -> str:
    """Ollama puts the BOS before it."""
    cases = []
    for number, role in enumerate(MARKS):
        word = "if" if number == 0 else "else if"
        text = f"{_literal(found.before[role])}{{{{ .Content }}}}{_literal(found.after[role])}"
        cases.append(f'{{{{ {word} eq .Role "{role}" }}}}{text}')
    return f"{{{{ range .Messages }}}}{''.join(cases)}{{{{ end }}}}{{{{ end }}}}{_literal(found.ask)}"


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
