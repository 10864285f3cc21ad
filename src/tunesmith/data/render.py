"""Examples to token rows: what is trained is proven by rendering the conversation prefix by prefix.

Notable: the trained span of a turn is the difference between the render with and without it, so any chat template
works, none needs ``{% generation %}`` marks; the text is cut at these borders before it is tokenised, so the ids
before an answer are exactly the ids the model sees when it is asked. The stop token is inside the span. Strings such
as ``<|im_end|>`` inside a user's text stay text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.example import Example, Message

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
MARKS = (
    "\ue000",
    "\ue001",
    "\uf8ff",
    "\U000f0000",
)  # private-use characters that break up a special token inside a text


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token rows of one example and what had to be done to it (``truncated`` tokens were cut off its end)."""

    rows: tuple[TokenRow, ...]
    truncated: int = 0


class Renderer:
    """Renders for one tokenizer. ``max_length`` bounds a row; None means as long as it comes."""

    def __init__(self, tokenizer: Any, *, max_length: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.template = tokenizer.chat_template or PLAIN_TEMPLATE
        added = tokenizer.added_tokens_decoder.values()
        self._specials = sorted({str(t.content) for t in added if t.special}, key=len, reverse=True)
        self._special_pattern = (
            re.compile("(" + "|".join(map(re.escape, self._specials)) + ")") if self._specials else None
        )
        self._cuts_are_safe = tokenizer.decode(self._plain_ids("a") + self._plain_ids("b")).strip() == "ab"

    # -- text -------------------------------------------------------------------------------------------------------

    def text(
        self, messages: Sequence[Message], *, ask: bool, tools: Sequence[dict[str, Any]] = (), mark: str = ""
    ) -> str:
        """The conversation through the chat template; ``ask`` adds the opening of the assistant's turn."""
        turns = [self._guarded(m, mark).for_template() for m in messages]
        rendered = self.tokenizer.apply_chat_template(
            turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=ask, chat_template=self.template
        )
        return str(rendered)

    def _guarded(self, message: Message, mark: str) -> Message:
        content = message.content
        for special in self._specials if mark else ():
            content = content.replace(special, special[0] + mark + special[1:])
        return message if content == message.content else message.model_copy(update={"content": content})

    def _mark(self, messages: Sequence[Message]) -> str:
        """A private-use character when some content holds a special token's string, else an empty string."""
        content = "\n".join(m.content for m in messages)
        if not any(special in content for special in self._specials):
            return ""
        return next(mark for mark in MARKS if mark not in content)

    # -- ids --------------------------------------------------------------------------------------------------------

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _ids(self, text: str, mark: str) -> list[int]:
        if not mark or self._special_pattern is None:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        ids: list[int] = []
        for piece in self._special_pattern.split(text):
            if piece in self._specials:
                ids.append(int(self.tokenizer.convert_tokens_to_ids(piece)))
            elif piece:
                ids += self._plain_ids(piece.replace(mark, ""))
        return ids

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """The ids a model is shown when it is asked to answer."""
        mark = self._mark(messages)
        return self._ids(self.text(messages, ask=True, tools=tools, mark=mark), mark)

    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn: the tokenizer's eos and the special token that the template writes after
        an answer."""
        probe = (Message(role="user", content="a"), Message(role="assistant", content="b"))
        tail = self.text(probe, ask=False)[len(self.text(probe[:1], ask=True)) :]
        found = self._special_pattern.findall(tail) if self._special_pattern else []
        stops = [int(self.tokenizer.convert_tokens_to_ids(t)) for t in found[:1]]
        if self.tokenizer.eos_token_id is not None:
            stops.append(int(self.tokenizer.eos_token_id))
        if not stops:
            raise ModelError(
                "This tokenizer has no end-of-turn token: the model could never stop. Set eos_token in its files."
            )
        return tuple(dict.fromkeys(stops))

    # -- rows -------------------------------------------------------------------------------------------------------

    def rows(self, example: Example, label: int = -1) -> Rendered:
        """Token rows of an example: one for a conversation or a label, several for a long text. Raises DataError."""
        if example.text is not None:
            return self._text_rows(example)
        if label >= 0:
            ids = self.classify_ids(example)
            kept = ids[: self.max_length]
            return Rendered((TokenRow(tuple(kept), (0.0,) * len(kept), label, example.id),), len(ids) - len(kept))
        try:
            parts = [self._conversation(example, example.messages)]
        except _NotAPrefix:
            parts = [
                self._last_turn(example, i)
                for i, m in enumerate(example.messages)
                if m.role == "assistant" and m.weight > 0
            ]
        rendered = [self._cut(example, ids, weight) for ids, weight in parts]
        return Rendered(tuple(row for row, _ in rendered), sum(cut for _, cut in rendered))

    def classify_ids(self, example: Example) -> list[int]:
        """An example's input with the tokenizer's own special tokens ([CLS] ... [SEP], or BOS), for a model with a
        head."""
        ids = self.tokenizer(example.input_text, split_special_tokens=True, truncation=False, verbose=False).input_ids
        return list(ids)

    def _text_rows(self, example: Example) -> Rendered:
        bos = self.tokenizer.bos_token_id
        ids = ([] if bos is None else [int(bos)]) + self._plain_ids(example.text or "")
        size = self.max_length or len(ids)
        parts = [ids[i : i + size] for i in range(0, len(ids), size)]
        return Rendered(tuple(TokenRow(tuple(p), (1.0,) * len(p), -1, example.id) for p in parts if len(p) > 1))

    def _conversation(self, example: Example, messages: tuple[Message, ...]) -> tuple[list[int], list[float]]:
        mark = self._mark(messages)
        full = self.text(messages, ask=False, tools=example.tools, mark=mark)
        borders: list[tuple[int, int, float]] = []
        for i, message in enumerate(messages):
            if message.role != "assistant" or message.weight == 0:
                continue
            before = self.text(messages[:i], ask=True, tools=example.tools, mark=mark)
            after = self.text(messages[: i + 1], ask=False, tools=example.tools, mark=mark)
            if not (after.startswith(before) and full.startswith(after.rstrip())):
                raise _NotAPrefix
            borders.append((len(before), self._end_of_turn(after, len(before)), message.weight))
        return self._weighted(full[: borders[-1][1]] if borders else full, borders, mark)

    def _last_turn(self, example: Example, index: int) -> tuple[list[int], list[float]]:
        """A row of its own for one assistant turn, for templates that rewrite earlier turns (strip thinking, say)."""
        turns = example.messages[: index + 1]
        mark = self._mark(turns)
        before = self.text(turns[:-1], ask=True, tools=example.tools, mark=mark)
        after = self.text(turns, ask=False, tools=example.tools, mark=mark)
        if not after.startswith(before):
            raise DataError(
                f"{example.place}: the chat template renders the question differently once it is answered, so what "
                "would be trained is not what the model is asked. Use another template, or leave such rows out."
            )
        return self._weighted(after, [(len(before), self._end_of_turn(after, len(before)), turns[-1].weight)], mark)

    def _end_of_turn(self, text: str, start: int) -> int:
        """Where the turn that begins at ``start`` ends: after its last special token, or after its last visible
        character."""
        ends = [m.end() for m in self._special_pattern.finditer(text, start)] if self._special_pattern else []
        return ends[-1] if ends else len(text.rstrip())

    def _weighted(self, text: str, borders: list[tuple[int, int, float]], mark: str) -> tuple[list[int], list[float]]:
        if not self._cuts_are_safe and not mark:
            return self._by_offsets(text, borders)
        ids: list[int] = []
        weights: list[float] = []
        position = 0
        for start, end, weight in borders:
            for part, part_weight in ((text[position:start], 0.0), (text[start:end], weight)):
                new = self._ids(part, mark) if part else []
                ids += new
                weights += [part_weight] * len(new)
            position = end
        rest = self._ids(text[position:], mark) if text[position:] else []
        return ids + rest, weights + [0.0] * len(rest)

    def _by_offsets(self, text: str, borders: list[tuple[int, int, float]]) -> tuple[list[int], list[float]]:
        """For tokenizers that put a space before each piece: one pass over the whole text, spans found by character
        offsets."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        weights = [
            next((w for start, end, w in borders if low >= start and high <= end and high > low), 0.0)
            for low, high in encoded.offset_mapping
        ]
        return list(encoded.input_ids), weights

    def _cut(self, example: Example, ids: list[int], weights: list[float]) -> tuple[TokenRow, int]:
        size = len(ids) if self.max_length is None else min(len(ids), self.max_length)
        row = TokenRow(tuple(ids[:size]), tuple(weights[:size]), -1, example.id)
        if row.trained == 0:
            why = "its answer lies beyond" if any(weights) else "it has no assistant turn to learn from within"
            raise DataError(
                f"{example.place}: no token would be trained; {why} the first {size} tokens (the row has {len(ids)}). "
                "Raise train.max_length, shorten the prompt, or leave the row out."
            )
        return row, len(ids) - size


class _NotAPrefix(Exception):
    """A template that renders an earlier turn differently once later turns are there."""
