"""A second interpreter that holds `gym` + `d4rl`, named by the environment variable `VARIABLE`.

It runs `gym_worker.py`, one process for all environments, and is spoken to through a pipe. An
answer that does not come, and a process that ends, are one line.
"""

import atexit
import contextlib
import os
import select
import subprocess
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ractd_jax import errors
from ractd_jax.envs import gym_worker

VARIABLE = "RACTD_D4RL_PYTHON"
SCRIPT = Path(gym_worker.__file__)
# seconds that an answer may take: importing and compiling, downloading, anything else
LIMITS = {"make": 300.0, "get_dataset": 3600.0}
LIMIT = 60.0
_processes: dict[str, "Process"] = {}


def python() -> str:
    """Return the interpreter that `VARIABLE` names, "" if it names none."""
    return os.environ.get(VARIABLE, "")


class Process:
    """A running worker.

    Args:
        interpreter: path of the interpreter that has the packages.

    Raises:
        UserError: it cannot be started.
    """

    def __init__(self, interpreter: str):
        self.interpreter, self._said = interpreter, ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        try:
            self._process = subprocess.Popen(
                [str(Path(interpreter).expanduser()), "-u", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment(),
                start_new_session=True,  # an interrupt is for the process that asks
            )
        except OSError as error:
            self._log.close()
            raise errors.UserError(
                f"{VARIABLE}={interpreter} cannot be started ({error.strerror}): it is to name a "
                "Python that has gym and d4rl"
            ) from error

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, **request: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send a request and return the answer, header and arrays; see `gym_worker`.

        Args:
            **request: its header; a NumPy array among the values is sent as one.

        Raises:
            UserError: the packages refuse, or the process has ended or does not answer.
        """
        arrays = {name: v for name, v in request.items() if isinstance(v, np.ndarray)}
        header = {name: v for name, v in request.items() if name not in arrays}
        limit = LIMITS.get(header["do"], LIMIT)
        deadline = time.monotonic() + limit
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(gym_worker.encode(header, arrays))
            self._process.stdin.flush()
            answer, arrays = gym_worker.decode(lambda size: self._read(size, deadline))
        except TimeoutError as error:
            raise self._failed(
                f"did not answer {header['do']!r} in {limit:.0f} s and was stopped"
            ) from error
        except (EOFError, OSError) as error:
            raise self._failed("ended with status {status}") from error
        except (ValueError, KeyError) as error:
            raise self._failed(f"answers something else than {SCRIPT.name} does") from error
        if "error" in answer:
            raise errors.UserError(f"{answer['error']} (in {self.interpreter})")
        return answer, arrays

    def stop(self) -> None:
        """End the process."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        if not self._log.closed:
            self._said = self._last_words()
            self._log.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent has nobody to read it
                    pipe.close()

    def _read(self, size: int, deadline: float) -> bytes:
        """Return so many bytes of the answer.

        Raises:
            TimeoutError: they have not come by the deadline.
            EOFError: they will not come.
        """
        assert self._process.stdout is not None
        descriptor, parts, left = self._process.stdout.fileno(), [], size
        while left:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(descriptor, min(left, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _failed(self, what: str) -> errors.UserError:
        """End the process, and return the error that says what it did, and wrote last."""
        self.stop()
        what = what.replace("{status}", str(self._process.returncode))
        return errors.UserError(f"{VARIABLE}={self.interpreter} {what}{self._said}")

    def _last_words(self) -> str:
        """Return the last line that the process wrote, after a colon; "" if there is none."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        lines = [" ".join(line.split()) for line in lines if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""


class OldEnv:
    """An environment of the other interpreter, with the interface of `gym` before 0.26.

    Args:
        name: D4RL's dataset id.

    Raises:
        UserError: the other interpreter cannot make it.
    """

    def __init__(self, name: str):
        self._process = process(python())
        header, limits = self._process.ask(do="make", name=name)
        self._number, self._seed = header["env"], None
        self.action_space = _box(limits, "action")
        self.observation_space = _box(limits, "observation")
        self._state = types.SimpleNamespace(qpos=np.empty(0), qvel=np.empty(0))

    @property
    def unwrapped(self) -> Any:
        """An object whose `sim.data` has the simulator's `qpos` and `qvel`."""
        return types.SimpleNamespace(sim=types.SimpleNamespace(data=self._state))

    def seed(self, seed: int) -> None:
        """Seed the next episode."""
        self._seed = int(seed)

    def reset(self) -> np.ndarray:
        """Begin an episode."""
        _, arrays = self._ask(do="reset", seed=self._seed)
        self._seed = None
        return self._keep(arrays)

    def step(self, action: np.ndarray) -> tuple:
        """Act; return observation, reward, done and info."""
        header, arrays = self._ask(do="step", action=np.asarray(action))
        if header["values"] != 4:
            return (None,) * header["values"]
        info = {"TimeLimit.truncated": True} if header["truncated"] else {}
        return self._keep(arrays), header["reward"], header["done"], info

    def get_dataset(self) -> dict[str, np.ndarray]:
        """Return D4RL's columns."""
        return self._ask(do="get_dataset")[1]

    def close(self) -> None:
        """Free the simulator."""
        if self._process.alive:
            self._ask(do="close")

    def _ask(self, **request: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return self._process.ask(env=self._number, **request)

    def _keep(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        for name in ("qpos", "qvel"):
            setattr(self._state, name, arrays.get(name, np.empty(0)))
        return arrays["obs"]


def process(interpreter: str) -> Process:
    """Return the running worker of an interpreter, started now if there is none."""
    running = _processes.get(interpreter)
    if running is None or not running.alive:
        running = _processes[interpreter] = Process(interpreter)
        atexit.register(running.stop)
    return running


def _box(limits: dict[str, np.ndarray], kind: str) -> gymnasium.spaces.Box:
    low, high = limits[f"{kind}low"], limits[f"{kind}high"]
    return gymnasium.spaces.Box(low, high, low.shape, low.dtype.type)


def environment() -> dict[str, str]:
    """Return the environment variables of the other interpreter.

    Those that would lead it to this one's packages are left out; where mujoco-py finds MuJoCo, its
    loader finds the libraries too.
    """
    variables = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME")}
    home = variables.get("MUJOCO_PY_MUJOCO_PATH") or str(Path("~/.mujoco/mujoco210").expanduser())
    folders = [variables.get("LD_LIBRARY_PATH", ""), f"{home}/bin"]
    return variables | {"LD_LIBRARY_PATH": ":".join(filter(None, folders))}
