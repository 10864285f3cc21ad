"""A model behind an endpoint: a real server on the loopback answers, refuses, stumbles and lies."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.endpoint import Server, said, serving

from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.core.example import Message
from tunesmith.core.recipe import Recipe, RivalRecipe
from tunesmith.generate import remote
from tunesmith.generate.remote import RemoteModel

KEY = "sk-secret-7"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "WAIT", 0.001)
    monkeypatch.setenv("SOME_KEY", KEY)

    def shout(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, said(body["messages"][-1]["content"].upper(), prompt_tokens=5, completion_tokens=2)

    with serving(shout) as found:
        yield found


def reached(server: Server, key: str | None = "SOME_KEY") -> RemoteModel:
    return RemoteModel(RivalRecipe(url=f"http://127.0.0.1:{server.server_port}/v1/", model="big", key=key))


def asking(*texts: str) -> list[list[Message]]:
    return [[Message(role="system", content="Shout."), Message(role="user", content=text)] for text in texts]


def test_answers_come_in_order_with_their_tokens_and_what_was_sent_is_greedy(server: Server) -> None:
    texts = [f"word {n}" for n in range(30)]
    found = reached(server).complete(asking(*texts), max_new_tokens=9)
    assert [c.text for c in found] == [t.upper() for t in texts]
    assert {(c.prompt_tokens, c.new_tokens, c.finish) for c in found} == {(5, 2, "stop")}
    path, headers, body = next(h for h in server.heard if h[2]["messages"][-1]["content"] == "word 3")
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body == {
        "model": "big",
        "messages": [{"role": "system", "content": "Shout."}, {"role": "user", "content": "word 3"}],
        "max_tokens": 9,
        "temperature": 0,
    }


def test_without_a_key_none_is_sent(server: Server) -> None:
    reached(server, key=None).complete(asking("a"), max_new_tokens=4)
    assert "Authorization" not in server.heard[0][1]


def test_what_was_cut_off_and_what_is_silent_is_told_and_missing_counts_are_guessed(server: Server) -> None:
    reply = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    server.answer = lambda _: (200, reply)
    (found,) = reached(server).complete(asking("abcdefghijkl"), max_new_tokens=4)
    assert (found.text, found.finish, found.prompt_tokens, found.new_tokens) == ("", "length", 6, 0)  # 18 letters


def test_an_endpoint_that_is_busy_is_asked_again_and_told_of_in_the_end(server: Server) -> None:
    left = [429, 503, 500]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return (left.pop(), {"error": "busy"}) if left else (200, said("ok"))

    server.answer = answer
    assert reached(server).complete(asking("a"), max_new_tokens=4)[0].text == "ok"
    assert len(server.heard) == 4
    server.answer = lambda _: (503, {"error": f"no room for {KEY}"})
    with pytest.raises(
        ModelError, match=r"did not answer in 5 tries: 503 .*no room for \.\.\..*Try again later"
    ) as told:
        reached(server).complete(asking("a"), max_new_tokens=4)
    assert KEY not in str(told.value)


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "valid key in evaluate.rival.key"),
        (404, "Check evaluate.rival.url"),
        (302, "redirects are not followed"),
        (422, "Check evaluate.rival"),
    ],
)
def test_what_no_second_try_mends_is_a_sentence_at_once(server: Server, status: int, way_out: str) -> None:
    server.answer = lambda _: (status, {"error": f"wrong {KEY}"})
    with pytest.raises(ModelError, match=f"answered {status}: .*{way_out}") as told:
        reached(server).complete(asking("a"), max_new_tokens=4)
    assert KEY not in str(told.value)
    assert [h[0] for h in server.heard] == ["/v1/chat/completions"]


def test_settings_that_an_endpoint_does_not_know_are_left_out(server: Server) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if "max_tokens" in body:
            return 400, {"error": "'max_tokens' is not supported. Use 'max_completion_tokens'."}
        if "temperature" in body:
            return 400, {"error": "'temperature' does not support 0."}
        return 200, said("ok")

    server.answer = answer
    assert [c.text for c in reached(server).complete(asking(*"abcdefghij"), max_new_tokens=4)] == ["ok"] * 10
    assert set(server.heard[-1][2]) == {"model", "messages", "max_completion_tokens"}
    assert len(server.heard) == 12  # what it does not know is remembered
    server.answer = lambda _: (400, {"error": "temperature and max_completion_tokens are wrong, whatever they are"})
    with pytest.raises(ModelError, match="answered 400"):
        reached(server).complete(asking("a"), max_new_tokens=4)


@pytest.mark.parametrize(
    "reply",
    [b"<html>hello</html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": [1]}}]}', b"[" * 9999],
)
def test_a_reply_that_is_no_completion_is_a_sentence(server: Server, reply: bytes) -> None:
    server.answer = lambda _: (200, reply)
    with pytest.raises(ModelError, match=r"answered what is no chat completion .*such as https://host/v1"):
        reached(server).complete(asking("a"), max_new_tokens=4)


def test_a_question_that_is_refused_is_marked_and_the_others_are_answered(server: Server) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][-1]["content"]
        return (400, {"error": "content filter"}) if text == "bad" else (200, said(text))

    server.answer = answer
    far = reached(server)
    found = far.complete(asking("good", "bad", "fine"), max_new_tokens=4)
    assert [(c.text, c.finish) for c in found] == [("good", "stop"), ("", "refused"), ("fine", "stop")]
    assert far.complete(asking("bad"), max_new_tokens=4)[0].finish == "refused"  # as when one row is asked to be timed
    with pytest.raises(ModelError, match=r"answered 400: .*content filter.* Check evaluate\.rival\."):
        reached(server).complete(asking("bad", "good"), max_new_tokens=4)


def test_a_wrong_key_is_known_after_one_question_and_an_error_among_others_ends_all(server: Server) -> None:
    server.answer = lambda _: (401, {})
    with pytest.raises(ModelError, match="answered 401"):
        reached(server).complete(asking(*"abcdefghij"), max_new_tokens=4)
    assert len(server.heard) == 1
    server.answer = lambda body: (404, {}) if body["messages"][-1]["content"] == "d" else (200, said("ok"))
    with pytest.raises(ModelError, match="answered 404"):
        reached(server).complete(asking(*"abcdefghij"), max_new_tokens=4)


@pytest.mark.parametrize(
    "reply",
    [
        said("yes", prompt_tokens=10**400, completion_tokens=-700),
        said("yes", prompt_tokens="many", completion_tokens=None),
    ],
)
def test_counts_that_cannot_be_are_guessed(server: Server, reply: dict[str, Any]) -> None:
    server.answer = lambda _: (200, reply)
    (found,) = reached(server).complete(asking("abcdefghijkl"), max_new_tokens=4)
    assert (found.prompt_tokens, found.new_tokens) == (6, 1)


def test_halves_of_letters_and_the_key_itself_are_not_in_answers(server: Server) -> None:
    server.answer = lambda _: (200, b'{"choices": [{"message": {"content": "a\\ud800b ' + KEY.encode() + b'"}}]}')
    (found,) = reached(server).complete(asking("a\ud800"), max_new_tokens=4)
    assert found.text == "a?b ..."


@pytest.mark.parametrize("at", [0, 185, 195])
def test_a_key_that_a_reply_repeats_is_in_no_message_wherever_it_stands(server: Server, at: int) -> None:
    server.answer = lambda _: (200, b"x" * at + KEY.encode() + b"x" * 50)
    with pytest.raises(ModelError) as told:
        reached(server).complete(asking("a"), max_new_tokens=4)
    assert KEY[:6] not in str(told.value)


def test_a_key_is_hidden_as_json_writes_it_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk/secret/7")
    server.answer = lambda _: (403, b'{"error": "not sk\\/secret\\/7"}')
    with pytest.raises(ModelError, match="answered 403") as told:
        reached(server).complete(asking("a"), max_new_tokens=4)
    assert "secret" not in str(told.value)


def test_a_reply_that_is_cut_off_is_asked_for_again(server: Server) -> None:
    whole = json.dumps(said("ok")).encode()
    server.announced, server.answer = len(whole), lambda _: (200, whole[:5] if len(server.heard) == 1 else whole)
    assert reached(server).complete(asking("a"), max_new_tokens=4)[0].text == "ok"
    assert len(server.heard) == 2


@pytest.mark.parametrize("pause", [0.05, 3.0])
def test_a_reply_that_does_not_end_or_begin_in_time_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(remote, "SECONDS", 0.4)
    monkeypatch.setattr(remote, "TRIES", 2)
    server.pause, server.answer = pause, lambda _: (200, b" " * 1000)
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"did not answer in 2 tries: .*(not whole after 0\.4 s|timed out)"):
        reached(server).complete(asking("a"), max_new_tokens=4)
    assert time.monotonic() - began < 10


def test_what_an_endpoint_says_of_waiting_is_heeded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    monkeypatch.setattr(remote, "WAIT", 1.0)
    for after, expected in (("7", [7.0, 7.0, 7.0, 8.0]), ("0", [1.0, 2.0, 4.0, 8.0]), ("900", [60.0] * 4)):
        waits.clear()
        server.after, server.answer = after, lambda _: (429, {})
        with pytest.raises(ModelError, match="did not answer in 5 tries: 429"):
            reached(server)._answer(reached(server)._body(asking("a")[0], (), 4), Over())
        assert waits == expected


def test_a_silent_endpoint_holds_up_nobody_who_stops(server: Server) -> None:
    server.answer = lambda body: (200, said("ok")) if len(server.heard) == 1 else (time.sleep(60), (200, {}))[1]
    program = (
        "import sys; from tunesmith.core.example import Message; from tunesmith.core.recipe import RivalRecipe\n"
        "from tunesmith.generate.remote import RemoteModel\n"
        f"far = RemoteModel(RivalRecipe(url='http://127.0.0.1:{server.server_port}/v1', model='m'))\n"
        "print('asking', flush=True)\n"
        "far.complete([[Message(role='user', content='a')]] * 9, max_new_tokens=4)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asked:
        assert asked.stdout is not None and asked.stdout.readline() == b"asking\n"
        while len(server.heard) < 9:
            time.sleep(0.05)
        began = time.monotonic()
        asked.send_signal(signal.SIGINT)
        assert asked.wait(timeout=30) != 0
    assert time.monotonic() - began < 20


def test_nobody_there_is_a_sentence(server: Server) -> None:
    away = reached(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError, match=r"did not answer in 5 tries: .*refused"):
        away.complete(asking("a"), max_new_tokens=4)


def test_tools_are_sent_and_arguments_of_calls_are_text(server: Server) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"city": "Oslo"}}}
    turns = [
        Message(role="user", content="weather?"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="sunny", tool_call_id="c1"),
    ]
    tool = {"type": "function", "function": {"name": "find", "parameters": {}}}
    reached(server).complete([turns], max_new_tokens=4, tools=[(tool,)])
    body = server.heard[0][2]
    assert body["tools"] == [tool]
    assert body["messages"][1]["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"city": "Oslo"}'}
    assert body["messages"][2]["tool_call_id"] == "c1"


def test_a_key_that_is_not_there_is_said_before_anything_is_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, told in ((None, "is not set"), ("  ", "is not set"), ("a\nb", "holds no key")):
        if value is None:
            monkeypatch.delenv("SOME_KEY")
        else:
            monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(RecipeError, match=f"variable SOME_KEY of the environment, which {told}"):
            reached(server).complete(asking("a"), max_new_tokens=4)
    assert server.heard == []


@pytest.mark.parametrize(
    ("rival", "told"),
    [
        ({"url": "host/v1", "model": "m"}, "such as https://host/v1"),
        ({"url": "file:///etc/passwd", "model": "m"}, "such as https://host/v1"),
        ({"url": "https://me:word@host/v1", "model": "m"}, "without a name, a key"),
        ({"url": "https://host/v1?key=1", "model": "m"}, "without a name, a key"),
        ({"url": "https://host:99999/v1", "model": "m"}, "such as https://host/v1"),
        ({"url": f"https://{'a' * 64}/v1", "model": "m"}, "such as https://host/v1"),
        ({"url": "https://host/\u00e9", "model": "m"}, "such as https://host/v1"),
        ({"url": "https:///v1", "model": "m"}, "such as https://host/v1"),
        ({"url": "https://host/v1", "model": ""}, "the endpoint's name of the model"),
        ({"url": "https://host/v1"}, "names an address or a model alone"),
        ({"model": "m"}, "names an address or a model alone"),
        ({"key": "SOME_KEY"}, "has no url"),
        ({"url": "https://host/v1", "model": "m", "key": "sk-live-1234"}, "not a key"),
    ],
)
def test_rivals_that_cannot_be_are_refused(rival: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError, match=rf"evaluate\.rival.*{told}"):
        Recipe.parse({"data": {"train": "a.jsonl"}, "evaluate": {"rival": rival}})


def test_a_rival_that_is_not_asked_is_refused() -> None:
    rival = {"url": "https://host/v1", "model": "m"}
    for evaluate in ({"rival": rival, "baselines": ["zero_shot"]}, {"baselines": ["rival"]}):
        with pytest.raises(RecipeError, match=r"evaluate\.rival"):
            Recipe.parse({"data": {"train": "a.jsonl"}, "evaluate": evaluate})
