"""A model behind an OpenAI-compatible endpoint, which writes answers: what it is asked leaves this machine, so a recipe
has to name it (``evaluate.rival``).

Notable: only ``/chat/completions`` is called, greedily, a few questions at a time. An endpoint that is busy or fails is
asked again after growing waits; what it says last is told. The key comes from a variable of the environment and goes
into no file and no message; redirects are not followed, for the key would go with them.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.protocols import Completion, Conversation, Tools
from tunesmith.core.recipe import RivalRecipe

AT_ONCE = 8
TRIES = 5
WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds: the first and the longest between two tries
SECONDS = 120.0  # for one answer
LARGEST = 2**24  # bytes of a reply
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
CONTEXT = 32_768  # tokens of a prompt with its answer, as what the endpoint reads is not known
LETTERS = 3  # of a token, at least: an estimate, to leave out what would not fit


class _Again(Exception):
    """Worth another try, ``after`` so many seconds where the endpoint says when."""

    def __init__(self, told: str, after: float | None = None) -> None:
        super().__init__(told)
        self.after = after


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
        self._key = _key(rival.key)
        self._opener = urllib.request.build_opener(_Stay())

    def complete(
        self, prompts: Sequence[Conversation], *, max_new_tokens: int, tools: Sequence[Tools] = ()
    ) -> list[Completion]:
        """One completion a prompt, in their order."""
        bodies = [
            self._body(p, own, max_new_tokens) for p, own in zip(prompts, tools or [()] * len(prompts), strict=True)
        ]
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(pool.map(self._answer, bodies))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def count_tokens(self, prompt: Conversation, *, tools: Tools = ()) -> int:
        """About: at most a token for every ``LETTERS`` bytes."""
        size = sum(len(m.content.encode()) for m in prompt) + (len(json.dumps(list(tools))) if tools else 0)
        return size // LETTERS + 4 * len(prompt)

    def _body(self, prompt: Conversation, tools: Tools, max_new_tokens: int) -> dict[str, Any]:
        turns = [{key: _written(value) if key == "tool_calls" else value for key, value in m.for_template().items()}
                 for m in prompt]  # fmt: skip
        body: dict[str, Any] = {"model": self.model, "messages": turns, "max_tokens": max_new_tokens, "temperature": 0}
        return body | ({"tools": list(tools)} if tools else {})

    def _answer(self, body: dict[str, Any]) -> Completion:
        wait, told = WAIT, ""
        for turn in range(TRIES):
            try:
                return self._completion(self._asked(body), body)
            except _Again as again:
                told = str(again)
                if turn + 1 < TRIES:
                    time.sleep(min(again.after if again.after is not None else wait, LONGEST_WAIT))
                wait *= 2
        raise ModelError(
            f"{self.url} did not answer in {TRIES} tries: {told}. Try again later, or leave evaluate.rival out."
        )

    def _asked(self, body: dict[str, Any]) -> bytes:
        """The reply to ``body``; without a setting that this endpoint says it does not know."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=SECONDS) as reply:
                return bytes(reply.read(LARGEST))
        except urllib.error.HTTPError as error:
            told = self._hidden(error.read(2000).decode("utf-8", "replace"))
            if error.code in BUSY:
                raise _Again(f"{error.code} {told[:200]}", _seconds(error.headers.get("Retry-After"))) from None
            if error.code == 400 and (fewer := _without(body, told)) is not None:
                return self._asked(fewer)
            raise ModelError(
                f"{self.url} answered {error.code}: {told[:300] or 'nothing'}. {_way_out(error.code)}"
            ) from None
        except (OSError, HTTPException) as error:  # refused, reset, too slow, no such host
            raise _Again(self._hidden(str(getattr(error, "reason", error)) or type(error).__name__)) from None

    def _completion(self, reply: bytes, body: dict[str, Any]) -> Completion:
        try:
            found = json.loads(reply)
            choice, usage = found["choices"][0], found.get("usage") or {}
            text = choice["message"].get("content") or ""
            finish = "length" if choice.get("finish_reason") == "length" else "stop"
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if not isinstance(text, str):
                raise TypeError(f"content is {type(text).__name__}")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            told = self._hidden(reply[:200].decode("utf-8", "replace"))
            raise ModelError(
                f"{self.url} answered what is no chat completion ({error}): {told!r}. Name the base address of an "
                "OpenAI-compatible endpoint in evaluate.rival.url, such as https://host/v1."
            ) from None
        guessed = sum(len(turn["content"].encode()) for turn in body["messages"]) // LETTERS
        return Completion(
            text=text,
            prompt_tokens=read if isinstance(read, int) else guessed,
            new_tokens=written if isinstance(written, int) else len(text.encode()) // LETTERS,
            finish=finish,
        )

    def _hidden(self, text: str) -> str:
        """``text`` in one line without the key, which some endpoints repeat."""
        plain = " ".join(text.split())
        return plain.replace(self._key, "...") if self._key else plain


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    found = os.environ.get(variable, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        is_there = "is not set" if not found else "holds no key (letters that a header cannot carry)"
        raise RecipeError(
            f"evaluate.rival.key names the variable {variable} of the environment, which {is_there}. Set it, or leave "
            "evaluate.rival.key out where the endpoint asks for none."
        )
    return found


def _written(calls: Any) -> Any:
    """Tool calls with their arguments as text, as the endpoint wants them; a chat template wants them as objects."""

    def one(call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function")
        if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
            return call
        return call | {"function": function | {"arguments": json.dumps(function.get("arguments"))}}

    return [one(call) for call in calls]


def _without(body: dict[str, Any], told: str) -> dict[str, Any] | None:
    """``body`` as newer models want it, whose temperature is fixed and whose limit has another name; None where
    ``told`` names neither."""
    if "max_completion_tokens" in told and "max_tokens" in body:
        kept = {key: value for key, value in body.items() if key != "max_tokens"}
        return kept | {"max_completion_tokens": body["max_tokens"]}
    if "temperature" in told and "temperature" in body:
        return {key: value for key, value in body.items() if key != "temperature"}
    return None


def _seconds(told: str | None) -> float | None:
    try:
        return max(0.0, float(told)) if told is not None else None
    except ValueError:  # a date
        return None


def _way_out(code: int) -> str:
    if code in (401, 403):
        return "Name the variable that holds a valid key in evaluate.rival.key."
    if code in (301, 302, 303, 307, 308):
        return "Name the address that it redirects to in evaluate.rival.url; redirects are not followed."
    if code == 404:
        return "Check evaluate.rival.url (it ends where /chat/completions begins) and evaluate.rival.model."
    return "Check evaluate.rival."
