"""A program of its own: renders conversations through a chat template, under limits of memory and time.

Notable: it is run by path in a fresh interpreter (``models.template``), which is killed when it takes too long, so it
imports nothing of Tunesmith. The environment is the one in which transformers renders: the same sandbox, options,
filter and globals. Compiling happens here too, because jinja2 folds constants such as ``'a' * 10**10`` then.
"""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    jinja2.TemplateError,
)


class Generation(Extension):
    """``{% generation %}`` as transformers knows it; here its body is simply written."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Dict:
    """``dict`` for templates, without the attributes of the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """A namespace that takes no underscored names, by which a template could reach Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        held = dict(*args[1:], **kwargs)
        for name in held:
            _check_name(name)
        jinja2.utils.Namespace.__init__(args[0], held)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace takes no underscored name, but got {name!r}")


def sandbox() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' ``apply_chat_template``."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    made.globals["dict"] = _Dict()
    made.globals["namespace"] = _Namespace
    return made


def _limit(memory: int, seconds: int) -> None:
    if sys.platform == "win32":  # no such limits there; whoever started this kills it
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def overruns(asked: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the template, if anything is, in words that follow "the chat template". A template that
    refuses a conversation is none of them: rows tell."""
    try:
        template = sandbox().from_string(asked["template"])
        for words in asked["conversations"]:
            try:
                written = template.render(**asked["special_tokens"], **words)
            except (MemoryError, RecursionError):
                raise
            except REFUSALS:  # a refusal is looked at again with the rows that meet it
                continue
            if len(written) > asked["characters"]:
                yield f"writes {len(written):,} characters for a probe of a few turns"
                return
    except MemoryError:
        yield f"needs more than {asked['memory'] >> 20:,} MiB for a probe of a few turns"
    except RecursionError:
        yield "calls itself without end"
    except jinja2.TemplateSyntaxError as error:
        yield f"is no template (line {error.lineno}: {error.message})"


if __name__ == "__main__":
    order = json.load(sys.stdin)
    _limit(order["memory"], order["seconds"])
    print(json.dumps(next(overruns(order), "")))
