"""One training run that has begun: its state, and where it is kept."""

import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from ractd_jax.config import Config
from ractd_jax.data.identity import Identity
from ractd_jax.data.normalization import Normalizer
from ractd_jax.errors import UserError
from ractd_jax.train_state import TrainState
from ractd_jax.training import checkpoints, run_dir
from ractd_jax.types import Algorithm


class Clock(NamedTuple):
    """When a program began to train, and how many runs share its time."""

    begun: float
    runs: int

    def seconds(self) -> float:
        """Return each run's share of the time since then."""
        return (time.monotonic() - self.begun) / self.runs


class TrainingRun:
    """A run that begins, or goes on from its newest checkpoint.

    Args:
        folder: of the run.
        config: of its pipeline, the number of updates worked out.
        stage: of it.
        algorithm: of the stage.
        needed: weights and normalizers of the models it needs, by role.
        normalizer: of its data.
        clock: of the program.
        data: what its data are known by.

    Raises:
        UserError: its newest checkpoint does not fit, or was trained on other data.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        config: Config,
        stage: str,
        algorithm: Algorithm,
        needed: dict[str, Any],
        normalizer: Normalizer,
        clock: Clock,
        data: Identity,
    ):
        self.folder = folder
        self._stage, self._normalizer = stage, normalizer
        self._weights = config.stages[stage].weights
        self._inference_params = algorithm.inference_params
        frozen = {role: item["params"] for role, item in needed.items()}
        key_init, self.key = jax.random.split(jax.random.key(config.seed))
        self.state = jax.jit(algorithm.init)(*((key_init, frozen) if frozen else (key_init,)))
        self.store = checkpoints.Checkpoints(self.folder, config.training.keep)
        self.step = self.store.latest() or 0
        self._clock, self._before = clock, 0.0
        if self.step:
            self.state = self.store.restore(self.step, "state", self.state)
            self._check_data()
            self._before = run_dir.seconds(self.folder)
        run_dir.write(self.folder, run_dir.describe(config, stage, data))
        self.log = checkpoints.Log(self.folder / "metrics.jsonl", self.step)

    def _item(self, state: TrainState) -> dict[str, Any]:
        """Return what acts: weights, and the normalizer of the data."""
        weights = state.ema if self._weights == "ema" else state.params
        if self._inference_params:
            weights = self._inference_params(weights, state.frozen, self._normalizer)
        return {"params": weights, "normalizer": self._normalizer}

    def _check_data(self) -> None:
        saved = self.store.restore(self.step, "policy", self._item(self.state))["normalizer"]
        both = zip(jax.tree.leaves(saved), jax.tree.leaves(self._normalizer), strict=True)
        if not all(np.allclose(a, b, rtol=1e-3) for a, b in both):
            raise UserError(
                f"{self.folder} was begun on other data, whose normalizer its weights need: train "
                "it again with --overwrite, or elsewhere with --workdir=DIR"
            )

    def save(self, step: int, state: TrainState) -> None:
        """Save a checkpoint, and how long it took to get there."""
        # First the time: a checkpoint is never there without it.
        seconds = round(self._before + self._clock.seconds(), 1)
        checkpoints.write_json(self.folder / checkpoints.TIMING, {"seconds": seconds})
        self.store.save(step, self._item(state), state, {"step": step, "stage": self._stage})

    def finish(self) -> None:
        """Wait for the last checkpoint and note that the run is complete."""
        self.store.close()
        checkpoints.mark_finished(self.folder)
