"""What the tests of the command line share: a runner in an empty folder, and a finished run in a workspace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tunesmith.cli.main import app

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)

    def call(*words: object, **keywords: Any) -> Result:
        return CliRunner().invoke(app, [str(w) for w in words], **keywords)

    return call
