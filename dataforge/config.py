"""Config dataclasses from plain values: unknown keys and wrong types are errors that name the nearest key.

The text under each field of a config class is its documentation; `fields_of` gives it to the command line's help.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dataforge.errors import ConfigError
from dataforge.registry import unknown

C = TypeVar("C")


@dataclass(frozen=True)
class Field:
    """One setting of a config class."""

    name: str
    type: Any
    default: Any
    """`dataclasses.MISSING` where it must be given."""
    doc: str


def fields_of(config: type) -> list[Field]:
    """The settings of a config dataclass with their types, defaults and documentation, in order."""
    hints = typing.get_type_hints(config)
    docs = _docs(config)
    found = []
    for told in dataclasses.fields(config):
        default = told.default
        if default is dataclasses.MISSING and told.default_factory is not dataclasses.MISSING:
            default = told.default_factory()
        found.append(Field(told.name, hints[told.name], default, docs.get(told.name, "")))
    return found


def config_from(config: type[C], values: Mapping[str, Any], *, where: str | None = None) -> C:
    """An instance of a config dataclass from plain values, as TOML and JSON give them.

    Keys may be written with `-` or `_`. Lists become tuples, whole numbers pass for floats, tables become config
    classes where a field is one.

    Raises:
        UnknownName: a key is no setting; the hint gives the nearest.
        ConfigError: a value has the wrong type, a required setting is missing, or the class refuses it.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Example:
    ...     num_draws: int = 1
    >>> config_from(Example, {"num-draws": 3})
    Example(num_draws=3)
    >>> config_from(Example, {"num_draw": 3})
    Traceback (most recent call last):
    dataforge.errors.UnknownName: error: no setting is called 'num_draw'
     hint: did you mean 'num_draws'? known: num_draws
    """
    known = {told.name: told for told in fields_of(config)}
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise unknown("setting", key, known, where=where)
        given[name] = _fit(known[name].type, value, name, where)
    missing = [name for name, told in known.items() if told.default is dataclasses.MISSING and name not in given]
    if missing:
        raise ConfigError(f"the setting {missing[0]!r} is missing", where=where, hint=known[missing[0]].doc or None)
    try:
        return config(**given)
    except ConfigError as error:
        raise type(error)(error.what, where=error.where or where, hint=error.hint) from error


def _fit(kind: Any, value: Any, name: str, where: str | None) -> Any:
    """`value` as the field's type wants it, or a ConfigError."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for option in arguments:
            if option is not type(None):
                try:
                    return _fit(option, value, name, where)
                except ConfigError:
                    continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
        raise unknown(f"{name} setting", str(value), map(str, arguments), where=where)
    elif dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return config_from(typing.cast(type, kind), value, where=f"{where} {name}" if where else name)
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_fit(arguments[0] if arguments else Any, item, name, where) for item in value)
    elif origin is list and isinstance(value, list | tuple):
        return [_fit(arguments[0] if arguments else Any, item, name, where) for item in value]
    elif (origin or kind) in (dict, Mapping) and isinstance(value, Mapping):
        return {str(key): _fit(arguments[1] if arguments else Any, item, name, where) for key, item in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, str, bool) and type(value) is kind:
        return value
    raise ConfigError(f"{name} must be {_spoken(kind)}, got {value!r}", where=where)


def _spoken(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if kind in names:
        return names[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_spoken(option) for option in arguments if option is not type(None))
    if origin in (tuple, list):
        return "a list"
    return "a table" if origin in (dict, Mapping) or dataclasses.is_dataclass(kind) else str(kind)


@functools.cache
def _docs(config: type) -> dict[str, str]:
    """The text under each field, read from the class's source; nothing where there is no source.

    Read once: a service asks at every request, and CPython 3.11 cannot parse in two threads at once.
    """
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, after in itertools.pairwise(body):
            told = after.value if isinstance(after, ast.Expr) else None
            target = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(target, ast.Name) and isinstance(told, ast.Constant) and isinstance(told.value, str):
                docs[target.id] = " ".join(told.value.split())
    return docs
