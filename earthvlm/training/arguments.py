"""Arguments as fields of dataclasses: declared, parsed, checked, and shown as a command."""

from __future__ import annotations

import argparse
import math
import shlex
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from earthvlm.data.sources.weighted_source import WeightedSource

COMMAND = "accelerate launch -m earthvlm.train"

Group = TypeVar("Group")


def argument(
    default: object,
    text: str,
    *,
    least: int | None = None,
    most: float = math.inf,
    choices: Sequence[str] = (),
    metavar: str | None = None,
    shown_as: str | None = None,
    local_as: str | None = None,
    recorded: bool = True,
    repeated: bool = False,
) -> Any:
    """Declare an argument as a dataclass field.

    Args:
        text: the help text.
        least, most: bounds of a number, both included; floats must also be finite.
        shown_as: what a recorded command shows instead of the value, which is a path.
        local_as: the same for a value that may be a local folder or a public name.
        recorded: whether a recorded command shows the argument at all.
        repeated: whether it may be given several times; its value is then a text or a list.
    """
    return field(
        default=default,
        metadata={
            "help": text,
            "least": least,
            "most": most,
            "choices": choices,
            "metavar": metavar,
            "shown_as": shown_as,
            "local_as": local_as,
            "recorded": recorded,
            "repeated": repeated,
        },
    )


def add_arguments(parser: argparse._ActionsContainer, group: type) -> None:
    """Add a command-line argument for each field of a dataclass."""
    hints = typing.get_type_hints(group)
    for each in fields(group):
        kind = _find_kind(each, hints)
        default = " (default: %(default)s)" if each.default is not None else ""
        options: dict[str, Any] = {"default": each.default, "help": each.metadata["help"] + default}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            options["choices"] = each.metadata["choices"] or None
            options["metavar"] = each.metadata["metavar"]
            options["action"] = _Repeated if each.metadata["repeated"] else None
        parser.add_argument(f"--{each.name}", **options)


class _Repeated(argparse.Action):
    """Collects the values of an argument in a list, in place of its default."""

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, values: Any, _option: object = None
    ) -> None:
        given = getattr(namespace, self.dest)
        earlier = given if isinstance(given, list) else []
        setattr(namespace, self.dest, [*earlier, values])


def list_values(value: str | Sequence[str]) -> list[str]:
    """Return the values of an argument that may be given several times."""
    return [value] if isinstance(value, str) else list(value)


def take_arguments(group: Callable[..., Group], arguments: argparse.Namespace) -> Group:
    """Build a dataclass from parsed arguments. Raises ValueError as the dataclass does."""
    names = [each.name for each in fields(cast("Any", group))]
    return group(**{name: getattr(arguments, name) for name in names})


def check_arguments(group: Any) -> None:
    """Raise ValueError, naming the argument, for a value out of its bounds or choices."""
    hints = typing.get_type_hints(type(group))
    for each in fields(group):
        value = getattr(group, each.name)
        if value is not None:
            _check(each, _find_kind(each, hints), value)


def _check(each: Field, kind: type, value: Any) -> None:
    least, most = each.metadata["least"], each.metadata["most"]
    kinds = {int: "a whole number", float: "a number"}
    fits = least is None or (least <= value <= most and value < math.inf)  # false for NaN too
    if kind in kinds and not fits:
        upper = f" and at most {most}" if most < math.inf else ""
        given = f"{value:g}" if kind is float else value
        raise ValueError(
            f"--{each.name} must be {kinds[kind]} of at least {least}{upper}; {given} was given."
        )
    choices = each.metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f"--{each.name} must be one of {', '.join(choices)}; {value!r} was given.")


def _find_kind(each: Field, hints: dict[str, Any]) -> type:
    return str if each.metadata["repeated"] else _strip_none(hints[each.name])


def _strip_none(hint: Any) -> type:
    """The type that a hint such as `int | None` allows besides None."""
    if isinstance(hint, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def render_command(*groups: Any, number: int) -> str:
    """The command that starts a run with these arguments, for its published record.

    Arguments at their defaults are left out. Placeholders such as DATA replace local paths.
    number: of the run, counted from 1, among those that trained the bridge.
    """
    words = [COMMAND]
    for group in groups:
        for each in fields(group):
            value, shown_as = getattr(group, each.name), each.metadata["shown_as"]
            required = shown_as is not None and each.default is not None
            if not each.metadata["recorded"] or (value == each.default and not required):
                continue
            local_as = each.metadata["local_as"]
            if local_as is not None and Path(value).is_dir():
                shown_as = local_as
            if each.metadata["repeated"]:
                words += _render_repeated(each.name, shown_as, list_values(value))
                continue
            if shown_as is not None:
                value = shown_as.format(number=number, previous=number - 1)
            if isinstance(value, bool):
                words.append(f"--{each.name}" if value else f"--no-{each.name}")
            else:
                words.append(f"--{each.name} {shlex.quote(str(value))}")
    return " ".join(words)


def _render_repeated(name: str, shown_as: str, values: Sequence[str]) -> list[str]:
    """Render data sources: those on the Hub by their ids, others by placeholders."""
    words = []
    for number, source in enumerate(map(WeightedSource.parse, values), start=1):
        shown = source.name if source.is_on_hub else shown_as + (f"{number}" * (len(values) > 1))
        weight = "" if source.weight is None else f"={source.weight:g}"
        words.append(f"--{name} {shlex.quote(shown + weight)}")
    return words
