"""Turns a scheduler's whole state into plain data and back, for a checkpoint of the event log.

Walks the objects instead of naming their fields, so that the core may change without this. What is shared stays shared,
and numbers come back to the last bit. Data only: to decode makes instances of the core's and the predictor's own
classes and runs no code that the data could choose.
"""

from __future__ import annotations

import importlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Collection, Iterator
from math import isfinite, prod
from typing import Any, Literal

import msgspec
import numpy as np

_PACKAGES = ("backend.scheduler", "predictor")
_DTYPES = ("float64", "float32", "int64", "bool")
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_PAUSE_EVERY = 256
"""Values between two pauses."""

Value = Any
"""None, a bool, an int, a str, a finite float, or a list of a kind and what belongs to it, in order:

#: number of an earlier object. float: text of one that JSON cannot hold. list, tuple, set, frozenset: the items.
deque: maxlen, items. dict: keys and values by turns. array: dtype, order, shape, base64. object: class, names and
values by turns. record (a named tuple or a struct): class, values. A class is a number among `classes`.
"""


class Snapshot(msgspec.Struct, frozen=True):
    """One object and all that it refers to."""

    classes: list[str]
    root: Value


def encode(root: object, pause: Callable[[], None] = lambda: None) -> Snapshot:
    """Encode a snapshot. pause: called now and then. Functions become None. Raises TypeError on what is no data."""
    encoder = _Encoder(pause)
    value = encoder.value(root)
    return Snapshot(list(encoder.classes), value)


def decode(snapshot: Snapshot, packages: Collection[str] = ()) -> object:
    """Decode a snapshot. packages: whose classes may be made besides ours.

    Raises ValueError on what `encode` cannot have written.
    """
    try:
        return _Decoder([_find_class(name, (*_PACKAGES, *packages)) for name in snapshot.classes]).value(snapshot.root)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"it is no snapshot: {error}") from None


class _Encoder:
    def __init__(self, pause: Callable[[], None]) -> None:
        self.classes: dict[str, int] = {}
        self._pause = pause
        self._numbers: dict[int, int] = {}
        self._left = _PAUSE_EVERY

    def value(self, found: Any) -> Value:
        self._left -= 1
        if self._left <= 0:
            self._left = _PAUSE_EVERY
            self._pause()
        if found is None or isinstance(found, bool | int | str):
            return found
        if isinstance(found, float):
            return float(found) if isfinite(found) else ["float", str(found)]
        if id(found) in self._numbers:  # all that is numbered is kept alive by the root
            return ["#", self._numbers[id(found)]]
        if callable(found):
            return None
        self._numbers[id(found)] = len(self._numbers)
        return self._compound(found)

    def _compound(self, found: Any) -> Value:
        kind = type(found)
        if kind is np.ndarray:
            return _array(found)
        if kind in _CONTAINERS:
            parts = (part for item in found.items() for part in item) if kind is dict else found
            if kind in (set, frozenset):  # whose order is none
                parts = sorted(found, key=repr)
            head = [kind.__name__, found.maxlen] if kind is deque else [kind.__name__]
        elif isinstance(found, tuple | msgspec.Struct):
            parts = found if isinstance(found, tuple) else (getattr(found, name) for name in found.__struct_fields__)
            head = ["record", self._class(kind)]
        elif kind.__module__ == "builtins":  # one that `decode` would refuse, such as bytes
            raise TypeError(f"a {kind.__name__} is not to be encoded")
        else:
            return ["object", self._class(kind), *self._attributes(found)]
        return [*head, *map(self.value, parts)]

    def _attributes(self, found: object) -> Iterator[Value]:
        slots = [name for base in type(found).__mro__ for name in getattr(base, "__slots__", ())]
        for name in (*slots, *getattr(found, "__dict__", ())):
            if not name.startswith("__"):  # such as __orig_class__ of generic ones
                yield name
                yield self.value(getattr(found, name))

    def _class(self, kind: type) -> int:
        return self.classes.setdefault(f"{kind.__module__}:{kind.__qualname__}", len(self.classes))


