"""Examples to token rows: what is trained is proven by rendering the conversation prefix by prefix.

Notable: the trained span of a turn is the difference between the render with and without it, so any chat template
works, none needs ``{% generation %}`` marks; the text is cut at these borders before it is tokenised, so the ids
before an answer are exactly the ids the model sees when it is asked. The stop token is inside the span. Strings such
as ``<|im_end|>`` inside a user's text stay text.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2.exceptions import TemplateError

from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.example import Example, Message

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
FAULTS = (  # what a program of strangers may raise: everything but an interrupt
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TemplateError,
    TypeError,
    ValueError,
)
MARKS = range(0xE000, 0xF900)  # private-use characters, one of which breaks up a special token inside a text


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
        self._special_pattern = re.compile("(" + ("|".join(map(re.escape, self._specials)) or "(?!)") + ")")
        self._cuts_are_safe = tokenizer.decode(self._plain_ids("a") + self._plain_ids("b")).strip() == "ab"
        self._keeps_system = True
        self._keeps_system = self._takes_system()

    # -- text -------------------------------------------------------------------------------------------------------

    def text(
        self, messages: Sequence[Message], *, ask: bool, tools: Sequence[dict[str, Any]] = (), mark: str = ""
    ) -> str:
        """The conversation through the chat template; ``ask`` adds the opening of the assistant's turn.

        System turns go before the first user turn's text where the template refuses or drops them. Raises DataError
        with the template's own words when it refuses the messages, ModelError when it refuses all.
        """
        if not messages:
            raise _Refused("the assistant's turn comes first, and nothing asks for it. Give it weight 0, or remove it.")
        turns = self.turns(messages)
        if mark:
            turns, tools = self._guarded(turns, mark), self._guarded(list(tools), mark)
        try:
            return self._written(turns, ask, tools)
        except FAULTS as error:
            self._check_works()
            roles = ", ".join(m.role for m in messages) or "none"
            raise _Refused(
                f"the chat template refuses these turns ({roles}): {_said(error)}. "
                "Change the rows, or use another model."
            ) from error

    def turns(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """What the chat template is given."""
        return [m.for_template() for m in (messages if self._keeps_system else _folded(messages))]

    def holds_specials(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> bool:
        """Whether some content holds a special token's string, which other renderers take for the token."""
        return bool(self._mark(messages, tools))

    def _written(self, turns: Sequence[dict[str, Any]], ask: bool, tools: Sequence[dict[str, Any]] = ()) -> str:
        """Raises whatever the template raises: a template is a program, and can divide by zero."""
        return str(
            self.tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=ask, chat_template=self.template
            )
        )

    def _check_works(self) -> None:
        """Raise ModelError where not even the plainest question can be rendered: then no row is at fault."""
        try:
            self._written([{"role": "user", "content": "a"}], ask=True)
        except FAULTS as error:
            raise ModelError(
                f"The chat template of this model cannot render one user turn: {_said(error)}. "
                "Fetch the model again, put a template that works into its chat_template.jinja, or use another model."
            ) from error

    def _takes_system(self) -> bool:
        """Whether the template writes a system turn at all; some raise, some leave it out in silence."""
        probe = [{"role": "system", "content": "probe"}, {"role": "user", "content": "a"}]
        try:
            return "probe" in self._written(probe, ask=True)
        except FAULTS:  # a template says no in its own way; what it cannot write at all, rows tell
            return False

    def _guarded(self, value: Any, mark: str) -> Any:
        """``value`` with every special token's string broken up by ``mark``, however deep it lies."""
        return _mapped(value, lambda t: self._special_pattern.sub(lambda m: m[0][0] + mark + m[0][1:], t))

    def _mark(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
        """A private-use character when some content holds a special token's string, else an empty string."""
        found: list[str] = []
        _mapped([m.for_template() for m in messages] + list(tools), found.append)
        content = "\n".join(found)
        if not self._special_pattern.search(content):
            return ""
        return next(chr(n) for n in MARKS if chr(n) not in content)

    # -- ids --------------------------------------------------------------------------------------------------------

    def _plain_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _segments(self, text: str, mark: str) -> Iterator[tuple[int, str, bool]]:
        """(start, piece, is a special token) of a marked text; a text without marks is one piece."""
        if not mark:
            yield 0, text, False
            return
        start = 0
        for piece in self._special_pattern.split(text):
            if piece:
                yield start, piece, piece in self._specials
            start += len(piece)

    def _ids(self, text: str, mark: str) -> list[int]:
        ids: list[int] = []
        for _, piece, special in self._segments(text, mark):
            if special:
                ids.append(int(self.tokenizer.convert_tokens_to_ids(piece)))
            elif mark:
                ids += self._plain_ids(piece.replace(mark, ""))
            else:
                ids += self.tokenizer(piece, add_special_tokens=False).input_ids
        return ids

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """The ids a model is shown when it is asked to answer: cut at earlier answers just as training rows are.

        Raises DataError when the template refuses the messages.
        """
        mark = self._mark(messages, tools)
        asked = self.text(messages, ask=True, tools=tools, mark=mark)
        try:
            borders = self._borders(messages, tools, asked, mark)
        except _NotAPrefix:
            borders = []
        return self._weighted(asked, borders, mark)[0]

    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant's turn: the tokenizer's eos and the special token that the template writes after
        an answer."""
        probe = (Message(role="user", content="a"), Message(role="assistant", content="b"))
        tail = self.text(probe, ask=False)[len(self.text(probe[:1], ask=True)) :]
        found = self._special_pattern.findall(tail)
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
        return self.bound(example, self.whole(example, label))

    def whole(self, example: Example, label: int = -1) -> tuple[TokenRow, ...]:
        """The rows of ``example`` as long as they come, whatever ``max_length`` is. Raises DataError."""
        if example.text is not None:
            bos = self.tokenizer.bos_token_id
            ids = ([] if bos is None else [int(bos)]) + self._plain_ids(example.text or "")
            return (TokenRow(tuple(ids), (1.0,) * len(ids), -1, example.id),)
        if label >= 0:
            ids = self.classify_ids(example)
            return (TokenRow(tuple(ids), (0.0,) * len(ids), label, example.id),)
        try:
            parts = self._conversation(example)
        except _Refused as error:
            raise DataError(f"{example.place}: {error}") from error
        return tuple(TokenRow(tuple(ids), tuple(weights), -1, example.id) for ids, weights in parts)

    def bound(self, example: Example, rows: Sequence[TokenRow]) -> Rendered:
        """``whole`` rows within ``max_length``: a text goes on in a further row, anything else is cut. Raises DataError
        where no token would be trained."""
        if example.text is not None:
            return Rendered(tuple(part for row in rows for part in self._pieces(row)))
        cut = [self._cut(example, row) for row in rows]
        return Rendered(tuple(cut), sum(len(row.ids) for row in rows) - sum(len(row.ids) for row in cut))

    def spelled(self, example: Example) -> Example:
        """The example with the text of its answer where that calls tools: what the model is trained to write, read as
        its answers are read (special tokens left out, the stop token among them). Raises DataError."""
        if not example.ends_in_calls:
            return example
        *before, turn = example.messages
        silent = [m.model_copy(update={"weight": 0.0}) for m in before]
        (row,) = self.rows(
            example.model_copy(update={"messages": (*silent, turn.model_copy(update={"weight": 1.0}))})
        ).rows
        ids = [i for i, weight in zip(row.ids, row.weight, strict=True) if weight > 0]
        return example.model_copy(update={"written": str(self.tokenizer.decode(ids, skip_special_tokens=True))})

    def classify_ids(self, example: Example) -> list[int]:
        """An example's input, or all its turns and then the answer where it has one, with the tokenizer's own special
        tokens ([CLS] ... [SEP], or BOS), for a model with a head."""
        last = example.messages[-1] if example.messages and example.label is None else None
        answer = last.content if last is not None and last.role == "assistant" else None
        asked = example.input_text if answer is None else "\n".join(m.content for m in example.prompt)
        options: dict[str, Any] = {"split_special_tokens": True, "truncation": False, "verbose": False}
        return list(self.tokenizer(asked, answer, **options).input_ids)

    def _pieces(self, row: TokenRow) -> Iterator[TokenRow]:
        size = self.max_length or max(len(row.ids), 1)
        for start in range(0, len(row.ids), size):
            piece = slice(start, start + size)
            if len(row.ids[piece]) > 1:
                yield replace(row, ids=row.ids[piece], weight=row.weight[piece])

    def _conversation(self, example: Example) -> list[tuple[list[int], list[float]]]:
        """Ids and weights: one row, or one for each trained turn where the template rewrites earlier turns."""
        messages, tools = example.messages, example.tools
        mark = self._mark(messages, tools)
        full = self.text(messages, ask=False, tools=tools, mark=mark)
        self._check_calls(example, full)
        try:
            borders = self._borders(messages, tools, full, mark)
        except _NotAPrefix:
            trained = [i for i, m in enumerate(messages) if m.role == "assistant" and m.weight > 0]
            return [self._last_turn(example, i) for i in trained] or [([], [])]
        end = max((end for _, end, weight in borders if weight > 0), default=len(full))
        return [self._weighted(full[:end], [b for b in borders if b[1] <= end], mark)]

    def _check_calls(self, example: Example, full: str) -> None:
        """Refuse tool calls that the template leaves out: their row would teach the model to say nothing."""
        for call in (c for m in example.messages for c in m.tool_calls):
            name = str((call.get("function") or call).get("name", ""))
            if name not in full:
                raise DataError(
                    f"{example.place}: the call of {name!r} is left out by the chat template, which knows no tools. "
                    "Use a model whose template does, or leave such rows out."
                )

    def _borders(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], full: str, mark: str
    ) -> list[tuple[int, int, float]]:
        """(start, end, weight) of each assistant turn in ``full``, all found by rendering prefixes."""
        borders: list[tuple[int, int, float]] = []
        for i, message in enumerate(messages):
            if message.role != "assistant" or (i == 0 and message.weight == 0):
                continue
            before = self.text(messages[:i], ask=True, tools=tools, mark=mark)
            after = self.text(messages[: i + 1], ask=False, tools=tools, mark=mark)
            if not (after.startswith(before) and full.startswith(after.rstrip())):
                raise _NotAPrefix
            borders.append((len(before), self._end_of_turn(after, len(before)), message.weight))
        return borders

    def _last_turn(self, example: Example, index: int) -> tuple[list[int], list[float]]:
        """A row of its own for one assistant turn, for templates that rewrite earlier turns (strip thinking, say)."""
        turns, tools = example.messages[: index + 1], example.tools
        mark = self._mark(turns, tools)
        before = self.text(turns[:-1], ask=True, tools=tools, mark=mark)
        after = self.text(turns, ask=False, tools=tools, mark=mark)
        if not after.startswith(before):
            raise DataError(
                f"{example.place}: the chat template renders the question differently once it is answered, so what "
                "would be trained is not what the model is asked. Use another template, or leave such rows out."
            )
        border = (len(before), self._end_of_turn(after, len(before)), turns[-1].weight)
        if not self._cuts_are_safe:
            return self._weighted(after[: border[1]], [border], mark)
        prompt, answer = self.prompt_ids(turns[:-1], tools), self._ids(after[border[0] : border[1]], mark)
        return prompt + answer, [0.0] * len(prompt) + [border[2]] * len(answer)

    def _end_of_turn(self, text: str, start: int) -> int:
        """Where the turn that begins at ``start`` ends: after its last special token, or after its last visible
        character."""
        ends = [m.end() for m in self._special_pattern.finditer(text, start)]
        return ends[-1] if ends else max(start, len(text.rstrip()))

    def _weighted(self, text: str, borders: list[tuple[int, int, float]], mark: str) -> tuple[list[int], list[float]]:
        if not self._cuts_are_safe:
            return self._by_offsets(text, borders, mark)
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

    def _by_offsets(self, text: str, borders: list[tuple[int, int, float]], mark: str) -> tuple[list[int], list[float]]:
        """For tokenizers that put a space before each piece: no cuts, spans found by character offsets."""
        ids: list[int] = []
        weights: list[float] = []
        for start, piece, special in self._segments(text, mark):
            spans = [(start, start + len(piece))]
            if special:
                ids.append(int(self.tokenizer.convert_tokens_to_ids(piece)))
            else:
                places = [start + i for i, c in enumerate(piece) if c != mark]
                plain = piece.replace(mark, "") if mark else piece
                encoded = self.tokenizer(
                    plain, add_special_tokens=False, split_special_tokens=bool(mark), return_offsets_mapping=True
                )
                ids += encoded.input_ids
                spans = [(places[a], places[b - 1] + 1) if b > a else (0, 0) for a, b in encoded.offset_mapping]
            weights += [
                next((w for a, b, w in borders if low >= a and high <= b and high > low), 0.0) for low, high in spans
            ]
        return ids, weights

    def _cut(self, example: Example, whole: TokenRow) -> TokenRow:
        size = len(whole.ids) if self.max_length is None else min(len(whole.ids), self.max_length)
        row = whole if size == len(whole.ids) else replace(whole, ids=whole.ids[:size], weight=whole.weight[:size])
        if row.label < 0 and row.trained == 0:
            why = "its answer lies beyond" if any(whole.weight) else "it has no assistant turn to learn from within"
            raise DataError(
                f"{example.place}: no token would be trained; {why} the first {size} tokens (the row has "
                f"{len(whole.ids)}). Raise train.max_length, shorten the prompt, or leave the row out."
            )
        return row


class _NotAPrefix(Exception):
    """A template that renders an earlier turn differently once later turns are there."""


class _Refused(DataError):
    """A template that raises on these messages."""


def _said(error: Exception) -> str:
    """The template's own words on one line; the kind of error where it is none of the template's own."""
    said = " ".join(str(error).split())[:200].rstrip(" .:!,")
    if isinstance(error, TemplateError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _folded(messages: Sequence[Message]) -> list[Message]:
    """System turns put before the first user turn's text, for templates that have no place for them."""
    system = [m.content for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    first = next((i for i, m in enumerate(turns) if m.role == "user"), None)
    if first is None or not system:
        return list(messages)
    turns[first] = turns[first].model_copy(update={"content": "\n\n".join([*system, turns[first].content])})
    return turns


def _mapped(value: Any, change: Callable[[str], Any]) -> Any:
    """``value`` with ``change`` applied to every text in it, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(k, change): _mapped(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(v, change) for v in value]
    return value
