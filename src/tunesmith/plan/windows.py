"""How many tokens each layer of a decoder looks at: one function a rule, after transformers' configurations.

Notable: where a file lists its ``layer_types``, the list decides; a window that no layer uses is none.
"""

from tunesmith.plan.config import Config


def everywhere(config: Config, layers: int) -> tuple[int | None, ...]:
    """The file's window in all layers."""
    return (config.optional("sliding_window"),) * layers


def nowhere(_config: Config, layers: int) -> tuple[int | None, ...]:
    return (None,) * layers


def as_told(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where the file's ``layer_types`` say so."""
    return by_kind(config, layers, [False] * layers)


def by_kind(config: Config, layers: int, default: list[bool]) -> tuple[int | None, ...]:
    """A window in the layers that slide, by the file or else by ``default``."""
    window = config.optional("sliding_window")
    return tuple(window if slides else None for slides in config.sliding(layers) or default)


def alternating(config: Config, layers: int) -> tuple[int | None, ...]:
    """All but the last of each ``sliding_window_pattern`` layers."""
    pattern = config.number("sliding_window_pattern")
    return by_kind(config, layers, [bool((i + 1) % pattern) for i in range(layers)])


def late(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where ``use_sliding_window`` is set: from layer ``max_window_layers`` on."""
    if not config.flag("use_sliding_window"):
        return nowhere(config, layers)
    return by_kind(config, layers, [i >= config.count("max_window_layers") for i in range(layers)])


def odd(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where ``use_sliding_window`` is set: every other layer below ``max_window_layers``."""
    if not config.flag("use_sliding_window"):
        return nowhere(config, layers)
    first = config.count("max_window_layers")
    return by_kind(config, layers, [i % 2 == 0 and i < first for i in range(layers)])


def without_positions(config: Config, layers: int) -> tuple[int | None, ...]:
    """Where ``use_sliding_window`` is set: the layers without rotary positions, every fourth unless the file says."""
    if not config.flag("use_sliding_window"):
        return nowhere(config, layers)
    every, listed = config.number("no_rope_layer_interval"), config.numbers("no_rope_layers")
    has = listed if len(listed) == layers else [(i + 1) % every for i in range(layers)]
    return by_kind(config, layers, [not h for h in has])


def if_used(config: Config, layers: int) -> tuple[int | None, ...]:
    """In all layers where ``use_sliding_window`` is set."""
    return everywhere(config, layers) if config.flag("use_sliding_window") else nowhere(config, layers)
