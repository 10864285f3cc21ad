"""A model behind an endpoint: a real server on the loopback answers, refuses, stumbles and lies."""

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
    assert reached(server).complete(asking("a"), max_new_tokens=4)[0].text == "ok"
    assert set(server.heard[-1][2]) == {"model", "messages", "max_completion_tokens"}
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
            reached(server)
    assert server.heard == []


@pytest.mark.parametrize(
    ("rival", "told"),
    [
        ({"url": "host/v1", "model": "m"}, "such as https://host/v1"),
        ({"url": "file:///etc/passwd", "model": "m"}, "such as https://host/v1"),
        ({"url": "https://me:word@host/v1", "model": "m"}, "without a name, a key"),
        ({"url": "https://host/v1?key=1", "model": "m"}, "without a name, a key"),
        ({"url": "https://host:99999/v1", "model": "m"}, "such as https://host/v1"),
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
