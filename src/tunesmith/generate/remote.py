"""A model behind an OpenAI-compatible endpoint, which writes answers: what it is asked leaves this machine, so a recipe
has to name it (``evaluate.rival``).

Notable: only ``/chat/completions`` is called, greedily; the first question alone, so that a wrong key or address is
known before the others go out, and then a few at a time. An endpoint that is busy or fails is asked again after growing
waits; what it says last is told. The threads are daemons: a silent endpoint holds up nobody who wants to stop. The key
comes from a variable of the environment and goes into no file and no message, even where the endpoint repeats it;
redirects are not followed, for the key would go with them.
"""

import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.protocols import Completion, Conversation, Tools
from tunesmith.core.recipe import RivalRecipe

AT_ONCE = 8
TRIES = 5
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds: the shortest after the first try, and the longest
SECONDS = 120.0  # for one try: until it begins to answer, and until it has answered
LARGEST = 2**24  # bytes of a reply
MOST_TOKENS = 10**9  # that a reply can say it has
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
REFUSED = {400, 413, 422}  # of one question, where others are answered
CONTEXT = 32_768  # tokens of a prompt with its answer, as what the endpoint reads is not known
LETTERS = 3  # of a token, at least: an estimate, to leave out what would not fit

Body = dict[str, Any]


class _Again(Exception):
    """Worth another try, ``after`` so many seconds where the endpoint says when."""

    def __init__(self, told: str, after: float = 0.0) -> None:
        super().__init__(told)
        self.after = after


