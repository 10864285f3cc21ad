"""How many tokens rows have, without the model's tokenizer classes: for a plan, in a moment.

Notable: texts are counted with the model's own ``tokenizer.json``; what a chat template puts around a turn is measured
by rendering one conversation, and added to each turn. Of many rows a sample is counted, evenly spread, and the rest is
taken to be like it; but memory is needed for the longest row, so those with the most characters, which are known of
all, are counted as well. Without a tokenizer a token is taken for ``CHARACTERS`` characters, and that is said.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.core.example import Example

SAMPLE = 1_000  # rows at least, and fewer than twice as many
LONGEST = 16  # by characters; a text of fewer characters may have more tokens
CHARACTERS = 4.0  # a token, as English has it with vocabularies of 30,000 and more
A_TURN = 5  # tokens around a turn where no template tells


@dataclass(frozen=True)
class Size:
    """Tokens of a row's prompt and of its answers: one, or two where answers are compared."""

    prompt: int
    answers: tuple[int, ...]

    @cached_property
    def tokens(self) -> int:
        """As the network reads them: what answers share counts once."""
        return self.prompt + sum(self.answers)

    @cached_property
    def longest(self) -> int:
        return self.prompt + max(self.answers, default=0)


class Counter:
    """Counts for the model in ``folder``; None where there are no files. ``assumed`` says what was taken for
    granted."""

    def __init__(self, folder: Path | None) -> None:
        self.assumed: list[str] = []
        self._tokenizer = self._read(folder)
        if self._tokenizer is None:
            self.assumed.append(f"No tokenizer is at hand: a token is taken for {CHARACTERS:g} characters.")
        self.a_turn, self.opening = self._around(folder)

    def _read(self, folder: Path | None) -> Any:
        path = None if folder is None else folder / "tokenizer.json"
        if path is None or not path.is_file():
            return None
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_file(str(path))
        except BaseException as error:
            if type(error) is Exception:  # as the library raises it, for whatever is wrong with the file
                self.assumed.append(f"{path} cannot be read.")
                return None
            raise
        found.no_padding()  # which some files ask for, to one length
        found.no_truncation()
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        if self._tokenizer is None:
            return [round(len(text) / CHARACTERS) for text in texts]
        return [len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def _around(self, folder: Path | None) -> tuple[int, int]:
        """(tokens that a turn costs beside its text, tokens that open the assistant's)."""
        template = None if folder is None else _template(folder)
        if template is None or self._tokenizer is None:
            return A_TURN, A_TURN
        turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            made = environment.from_string(template)
            both, asked, one = (
                made.render(messages=m, add_generation_prompt=ask, bos_token="", eos_token="", tools=None)
                for m, ask in ((turns, False), (turns[:1], True), (turns[:1], False))
            )
        except (TemplateError, TypeError, ValueError, AttributeError, ArithmeticError, LookupError):
            return A_TURN, A_TURN
        whole, opened, first, *words = self.count([both, asked, one, "one", "two"])
        return max(1, round((whole - sum(words)) / 2)), max(0, opened - first)

    def sizes(self, examples: Sequence[Example]) -> list[Size]:
        """Of a sample of the rows, in their order."""
        return self._sizes(examples[:: _step(examples)])

    def longest(self, examples: Sequence[Example]) -> list[Size]:
        """Of the rows with the most characters, the longest first; none where ``sizes`` counts all rows anyway."""
        if _step(examples) == 1:
            return []
        return sorted(self._sizes(nlargest(LONGEST, examples, key=_characters)), key=lambda s: s.tokens, reverse=True)

    def _sizes(self, chosen: Sequence[Example]) -> list[Size]:
        prompts = self.count([e.text or "\n".join(m.content for m in e.prompt) for e in chosen])
        answers = self.count([e.answer if e.text is None else "" for e in chosen])
        others = self.count([e.rejected.content if e.rejected is not None else "" for e in chosen])
        found = []
        for example, prompt, answer, other in zip(chosen, prompts, answers, others, strict=True):
            if example.text is not None and example.label is None:  # plain text: all of it is trained
                found.append(Size(0, (prompt + 1,)))
                continue
            around = self.a_turn * max(1, len(example.prompt)) + self.opening
            ends = max(1, self.a_turn - self.opening)
            own = (answer + ends,) if example.rejected is None else (answer + ends, other + ends)
            found.append(Size(prompt + around, own))
        return found


def _step(examples: Sequence[Example]) -> int:
    """Every how many rows one is in the sample."""
    return max(1, len(examples) // SAMPLE)


def _characters(example: Example) -> int:
    turns = [*example.messages, *([example.rejected] if example.rejected is not None else [])]
    return len(example.text or "") + sum(len(turn.content) for turn in turns)


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
