"""An example: a conversation, a labelled text or a plain text, and the place it came from.

Notable: one shape serves every format and task. ``messages`` ends with the answer for ``generate``; for ``classify``
it holds the input alone and ``label`` the class; for plain text (every token trained) ``text`` is set and
``messages`` is empty.
"""

from typing import Any, Literal

from tunesmith.core.noun import Noun

Role = Literal["system", "user", "assistant", "tool"]


class Place(Noun):
    """Where a row stands: file and 1-based line (for JSON arrays and tables the 1-based row)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


class Message(Noun):
    """One turn. ``weight`` 0 keeps an assistant turn out of the loss (OpenAI's ``weight``)."""

    role: Role
    content: str = ""
    weight: float = 1.0
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    def for_template(self) -> dict[str, Any]:
        """The dict a chat template expects, without our own fields."""
        turn: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            turn["tool_calls"] = list(self.tool_calls)
        for key in ("name", "tool_call_id"):
            if getattr(self, key) is not None:
                turn[key] = getattr(self, key)
        return turn


class Example(Noun):
    """One row of a dataset. ``group`` is the value of the ``group_by`` column, if any. ``written`` is the text of a
    final turn that calls tools: what the chat template makes of it, which a reader of files cannot know.

    With a preference, ``messages`` end with the better answer and ``rejected`` is the worse one; ``margin`` is by how
    much it is worse, ``tie`` says that neither is, and ``scores`` are what the file gives the better and the worse one.
    ``wanted`` judges the answer of a row that stands alone."""

    place: Place
    messages: tuple[Message, ...] = ()
    label: str | None = None
    text: str | None = None
    group: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    written: str | None = None
    rejected: Message | None = None
    margin: float = 0.0
    tie: bool = False
    scores: tuple[float, float] | None = None
    wanted: bool | None = None

    @property
    def id(self) -> str:
        """Stable name of the row: file name and line."""
        return f"{self.place.file.rsplit('/', 1)[-1]}:{self.place.line}"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What a model is shown: all turns before the final answer."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[:-1]
        return self.messages

    @property
    def input_text(self) -> str:
        """The prompt's user-visible text (all turns but system), for similarity, duplicates and display."""
        if self.text is not None:
            return self.text
        return "\n".join(m.content for m in self.prompt if m.role != "system")

    @property
    def answer(self) -> str:
        """The reference answer: the label, or the last assistant turn (as ``written`` where it calls tools), or an
        empty string."""
        if self.label is not None:
            return self.label
        if self.written is not None:
            return self.written
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[-1].content
        return ""

    @property
    def ends_in_calls(self) -> bool:
        """Whether the answer is a turn that calls tools, the text of which is the chat template's to write."""
        return self.label is None and bool(self.messages) and bool(self.messages[-1].tool_calls)

    @property
    def target(self) -> str | Message:
        """What the likelihood of this row is asked of: a plain text, the answer, or a whole turn that calls tools."""
        if self.text is not None and self.label is None:
            return self.text
        return self.messages[-1] if self.ends_in_calls else self.answer


class BadRow(Noun):
    """A row that was left out, with the sentence that says why and the raw text (cut to 2,000 characters)."""

    place: Place
    reason: str
    raw: str


class Dataset(Noun):
    """Examples of one file with how it was read."""

    examples: tuple[Example, ...]
    format: str
    why: str
    bad_rows: tuple[BadRow, ...] = ()
    file_sha256: str = ""


class Splits(Noun):
    """Train, dev and test; ``test_hash`` locks the test rows (hash over their inputs and answers). ``moved`` counts the
    rows that gave way to a dev or test file of its own; ``repeats`` are those of the training file."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    test_hash: str
    how: str
    moved: int = 0
    repeats: tuple[Example, ...] = ()
