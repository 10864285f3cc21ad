"""chat: every option of the sampler acts, and what means or does nothing is a sentence before a model is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import Result

import small
from tunesmith.models import artefact
from tunesmith.present.words import clean

Cli = Callable[..., Result]
Ask = Callable[..., tuple[str, str]]
HOT = ("--temperature", 5)


@pytest.fixture
def ask(cli: Cli, tmp_path: Path) -> Ask:
    """(base, tuned) of an adapter on a small base."""
    base = small.llama(tmp_path / "base", max_position_embeddings=256)
    artefact.publish(small.stir(small.decoder(base, "lora"), size=0.3), "lora", tmp_path / "adapter", {})

    def asked(*options: object) -> tuple[str, str]:
        words = ("--base", tmp_path / "base", "--prompt", "Where is it?", "--max-new-tokens", 6, "--json")
        done = cli("chat", tmp_path / "adapter", *words, *options)
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        return said["base"], said["tuned"]

    return asked


def test_the_seed_draws_the_answers_and_the_length_ends_them(ask: Ask) -> None:
    greedy, hot = ask(), ask(*HOT)
    assert ask(*HOT, "--seed", 0) == hot == ask(*HOT)
    others = [greedy, hot, ask(*HOT, "--seed", 1)]
    assert len({base for base, _ in others}) == len({tuned for _, tuned in others}) == 3
    short = ask("--max-new-tokens", 2)
    assert all(whole.startswith(part) and len(part) < len(whole) for whole, part in zip(greedy, short, strict=True))


@pytest.mark.parametrize("cut", [("--top-k", 1), ("--top-p", 0.000001), ("--min-p", 0.999)])
def test_with_all_but_the_likeliest_cut_off_the_answers_are_the_greedy_ones(ask: Ask, cut: tuple[str, object]) -> None:
    assert ask(*HOT, *cut) == ask()


def test_a_stop_ends_the_answers_before_it(ask: Ask) -> None:
    whole = ask("--max-new-tokens", 24)
    stops = [text[len(text) // 2 :][:6] for text in whole]
    found = ask("--max-new-tokens", 24, "--stop", stops[0], "--stop", stops[1])
    for text, part in zip(whole, found, strict=True):
        assert text.startswith(part) and not any(stop in part for stop in stops) and len(part) < len(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--stop", ""), "a stop is an empty text; expected something to stop at"),
        (("--temperature", "-1"), "temperature is -1.0; expected 0 (the likeliest token) or a number from 0.01 up"),
        (("--temperature", "nan"), "temperature is nan"),
        ((*HOT, "--top-p", "0"), "top_p is 0.0; expected a number above 0 and at most 1"),
        ((*HOT, "--top-k", "-2"), "top_k is -2"),
        ((*HOT, "--min-p", "1"), "min_p is 1.0; expected a number from 0 up and below 1"),
        (("--max-new-tokens", "0"), "max_new_tokens is 0; expected at least 1"),
        (("--top-p", "0.9"), "--top-p is 0.9, but at temperature 0 the likeliest token is taken"),
        (("--seed", "3"), "--seed is 3, but at temperature 0"),
    ],
)
def test_what_means_or_does_nothing_is_a_sentence(cli: Cli, options: tuple[object, ...], said: str) -> None:
    done = cli("chat", "no-such-folder", "--base", "no-such-model", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_answers_are_shown_as_they_are_written(
    cli: Cli, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piece by piece, and the pieces are the answer."""
    told: list[str] = []
    plain = typer.echo
    monkeypatch.setattr(typer, "echo", lambda text="", **how: (told.append(text), plain(text, **how))[1])
    words = ("--base", tmp_path / "base", "--prompt", "Where is it?", "--max-new-tokens", 60)
    done = cli("chat", tmp_path / "adapter", *words)
    base, tuned = ask("--max-new-tokens", 60)
    assert done.stdout == f"base: {clean(base)}\ntuned: {clean(tuned)}\n"
    assert len(told) > 20


def test_help_names_the_options(cli: Cli) -> None:
    shown = cli("chat", "--help").stdout
    assert all(
        f"--{name}" in shown for name in ("top-p", "top-k", "min-p", "seed", "stop", "max-new-tokens", "temperature")
    )
