"""Pickled NumPy arrays without what makes pickles dangerous.

Unpickling runs what the file names; even numpy's own functions, fed a forged dtype, read memory that is not
theirs. So the pickle calls nothing of numpy: stand-ins take note of dtype, shape and bytes, and arrays are
made of them afterwards. Everything else that a file may name is refused.
"""

import pickle
import re
from collections.abc import Iterable
from io import BufferedIOBase
from typing import Any, Literal

import numpy as np

SIMPLE_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|U\d+|S\d+|O8?")
MOST_SHARED = 100  # values for each byte of the file
ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # up to numpy 1, from numpy 2


def load(file: BufferedIOBase) -> Any:
    """What the pickle holds: dicts, lists, text, numbers and arrays of them; ValueError for anything else."""
    try:
        return _plain(_Unpickler(file).load(), {})
    except ValueError:
        raise
    except Exception as error:  # a damaged or forged stream fails in any way it likes
        raise ValueError(f"its pickle cannot be read: {type(error).__name__}: {error}") from error


def check_size(value: Any, held: int) -> None:
    """`ValueError` where lists share their parts so that few bytes stand for very many values."""
    size = _spread(value, {})
    if size > MOST_SHARED * max(held, 1):
        raise ValueError(f"its lists share their parts so that {held:,} bytes stand for {size:,} values")


def _spread(value: Any, known: dict[int, int]) -> int:
    """How many values there are when every list has its own copy of its parts."""
    if not isinstance(value, list | dict | np.ndarray):
        return 1
    if id(value) not in known:
        known[id(value)] = 1  # a list that holds itself
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
        if isinstance(value, np.ndarray):
            known[id(value)] = value.size
            parts = value.flat if value.dtype == object else ()
        known[id(value)] += sum(_spread(part, known) for part in parts)
    return known[id(value)]


class _DType:
    """Stands in for `numpy.dtype`."""

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        if not SIMPLE_DTYPE.fullmatch(name):
            raise ValueError(
                f"its pickle holds an array of dtype {name!r}; only plain numbers and text are read"
            )
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise ValueError("its pickle holds an array of a dtype with fields or of another kind")
        self.order = state[1]

    def read(self, data: Any) -> np.ndarray:
        """Numbers or text from their bytes."""
        if self.name[0] == "O" or not isinstance(data, bytes):
            raise ValueError("its pickle holds numbers that are no bytes")
        return np.frombuffer(data, self.order.replace("|", "=") + self.name)


class _Array:
    """Stands in for `numpy.ndarray`, whose state is (version, shape, dtype, Fortran order, bytes or list)."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def made(self, known: dict[int, Any]) -> np.ndarray:
        """The array."""
        if self.dtype.name[0] != "O":
            order: Literal["F", "C"] = "F" if self.fortran else "C"
            values: np.ndarray = self.dtype.read(self.data)
            return values.reshape(self.shape, order=order)
        flat = np.empty(len(self.data), dtype=object)
        for index, item in enumerate(self.data):
            flat[index] = _plain(item, known)
        return flat.reshape(self.shape)  # lists are in C order always


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, or a refusal."""
        stands_in: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): _encoded,
            ("__builtin__", "bytes"): _no_bytes,
        }
        for array_module in ARRAY_MODULES:
            stands_in[array_module, "_reconstruct"] = _empty
            stands_in[array_module, "scalar"] = _number
        if (module, name) not in stands_in:
            raise ValueError(
                f"its pickle wants to run {module}.{name}; only NumPy arrays, dicts, lists, text and numbers "
                "are read"
            )
        return stands_in[module, name]


def _empty(kind: type[_Array], shape: object, typecode: object) -> _Array:
    """Stands in for `_reconstruct`: the state comes later."""
    return _Array()


def _number(dtype: _DType, data: object) -> Any:
    """Stands in for `scalar`: a number or text of numpy becomes one of Python."""
    return dtype.read(data)[0].item()


def _encoded(value: str, encoding: str) -> bytes:
    """Stands in for `_codecs.encode`, by which old protocols write bytes."""
    if encoding != "latin1":
        raise ValueError(f"its pickle holds bytes as {encoding}")
    return value.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for `bytes`, by which old protocols write empty ones."""
    return b""


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """`value` with arrays in the place of their stand-ins; `known` is what is done: parts may be shared."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, _Array):
        known[id(value)] = value.made(known)
    elif isinstance(value, dict):
        known[id(value)] = {}
        known[id(value)].update((key, _plain(item, known)) for key, item in value.items())
    elif isinstance(value, list | tuple):
        known[id(value)] = []
        known[id(value)].extend(_plain(item, known) for item in value)
    return known.get(id(value), value)