class _Refused(Exception):
    """Of this question."""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class RemoteModel:
    """Answers conversations over HTTP. Raises RecipeError where the key is not there, and ModelError where the endpoint
    does not answer; both say what to do."""

    context = CONTEXT

    def __init__(self, rival: RivalRecipe) -> None:
        assert rival.url is not None  # a recipe that names no endpoint has no rival
        assert rival.model is not None
        self.url, self.model = f"{rival.url.rstrip('/')}/chat/completions", rival.model
        self._key, self._variable = "", rival.key
        self._opener = urllib.request.build_opener(_Stay())
        self._answers = False  # it has answered a question, so that another that it refuses is that question's fault
        self._unknown: set[str] = set()  # settings that this endpoint says it does not know

    def ready(self) -> None:
        """Look for the key. Raises RecipeError where it is not there."""
        self._key = _key(self._variable)

    def complete(
        self, prompts: Sequence[Conversation], *, max_new_tokens: int, tools: Sequence[Tools] = ()
    ) -> list[Completion]:
        """One completion a prompt, in their order; one that the endpoint refuses to answer is empty and marked
        ``refused``, once it has answered any."""
        paired = zip(prompts, tools or [()] * len(prompts), strict=True)
        bodies = [self._body(prompt, own, max_new_tokens) for prompt, own in paired]
        if not bodies:
            return []
        self.ready()
        if self._answers:
            return self._at_once(bodies)
        try:
            first = self._answer(bodies[0])
        except _Refused as refused:
            raise ModelError(f"{refused} Check evaluate.rival.") from None
        self._answers = True
        return [first, *self._at_once(bodies[1:])]

    def count_tokens(self, prompt: Conversation, *, tools: Tools = ()) -> int:
        """About: at most a token for every ``LETTERS`` bytes."""
        size = sum(_size(m.content) for m in prompt) + (len(json.dumps(list(tools))) if tools else 0)
        return size // LETTERS + 4 * len(prompt)

    def _body(self, prompt: Conversation, tools: Tools, max_new_tokens: int) -> Body:
        turns = [m.for_template() for m in prompt]
        turns = [t | {"tool_calls": _written(t["tool_calls"])} if "tool_calls" in t else t for t in turns]
        body: Body = {"model": self.model, "messages": turns, "max_tokens": max_new_tokens, "temperature": 0}
        return body | ({"tools": list(tools)} if tools else {})

    def _at_once(self, bodies: Sequence[Body]) -> list[Completion]:
        """Answers in order, a few questions at a time; the first error ends all."""
        waiting: queue.SimpleQueue[tuple[int, Body]] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Completion | ModelError | None]] = queue.SimpleQueue()
        over = threading.Event()
        for numbered in enumerate(bodies):
            waiting.put(numbered)

        def work() -> None:
            while not over.is_set():
                try:
                    number, body = waiting.get_nowait()
                except queue.Empty:
                    return
                answer: Completion | ModelError | None = None
                try:
                    answer = self._answer(body, over)
                except _Refused:
                    answer = Completion(text="", prompt_tokens=0, new_tokens=0, finish="refused")
                except ModelError as error:
                    answer = error
                finally:
                    done.put((number, answer))

        for _ in range(min(AT_ONCE, len(bodies))):
            threading.Thread(target=work, daemon=True).start()
        found: dict[int, Completion] = {}
        try:
            while len(found) < len(bodies):
                number, answer = done.get()
                if answer is None:
                    raise RuntimeError("A thread that asked the endpoint ended; what it said stands above.")
                if isinstance(answer, ModelError):
                    raise answer
                found[number] = answer
        finally:
            over.set()
        return [found[n] for n in range(len(bodies))]

    def _answer(self, body: Body, over: threading.Event | None = None) -> Completion:
        over, wait, told = over or threading.Event(), WAIT, ""
        for turn in range(TRIES):
            if over.is_set():
                break
            try:
                return self._completion(self._asked(body), body)
            except _Again as again:
                told = str(again)
                if turn + 1 < TRIES:
                    over.wait(min(max(again.after, wait), LONGEST_WAIT))
                wait *= 2
        raise ModelError(
            f"{self.url} did not answer in {TRIES} tries: {told}. Try again later, or leave evaluate.rival out."
        )

    def _asked(self, body: Body) -> bytes:
        """The reply to ``body``; without a setting that this endpoint says it does not know."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        sent = _without(body, self._unknown)
        request = urllib.request.Request(self.url, json.dumps(sent).encode(), headers)
        try:
            try:
                with self._opener.open(request, timeout=SECONDS) as reply:
                    return _whole(reply)
            except urllib.error.HTTPError as error:
                status, told = error.code, self._hidden(_whole(error))
                after = _seconds(error.headers.get("Retry-After"))
        except (OSError, HTTPException) as error:  # refused, reset, cut off, too slow, no such host
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise _Again(self._hidden(reason.encode())) from None
        if status in BUSY:
            raise _Again(f"{status} {told[:200]}", after)
        if status == 400 and (unknown := _named(told) & set(sent)):
            self._unknown |= unknown
            return self._asked(body)
        sentence = f"{self.url} answered {status}: {told[:300] or 'nothing'}."
        if status in REFUSED:
            raise _Refused(sentence)
        raise ModelError(f"{sentence} {_way_out(status)}")

    def _completion(self, reply: bytes, body: Body) -> Completion:
        try:
            found = json.loads(reply)
            choice, usage = found["choices"][0], found.get("usage") or {}
            text = choice["message"].get("content") or ""
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if not isinstance(text, str):
                raise TypeError(f"content is {type(text).__name__}")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"{self.url} answered what is no chat completion ({error}): {self._hidden(reply)[:200]!r}. Name the "
                "base address of an OpenAI-compatible endpoint in evaluate.rival.url, such as https://host/v1."
            ) from None
        text = text.encode("utf-8", "replace").decode("utf-8")  # without halves of letters, which no file can hold
        return Completion(
            text=text.replace(self._key, "...") if self._key else text,
            prompt_tokens=_count(read, sum(_size(turn["content"]) for turn in body["messages"])),
            new_tokens=_count(written, _size(text)),
            finish=finish,
        )

    def _hidden(self, data: bytes) -> str:
        """A text in one line without the key, which some endpoints repeat."""
        plain = " ".join(data.decode("utf-8", "replace").split())
        for key in filter(None, {self._key, self._key.replace("/", "\\/")}):
            plain = plain.replace(key, "...")
        return plain


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    found = os.environ.get(variable, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        is_there = "is not set" if not found else "holds no key (letters that a header cannot carry)"
        raise RecipeError(
            f"evaluate.rival.key names the variable {variable} of the environment, which {is_there}. Set it, or leave "
            "evaluate.rival.key out where the endpoint asks for none."
        )
    return found


def _whole(reply: Any) -> bytes:
    """What was sent, within ``SECONDS`` and ``LARGEST`` bytes. Raises OSError for less than was announced."""
    began, parts, size = time.monotonic(), [], 0
    while part := reply.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            break
        if time.monotonic() - began > SECONDS:
            raise OSError(f"the reply was not whole after {SECONDS:g} s")
    announced = reply.headers.get("Content-Length") or ""
    if announced.isdigit() and size < int(announced):
        raise OSError(f"the reply was cut off after {size:,} of {int(announced):,} bytes")
    return b"".join(parts)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _count(told: Any, size: int) -> int:
    """Tokens as ``told``, or guessed from ``size`` bytes where that cannot be."""
    return told if isinstance(told, int) and 0 <= told <= MOST_TOKENS else size // LETTERS


def _written(calls: Any) -> Any:
    """Tool calls with their arguments as text, as the endpoint wants them; a chat template wants them as objects."""

    def one(call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function")
        if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
            return call
        return call | {"function": function | {"arguments": json.dumps(function.get("arguments"))}}

    return [one(call) for call in calls]


def _named(told: str) -> set[str]:
    """Settings that newer models do not know: their temperature is fixed, and their limit has another name."""
    limit = {"max_tokens"} if "max_completion_tokens" in told else set()
    return limit | ({"temperature"} if "temperature" in told else set())


def _without(body: Body, unknown: set[str]) -> Body:
    kept = {key: value for key, value in body.items() if key not in unknown}
    return kept | ({"max_completion_tokens": body["max_tokens"]} if "max_tokens" in unknown else {})


def _seconds(told: str | None) -> float:
    try:
        return max(0.0, float(told or 0))
    except ValueError:  # a date
        return 0.0


def _way_out(code: int) -> str:
    if code in (401, 403):
        return "Name the variable that holds a valid key in evaluate.rival.key."
    if code in (301, 302, 303, 307, 308):
        return "Name the address that it redirects to in evaluate.rival.url; redirects are not followed."
    if code == 404:
        return "Check evaluate.rival.url (it ends where /chat/completions begins) and evaluate.rival.model."
    return "Check evaluate.rival."
