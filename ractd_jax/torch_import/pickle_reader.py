"""Read a file of `torch.save` without torch, and without running anything that is in it.

Such a file is a zip archive of uncompressed records (torch >= 1.6):

    <name>/data.pkl       a pickle of everything, in which a tensor refers to its storage by a key
    <name>/data/<key>     the numbers of one storage
    <name>/byteorder      little or big (newer versions)

A pickle is a program: it names functions and calls them. Here every name stands for a class of
this file that keeps what it is given and does nothing (`Inert`), so that configuration objects of
OmegaConf and dill become placeholders; a name that no checkpoint of the released code needs, such
as os.system, ends the reading. Sizes are checked against the file before anything is allocated.
"""

import contextlib
import io
import math
import pathlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ractd_jax.errors import UserError

MAX_PICKLE = 16 << 20  # bytes; a published checkpoint's pickle has under a million
MAX_STEPS = 1 << 20  # operations of a pickle; a published checkpoint's has under 200,000
MAX_COMPOUND = 1000  # keys that are tuples: their hashes can be made equal, those of strings not
MAX_DEPTH = 100  # tuples within tuples; hashing deeper ones would exhaust the C stack
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch < 1.6: a bare pickle

# Packages whose objects lie in the released checkpoints, and the types a pickle may name.
PACKAGES = {
    *("torch", "numpy", "collections", "omegaconf", "dill", "hydra", "antlr4", "typing", "enum"),
    *("copyreg", "copy_reg", "_codecs", "pathlib", "consistency_policy", "diffusion_policy"),
}
TYPES = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
    *("object", "range", "set", "slice", "str", "tuple", "type"),
}
DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


# ---- what takes the place of the objects in the file -------------------------------------------


class Inert:
    """An object of the file that is not rebuilt.

    Attributes:
        parts: what the pickle would have built it from.
    """

    __slots__ = ("parts",)

    def __new__(cls, *args: Any, **kwargs: Any):
        self = object.__new__(cls)
        self.parts = [args, kwargs]
        return self

    def __call__(self, *args, **kwargs):
        return Inert(args, kwargs)

    def __setstate__(self, state):
        self.parts.append(state)

    def __setitem__(self, key, value):
        self.parts.append((key, value))

    append = add = __setstate__

    def extend(self, values: Iterable[Any]) -> None:
        """Keep what a list of the file would have been extended with."""
        self.parts.extend(values)


class _Dict(dict):
    """An OrderedDict, less the attributes that a pickle could set on one."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class Tensor(Inert):
    """A tensor, not read yet.

    Attributes:
        storage: where its numbers lie.
        offset: of its first number in the storage.
        shape: its shape.
        strides: between neighbours along each axis, in numbers.
    """

    __slots__ = ("offset", "shape", "storage", "strides")

    def __new__(cls, storage, offset, shape, strides, *ignored):
        self = super().__new__(cls)
        whole = isinstance(shape, tuple) and isinstance(strides, tuple)
        if not whole or len(shape) != len(strides) or not isinstance(storage, _Storage):
            raise ValueError("a tensor without storage, shape and strides")
        for number in (offset, *shape, *strides):
            if type(number) is not int or not 0 <= number < 1 << 48:
                raise ValueError("a tensor whose shape is not made of whole numbers")
        count = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if count and (last >= storage.size or count > storage.size):
            raise ValueError(f"a tensor of shape {shape} in a storage of {storage.size} numbers")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        return self


class _Parameter(Inert):
    """torch.nn.Parameter: its tensor."""

    __slots__ = ()

    def __new__(cls, data, *ignored):
        return data


STAND_INS = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
}


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, strings, numbers, `Tensor` and `Inert`, nothing else."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self._classes: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> type:
        package = module.partition(".")[0]
        known = name in TYPES if package in ("builtins", "__builtin__") else package in PACKAGES
        if not known:
            raise UserError(
                f"it names {ascii(f'{module}.{name}')[1:-1][:80]}, which no checkpoint of the "
                "released code needs and which could run a program; nothing of it was run"
            )
        if (module, name) not in self._classes:
            # A class of its own for this file, so that nothing in the file can reach another's.
            base = STAND_INS.get((module, name), Inert)
            fields = {"__slots__": ()}
            if module == "torch" and name in DTYPES:
                fields["dtype"] = DTYPES[name]
            self._classes[module, name] = type(base.__name__, (base,), fields)
        return self._classes[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise ValueError("a reference to something other than a storage")
        _, kind, key, _, size = pid
        dtype = kind.__dict__.get("dtype") if isinstance(kind, type) else None
        if dtype is None:
            raise ValueError("a storage of a type that is not supported")
        if not isinstance(key, str) or not re.fullmatch(r"\w{1,64}", key, re.ASCII):
            raise ValueError(f"a storage called {ascii(key)[:40]}")
        if type(size) is not int or not 0 <= size < 1 << 48:
            raise ValueError("a storage without a size that a file can have")
        return _Storage(key, dtype, size)


def _check_bounds(step: int, arg: Any) -> None:
    """Refuse an operation after too many, or a number whose hash many others share."""
    if step >= MAX_STEPS:
        raise ValueError(f"a pickle of more than {MAX_STEPS:,} operations")
    if type(arg) is int and not -(1 << 63) <= arg < 1 << 64:  # many have one hash
        raise ValueError("a pickle with whole numbers of more than 64 bits")


def _check(data: bytes) -> None:  # noqa: C901, PLR0912
    """Refuse a pickle that would exhaust memory or the C stack before it says what it holds.

    Follows the stack of the pickle machine, but of every object keeps only how deep tuples are
    nested in it.

    Raises:
        ValueError: it would, or it is no pickle.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int] = {}
    compound = 0
    for step, (opcode, arg, at) in enumerate(pickletools.genops(data)):
        name, before, position = opcode.name, opcode.stack_before, at or 0
        _check_bounds(step, arg)
        if name.startswith("EXT"):
            raise ValueError("a pickle with extension codes")
        if name == "MARK":
            stack.append(None)
        elif name == "MEMOIZE" or name.endswith("PUT"):
            index = len(memo) if name == "MEMOIZE" else int(arg or 0)
            if index > position:  # the machine's table grows to this number
                raise ValueError("a pickle with more memory than objects")
            memo[index] = stack[-1] or 0
        elif name.endswith("GET"):
            stack.append(memo[int(arg or 0)])
        elif name == "POP":
            stack.pop()
        else:
            popped = []
            count = len(before)
            if pickletools.markobject in before:
                count = before.index(pickletools.markobject)
                while (top := stack.pop()) is not None:
                    popped.append(top)
            popped += [stack.pop() or 0 for _ in range(count)]
            depth = max(popped, default=0) + name.startswith(("TUPLE", "FROZENSET"))
            if name in ("SETITEM", "SETITEMS", "DICT"):  # value, key, ..., and the dictionary
                compound += sum(part > 0 for part in popped[1::2])
            elif name in ("ADDITEMS", "FROZENSET"):
                compound += sum(part > 0 for part in popped)
            if compound > MAX_COMPOUND:
                raise ValueError(f"a pickle with more than {MAX_COMPOUND:,} tuples as keys")
            if depth > MAX_DEPTH:
                raise ValueError(f"a pickle with more than {MAX_DEPTH} tuples within tuples")
            stack += [depth] * len(opcode.stack_after)


