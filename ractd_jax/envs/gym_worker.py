"""The environments of an installed `gym` + `d4rl`, served over a pipe; runs by itself.

`gym_process` starts this file with the interpreter that has the packages: d4rl's mujoco-py is
compiled against NumPy 1, JAX needs NumPy 2. It imports nothing of this project and runs in Python
3.7 or newer. `make` serves a single interpreter that has all of them as well.

A message is a header and arrays: eight bytes, the length of the header, big-endian; the header,
JSON with a list `arrays` of [name, length]; then each array as a .npy file. Requests (`do`) and
their answers:

    make: name               env, its number; limits of the spaces as arrays
    reset: env, seed         obs, qpos, qvel
    step: env, action        reward, done, truncated, values (how many); obs, qpos, qvel
    get_dataset: env         the columns that are numbers
    close: env               nothing

What fails is answered by {"error": one line}. The end of the input ends the process.
"""

import collections
import collections.abc
import importlib
import importlib.util
import io
import json
import os
import struct
import sys
import types
import warnings
from typing import Any, Callable, Dict, List, Tuple  # noqa: UP035 (Python 3.7 has no others)

import numpy as np

FAMILIES = {"maze2d": "pointmaze", "kitchen": "kitchen"}  # of d4rl, by domain; else gym_mujoco
LONGEST = 1 << 20  # bytes of a header; more is no header

Arrays = Dict[str, np.ndarray]  # noqa: UP006
Message = Tuple[Dict[str, Any], Arrays]  # noqa: UP006


def make(name: str) -> Any:
    """Return the `gym` environment that d4rl registers under a dataset's id.

    Only the family that the id is of is imported, whatever becomes of d4rl's others.

    Args:
        name: D4RL's dataset id, as `hopper-medium-replay-v2`.

    Raises:
        Exception: what the packages raise.
    """
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    import gym  # pyright: ignore[reportMissingImports]

    _package()
    importlib.import_module("d4rl." + FAMILIES.get(name.partition("-")[0], "gym_mujoco"))
    return gym.make(name)


def _package() -> None:
    """Import d4rl; where its own imports of all families fail, make it known without them."""
    try:
        importlib.import_module("d4rl")
    except Exception:  # it lets pass an ImportError alone
        spec = importlib.util.find_spec("d4rl")
        if spec is None or not spec.submodule_search_locations:
            raise
        package = types.ModuleType("d4rl")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["d4rl"] = package


# ---- messages ------------------------------------------------------------------------------------


def encode(header: Dict[str, Any], arrays: Arrays) -> bytes:  # noqa: UP006
    """Return a message as bytes.

    Args:
        header: what JSON can hold.
        arrays: of numbers.

    Example:
        >>> decode(io.BytesIO(encode({"a": 1}, {"x": np.zeros(2)})).read)
        ({'a': 1}, {'x': array([0., 0.])})
    """
    parts = []
    for array in arrays.values():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        parts.append(buffer.getvalue())
    sizes = [[name, len(part)] for name, part in zip(arrays, parts)]  # noqa: B905 (Python 3.9)
    head = json.dumps({**header, "arrays": sizes}).encode()
    return b"".join([struct.pack(">Q", len(head)), head, *parts])


def decode(read: Callable[[int], bytes]) -> Message:
    """Return the next message.

    Args:
        read: returns so many bytes.

    Raises:
        ValueError: what comes is no message.
    """
    (length,) = struct.unpack(">Q", read(8))
    if length > LONGEST:
        raise ValueError("what came through the pipe is no message")
    header = json.loads(read(length).decode())
    arrays = {}
    for name, size in header.pop("arrays"):
        arrays[name] = np.load(io.BytesIO(read(size)), allow_pickle=False)
    return header, arrays


# ---- the process ---------------------------------------------------------------------------------


def _answer(request: Dict[str, Any], arrays: Arrays, envs: List[Any]) -> Message:  # noqa: UP006
    """Do what a request says, and return the answer."""
    do = request["do"]
    if do == "make":
        env = make(request["name"])
        envs.append(env)
        limits = {
            kind + end: np.asarray(getattr(getattr(env, kind + "_space"), end))
            for kind in ("action", "observation")
            for end in ("low", "high")
        }
        return {"env": len(envs) - 1}, limits
    env = envs[request["env"]]
    if do == "reset":
        if request["seed"] is not None:
            env.seed(request["seed"])
        return {}, _state(env, env.reset())
    if do == "step":
        values = env.step(arrays["action"])
        obs, reward, done, info = values if len(values) == 4 else (values[0], 0.0, True, {})
        truncated = bool(info.get("TimeLimit.truncated", False))
        header = {"reward": float(reward), "done": bool(done), "truncated": truncated}
        return {**header, "values": len(values)}, _state(env, obs)
    if do == "get_dataset":
        columns = {name: np.asarray(column) for name, column in env.get_dataset().items()}
        return {}, {name: c for name, c in columns.items() if c.dtype.kind in "biuf"}
    if do == "close":
        envs[request["env"]] = None
        env.close()
        return {}, {}
    raise ValueError("unknown request " + repr(do))


def _state(env: Any, obs: Any) -> Arrays:
    """Return an observation, and the simulator's state where it has one."""
    arrays = {"obs": np.asarray(obs)}
    data = getattr(getattr(env.unwrapped, "sim", None), "data", None)
    for name in ("qpos", "qvel"):
        if hasattr(data, name):
            arrays[name] = np.array(getattr(data, name), np.float64)
    return arrays


def main() -> None:
    """Answer requests until the input ends."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the packages print must not come between the answers
    warnings.simplefilter("ignore")
    for name in ("Mapping", "MutableMapping", "Sequence", "Iterable"):  # gone since Python 3.10
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))

    def read(size: int) -> bytes:
        data = sys.stdin.buffer.read(size)
        if len(data) < size:
            raise EOFError
        return data

    envs: List[Any] = []  # noqa: UP006
    while True:
        try:
            request, arrays = decode(read)
        except EOFError:
            return
        try:
            answer = encode(*_answer(request, arrays, envs))
        except Exception as error:  # the packages' errors share no other base
            line = " ".join(str(error).split()) or type(error).__name__
            answer = encode({"error": line}, {})
        pipe.write(answer)
        pipe.flush()


if __name__ == "__main__":
    main()
