"""Another model on the same weights: reference, critic or reward model beside the policy, with one base in memory.

Notable: the twin has modules of its own, so that a method changes it alone, and shares every tensor; what it costs is
its adapter. Twins are made before a method is attached, for they are of the base; methods that train weights of the
base itself would change the twins as well.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.core.errors import ModelError
from tunesmith.models.model import Model, adapters_off


def twin(model: Model) -> Model:
    """A second model on the tensors of ``model``. Raises ModelError where a method is attached already."""
    if model.adapted or model.head is not None or model.soft is not None:
        raise ModelError("A twin is made of an untouched base; this model has a method or a head. Load it anew.")
    network = model.network
    shared: dict[int, Any] = {id(t): t for t in (*network.parameters(), *network.buffers())}
    found = Model(copy.deepcopy(network, shared), model.tokenizer, model.card, precision=model.precision)
    found.train(False)
    model.twinned = found.twinned = True
    return found


@contextmanager
def reference(model: Model, before: Model | None) -> Iterator[Model]:
    """What ``model`` is compared with: the one that its training goes on from (``before``), or its base."""
    if before is not None:
        yield before
        return
    with adapters_off(model):
        yield model
