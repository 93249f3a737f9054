"""Requests and responses as dataclasses: JSON and msgpack on the wire, with strict marshmallow schemas derived.

This is what an action of GBD WebSuite speaks, and two of the four encodings of the chunk protocol.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import marshmallow as ma
import msgpack

from ..errors import InvalidRequestError, shown
from .chunked import JSON, MSGPACK, STRUCT_TYPES

__all__ = ["JSON", "MOST_ITEMS", "MSGPACK", "STRUCT_TYPES", "decode", "encode", "from_text", "load", "schema"]

# What a parsed body may hold in all: objects cost some 60 bytes each, whatever little they cost on the wire.
MOST_ITEMS = 100_000
# And one array of msgpack: its length alone makes room for its items, at each of 1024 levels of nesting.
_MOST_IN_ARRAY = 10_000

_INTEGER = re.compile(r"[0-9]{1,19}|-[1-9][0-9]{0,18}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")

# As text a large body would take four times its size for a single letter beyond ASCII, so a long base64 is taken out
# of the bytes. Inside of a string of JSON its name could not stand with plain quotes around it.
_LARGE = 256 << 10
_CONTENT = re.compile(rb'"content"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/=]{%d,})"' % 1000)

T = TypeVar("T")
_compiled: dict[type, ma.Schema] = {}


def decode(raw: bytes, mimetype: str, most: int = MOST_ITEMS) -> dict[str, Any]:
    """Return the members of a JSON or msgpack object.

    Raises InvalidRequestError for anything else, also for one that is nested too deep or has over `most` items.
    """
    try:
        value = _decode_json(raw, most) if mimetype == JSON else _decode_msgpack(raw, most)
    except RecursionError:
        raise InvalidRequestError("The body is nested too deep.") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        reason = str(error).rstrip(". ") or "it is malformed"
        raise InvalidRequestError(f"The body is not {mimetype}: {reason}.") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"The body is {type(value).__name__}, not an object.")
    return value


def encode(value: Any, mimetype: str) -> bytes:
    """Return a dataclass, mapping, list or scalar as JSON (bytes as base64) or msgpack.

    Raises TypeError or ValueError for what can't be sent.
    """
    if mimetype == MSGPACK:
        packed: bytes = msgpack.packb(value, default=_plain)
        return packed
    return _JSON.encode(value).encode()


def from_text(cls: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a query or a form as they would be in JSON: numbers as numbers, if `cls` wants them.

    Raises InvalidRequestError for a number that is not one in plain decimal digits.
    """
    members: dict[str, Any] = dict(texts)
    kinds = _kinds_of(cls)
    for name, text in texts.items():
        kind = kinds.get(name)
        if kind is int:
            if not _INTEGER.fullmatch(text):
                raise InvalidRequestError(f"{name} {shown(text)} is not a number in decimal digits.")
            members[name] = int(text)
        elif kind is float and _DECIMAL.fullmatch(text):
            members[name] = float(text)
        elif kind is bool and text in ("true", "false"):
            members[name] = text == "true"
    return members


def load(cls: type[T], members: Mapping[str, Any]) -> T:
    """Return a `cls`, a dataclass, from the members of a request; unknown members are ignored.

    Raises InvalidRequestError that names each field that is missing or wrong.
    """
    values = _as_they_are(cls, members)
    if values is not None:
        return cls(**values)
    fields = _schema_of(cls).fields
    if None in members.values():
        # Null stands for a member that was left out, unless the class takes it.
        members = {name: value for name, value in members.items() if value is not None or _takes_null(fields.get(name))}
    try:
        values = _schema_of(cls).load(members)
    except ma.ValidationError as error:
        raise InvalidRequestError(f"{_explain(error.messages, members)}.") from None
    return cls(**values)


def schema(cls: Any) -> type[ma.Schema]:
    """Derive the schema of a dataclass: types are strict, a field with a default may be left out."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"{cls!r} is not a dataclass; requests and responses are declared as dataclasses.")
    if "__annotations__" in vars(cls) and "__dataclass_fields__" not in vars(cls):
        raise TypeError(f"{cls.__name__} adds members to a dataclass and is not decorated with @dataclass itself.")
    hints = typing.get_type_hints(cls)
    members: dict[str, ma.fields.Field[Any]] = {}
    for field in dataclasses.fields(cls):
        if field.init:
            optional = not (field.default is field.default_factory is dataclasses.MISSING)
            try:
                members[field.name] = _field(hints[field.name], required=not optional)
            except TypeError as error:
                raise TypeError(f"{cls.__name__}.{field.name}: {error}") from None
    return _Ignoring.from_dict(dict(members), name=f"{cls.__name__}Schema")


def _schema_of(cls: type) -> ma.Schema:
    if cls not in _compiled:
        _compiled[cls] = schema(cls)()
    return _compiled[cls]


@cache
def _kinds_of(cls: type) -> dict[str, type | None]:
    """Return what type each member has, None for one that has none of the simple ones."""
    return {name: _KINDS.get(type(field)) for name, field in _schema_of(cls).fields.items()}


def _as_they_are(cls: type, members: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the members of a `cls` if none is missing and its schema would leave each as it is, else None.

    A schema takes a tenth of the time of a small chunk to find that out. Floats, which may be no numbers, are its own.
    """
    kinds = _kinds_of(cls)
    values = {name: value for name, value in members.items() if name in kinds}
    for name, value in values.items():
        if type(value) is not kinds[name] or type(value) is float:
            return None
        if isinstance(value, str) and _SURROGATE.search(value):
            return None
    return values if values.keys() >= _required_of(cls) else None


