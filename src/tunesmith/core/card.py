"""The facts about a model that others need without loading its weights."""

from typing import Literal

from tunesmith.core.noun import Noun


class ModelCard(Noun):
    """``kind``: a decoder predicts the next token, an encoder sees both sides. ``fingerprint`` is a hash of the
    weights' headers and
    sampled bytes; ``template_hash`` and ``tokenizer_hash`` tell whether rows render to the same ids."""

    name: str
    path: str
    kind: Literal["decoder", "encoder"]
    architecture: str
    parameters: int
    layers: int
    width: int
    vocabulary: int
    context: int
    fingerprint: str
    tokenizer_hash: str
    template_hash: str
    licence: str = "unknown"