class _Decoder:
    def __init__(self, classes: list[type]) -> None:
        self._classes = classes
        self._objects: list[Any] = []

    def value(self, found: Value) -> Any:
        if not isinstance(found, list):
            return found
        kind, *rest = found
        if kind == "#":
            return self._objects[rest[0]]
        if kind == "float":
            return float(rest[0])
        number = len(self._objects)
        self._objects.append(None)
        if kind in ("list", "set", "deque", "dict", "object"):  # these may contain themselves
            return self._mutable(kind, rest, number)
        self._objects[number] = made = self._immutable(kind, rest)
        return made

    def _mutable(self, kind: str, rest: list[Value], number: int) -> Any:
        made: Any
        if kind == "object":
            cls, *rest = rest
            made = self._objects[number] = object.__new__(self._classes[cls])
            for name, part in zip(rest[::2], rest[1::2], strict=True):
                if name.startswith("__"):
                    raise ValueError(f"attribute {name} is no data")
                object.__setattr__(made, name, self.value(part))
        elif kind == "dict":
            made = self._objects[number] = {}
            parts = map(self.value, rest)
            made.update(zip(parts, parts, strict=True))
        elif kind == "deque":
            made = self._objects[number] = deque(maxlen=rest[0])
            made.extend(map(self.value, rest[1:]))
        else:
            made = self._objects[number] = [] if kind == "list" else set()
            made.extend(map(self.value, rest)) if kind == "list" else made.update(map(self.value, rest))
        return made

    def _immutable(self, kind: str, rest: list[Value]) -> Any:
        if kind in ("tuple", "frozenset"):
            return (tuple if kind == "tuple" else frozenset)(map(self.value, rest))
        if kind == "array":
            return _restored_array(*rest)
        if kind != "record":
            raise ValueError(f"{kind!r} is no kind of value")
        cls, values = self._classes[rest[0]], [self.value(part) for part in rest[1:]]
        if issubclass(cls, msgspec.Struct):
            names: tuple[str, ...] = cls.__struct_fields__
        elif issubclass(cls, tuple):
            names = getattr(cls, "_fields", ())
        else:
            raise ValueError(f"{cls.__name__} is no record")
        if len(names) != len(values):  # of another release: nothing is guessed
            raise ValueError(f"a {cls.__name__} has {len(names)} fields, not {len(values)}")
        return cls(*values) if issubclass(cls, msgspec.Struct) else tuple.__new__(cls, values)


def _array(found: np.ndarray[Any, Any]) -> Value:
    if found.dtype.name not in _DTYPES:
        raise TypeError(f"an array of {found.dtype.name} is not to be encoded")
    # The order too: sums of the same numbers in another order differ in their last bits.
    order: Literal["C", "F"] = "F" if found.flags.f_contiguous and not found.flags.c_contiguous else "C"
    return ["array", found.dtype.name, order, list(found.shape), b64encode(found.tobytes(order)).decode()]


def _restored_array(dtype: str, order: str, shape: list[int], data: str) -> np.ndarray[Any, Any]:
    values = b64decode(data, validate=True)
    if dtype not in _DTYPES or order not in ("C", "F") or min(shape, default=0) < 0:
        raise ValueError("it is no array of numbers")
    if prod(shape) * np.dtype(dtype).itemsize != len(values):
        raise ValueError(f"an array of {shape} does not have {len(values)} bytes")
    flat = np.frombuffer(values, dtype)
    return flat.reshape(shape, order=order).copy(order)  # type: ignore[call-overload,no-any-return]


def _find_class(name: str, packages: Collection[str]) -> type:
    module, _, path = name.partition(":")
    if not any(module == package or module.startswith(f"{package}.") for package in packages):
        raise ValueError(f"class {name} is none of a scheduler's")
    try:
        found: object = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"class {name} cannot be had: {error}") from None
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"{name} is no class")
    return found