# ---- the file ----------------------------------------------------------------------------------


class TorchFile(contextlib.AbstractContextManager):
    """An open checkpoint.

    Args:
        path: of the file.

    Attributes:
        content: what was saved, of dicts, lists, tuples, strings, numbers, `Tensor` and `Inert`.

    Raises:
        UserError: it is no such file, is damaged, or is not to be trusted.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            with path.open("rb") as file:
                start = file.read(64)
            self._size = path.stat().st_size
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if not start.startswith(b"PK"):
            raise UserError(f"{path} {_not_a_zip(start, path)}")
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self._damaged(error) from error
        try:
            self._open()
        except BaseException:
            self._zip.close()
            raise

    def _open(self) -> None:
        self._left = 4 * self._size  # bytes of storages still to be read; more is a trick
        self._records = {info.filename: info for info in self._zip.infolist()}
        pickles = [n for n in self._records if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError(f"{self.path} is a zip file, but not one that torch.save wrote")
        self._prefix = pickles[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        if order in self._records and self._read(order) != b"little":
            raise UserError(f"{self.path} was written on a big-endian machine; save it on another")
        data = self._read(pickles[0], MAX_PICKLE)
        try:
            _check(data)
            self.content = _Unpickler(data).load()
        except UserError as error:
            raise UserError(f"{self.path} is refused: {error}") from None
        except Exception as error:
            raise self._damaged(error) from error

    def __exit__(self, *exc):
        self._zip.close()

    def _damaged(self, error: Exception) -> UserError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        return UserError(
            f"{self.path} is damaged, cut short, or no checkpoint of torch.save ({reason}); "
            "get it again"
        )

    def _read(self, name: str, limit: int | None = None) -> bytes:
        """Return one record."""
        info = self._records.get(name)
        if info is None:
            raise self._damaged(ValueError(f"{name} is missing"))
        limit = min(self._size, limit or self._size)
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{self.path} is refused: {name} is compressed, torch.save never does")
        if max(info.file_size, info.compress_size) > limit:
            raise UserError(
                f"{self.path} is refused: {name} claims {info.file_size:,} bytes, {limit:,} is "
                "the most it can have"
            )
        try:
            return self._zip.read(info)
        except Exception as error:  # zipfile raises many kinds, all about a damaged archive
            raise self._damaged(error) from error

    def array(self, tensor: Tensor) -> np.ndarray:
        """Read a tensor.

        Raises:
            UserError: its storage is missing, damaged, or not of the size it claims.
        """
        storage = tensor.storage
        raw = self._read(f"{self._prefix}data/{storage.key}")
        self._left -= len(raw)
        if len(raw) != storage.size * storage.dtype.itemsize or self._left < 0:
            raise self._damaged(
                ValueError(
                    f"storage {storage.key} has {len(raw):,} bytes and claims {storage.size:,} "
                    f"numbers of {storage.dtype.name}"
                )
            )
        flat = np.frombuffer(raw, storage.dtype)[tensor.offset :]
        strides = [step * storage.dtype.itemsize for step in tensor.strides]
        return np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides))

    def strings(self) -> set[str]:
        """Return every string in the file, whatever objects hold it."""
        strings, seen, todo = set(), set(), [self.content]
        while todo:
            value = todo.pop()
            if isinstance(value, str):
                strings.add(value)
            elif id(value) not in seen:
                seen.add(id(value))
                if isinstance(value, dict):
                    todo += [*value.keys(), *value.values()]
                elif isinstance(value, list | tuple | set | frozenset):
                    todo += value
                elif isinstance(value, Inert):
                    todo += value.parts
        return strings


def _not_a_zip(start: bytes, path: pathlib.Path) -> str:
    """Say what a file is whose first bytes are not those of a zip file."""
    if start.startswith(LEGACY):
        return (
            "is in the format of torch before 1.6, which is not read; re-save it where torch is: "
            f"torch.save(torch.load('{path.name}', map_location='cpu'), 'new.ckpt')"
        )
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: the download failed; get it again"
    return "is not a checkpoint of torch.save (no zip file)"