@cache
def _required_of(cls: type) -> frozenset[str]:
    return frozenset(name for name, field in _schema_of(cls).fields.items() if field.required)


def _takes_null(field: ma.fields.Field[Any] | None) -> bool:
    return field is not None and (field.allow_none or field.required)


class _Ignoring(ma.Schema):
    class Meta:
        unknown = ma.EXCLUDE


class _Text(ma.fields.String):
    """Text that could be stored: no half surrogate pairs, which JSON can smuggle in."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = str(super()._deserialize(value, attr, data, **kwargs))
        if _SURROGATE.search(text):
            raise ma.ValidationError("Half a surrogate pair is no text.")
        return text


class _Flag(ma.fields.Field[bool]):
    """True or false, and nothing that stands for them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise ma.ValidationError("True or false is expected.")


class _Real(ma.fields.Float):
    """A finite number, not a text with one in it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, (int, float)):
            return float(super()._deserialize(value, attr, data, **kwargs))
        raise ma.ValidationError("A number is expected.")


class _Bytes(ma.fields.Field[bytes]):
    """Bytes from msgpack as they are, from JSON as base64."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            try:
                return binascii.a2b_base64(value, strict_mode=True) if value else b""
            except (binascii.Error, ValueError) as error:
                raise ma.ValidationError(f"Not base64: {error}") from None
        raise ma.ValidationError(f"Bytes, or base64 in JSON, are expected, not {type(value).__name__}.")


_KINDS: dict[type, type] = {ma.fields.Integer: int, _Text: str, _Flag: bool, _Real: float, _Bytes: bytes}


def _field(hint: Any, *, required: bool, nullable: bool = False) -> ma.fields.Field[Any]:
    options: dict[str, Any] = {"required": required, "allow_none": nullable}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    simple: dict[Any, type[ma.fields.Field[Any]]] = {
        str: _Text, bool: _Flag, float: _Real, bytes: _Bytes, dict: ma.fields.Dict,
        Any: ma.fields.Raw,
    }  # fmt: skip
    if origin in (typing.Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
        inner = next(argument for argument in arguments if argument is not type(None))
        return _field(inner, required=required, nullable=True)
    if hint is int:
        return ma.fields.Integer(strict=True, **options)
    if hint in simple:
        return simple[hint](**options)
    if origin is list and arguments:
        return ma.fields.List(_field(arguments[0], required=True), **options)
    if origin is tuple and arguments and ... not in arguments:
        return ma.fields.Tuple([_field(argument, required=True) for argument in arguments], **options)
    if origin is dict:
        keys, values = (_field(argument, required=True) for argument in arguments)
        return ma.fields.Dict(keys=keys, values=values, **options)
    if origin is typing.Literal:
        return ma.fields.Raw(validate=ma.validate.OneOf(arguments), **options)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _Record(hint, **options)
    known = "str, int, float, bool, bytes, list, tuple, dict, Literal or a dataclass"
    raise TypeError(f"a field of type {hint!r} is not understood; use {known}.")


class _Record(ma.fields.Field[Any]):
    """A dataclass inside of another."""

    def __init__(self, cls: type, **options: Any) -> None:
        super().__init__(**options)
        self._cls = cls
        _schema_of(cls)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return self._cls(**_schema_of(self._cls).load(value))


def _explain(messages: Any, members: Mapping[str, Any]) -> str:
    parts = []
    for name, texts in messages.items():
        text = " ".join(texts) if isinstance(texts, list) else str(texts)
        value = f" {shown(members[name])}" if name in members else ""
        parts.append(f"{name}{value}: {text.rstrip('.')}")
    return "; ".join(parts)


def _decode_json(raw: bytes, most: int) -> Any:
    # Base64 has none of these characters, so counting them bounds what parsing can make without parsing.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > most:
        raise ValueError(f"more than {most} items")

    if len(raw) > _LARGE:
        content = _CONTENT.search(raw)
        if content:
            rest = json.loads(raw[: content.start(1)] + raw[content.end(1) :], parse_constant=_refuse)
            if isinstance(rest, dict) and rest.get("content") == "":
                return {
                    **rest,
                    "content": binascii.a2b_base64(memoryview(raw)[slice(*content.span(1))], strict_mode=True),
                }
        if not raw.isascii():
            raise ValueError("so much text must be ASCII, but for a content in plain base64")
    return json.loads(raw, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON (RFC 8259, section 6)")


def _decode_msgpack(raw: bytes, most: int) -> Any:
    items = 0

    def count(container: Any) -> Any:
        nonlocal items
        items += 1 + len(container)
        if items > most:
            raise ValueError(f"more than {most} items")
        return container

    options: dict[str, Any] = {"object_hook": count, "list_hook": count, "max_ext_len": 1024}
    longest = min(most, _MOST_IN_ARRAY)
    options |= {"max_array_len": longest, "max_map_len": longest}
    try:
        return msgpack.unpackb(raw, **options)
    except msgpack.ExtraData as error:
        # The client of GBD WebSuite sends all of the buffer in which it has packed the message.
        if error.extra.strip(b"\0"):
            raise
        return error.unpacked


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"A response can't hold {type(value).__name__}.")


def _plain_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    return _plain(value)


_JSON = json.JSONEncoder(default=_plain_json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
