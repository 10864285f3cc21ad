"""Loaded models that no test changes: a small Llama, a Gemma 2 with a soft-capped head, and a BERT."""

import pytest
from tests import small

from tunesmith.models import load as loading
from tunesmith.models.model import Model


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = small.llama(tmp_path_factory.mktemp("generate") / "llama", max_position_embeddings=128)
    return loading.load(str(folder))


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Room for tools in the prompt."""
    folder = small.llama(tmp_path_factory.mktemp("generate") / "wide", max_position_embeddings=512)
    return loading.load(str(folder))


@pytest.fixture(scope="session")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return loading.load(str(small.gemma2(tmp_path_factory.mktemp("generate") / "gemma2")))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return loading.load(str(small.bert(tmp_path_factory.mktemp("generate") / "bert")))
