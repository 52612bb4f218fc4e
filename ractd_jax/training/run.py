"""A training run that has begun: its state, and where it is kept. `experiment` trains it."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from ractd_jax import train_state
from ractd_jax.data import windows
from ractd_jax.errors import UserError
from ractd_jax.training import checkpoints, run_dir
from ractd_jax.types import Algorithm


class Clock(NamedTuple):
    """When a program began to train, and how many runs share its time."""

    begun: float
    runs: int

    def seconds(self) -> float:
        """Return each run's share of the time since then."""
        return (time.monotonic() - self.begun) / self.runs


class Started:
    """A run that begins, or goes on from its newest checkpoint: its state, and where it is kept.

    Args:
        experiment: whose run, an `experiment.Experiment`.
        stage: of it.
        algorithm: of the stage.
        needed: see `Experiment.needed`.
        limits: the normaliser of its data.
        steps: updates in the whole run.
        clock: of the program.

    Raises:
        UserError: its newest checkpoint does not fit, or was trained on other data.
    """

    def __init__(
        self,
        experiment: Any,
        stage: str,
        algorithm: Algorithm,
        needed: dict[str, Any],
        limits: windows.Normalizer,
        steps: int,
        clock: Clock,
    ):
        config, self.run = experiment.config, experiment.workdir / stage
        self._stage, self._limits, self._weights = stage, limits, config[stage]["weights"]
        self._acting = algorithm.inference_params
        config[stage]["optimiser"]["steps"] = steps  # as worked out from the epochs
        frozen = {role: item["params"] for role, item in needed.items()}
        key_init, self.key = jax.random.split(jax.random.key(config["seed"]))
        self.state = jax.jit(algorithm.init)(*((key_init, frozen) if frozen else (key_init,)))
        self.store = checkpoints.Checkpoints(self.run, config["training"]["keep"])
        self.step = self.store.latest() or 0
        self._clock, self._timing, self._before = clock, self.run / checkpoints.TIMING, 0.0
        if self.step:
            self.state = self.store.restore(self.step, "state", self.state)
            self._same_data()
            known = self._timing.exists()  # not by earlier versions
            self._before = checkpoints.read_json(self._timing)["seconds"] if known else None
        checkpoints.write_json(self.run / checkpoints.CONFIG, run_dir.describe(config, stage))
        self.log = checkpoints.Log(self.run / "metrics.jsonl", self.step)

    def _item(self, state: train_state.TrainState) -> dict[str, Any]:
        """Return what acts: weights, and the normaliser of the data."""
        weights = state.ema if self._weights == "ema" else state.params
        if self._acting:
            weights = self._acting(weights, state.frozen, self._limits)
        return {"params": weights, "normalizer": self._limits}

    def _same_data(self) -> None:
        saved = self.store.restore(self.step, "policy", self._item(self.state))["normalizer"]
        both = zip(jax.tree.leaves(saved), jax.tree.leaves(self._limits), strict=True)
        if not all(np.allclose(a, b, rtol=1e-3) for a, b in both):
            raise UserError(
                f"{self.run} was begun on other data, whose normaliser its weights need: train it "
                "again with --overwrite, or elsewhere with --workdir=DIR"
            )

    def save(self, step: int, state: train_state.TrainState) -> None:
        """Save a checkpoint, and how long it took to get there."""
        meta = {"step": step, "stage": self._stage}
        self.store.save(step, self._item(state), state, meta)
        if self._before is not None:
            seconds = round(self._before + self._clock.seconds(), 1)
            checkpoints.write_json(self._timing, {"seconds": seconds})

    def finish(self) -> None:
        """Wait for the last checkpoint and note that the run is complete."""
        self.store.close()
        checkpoints.mark_finished(self.run)
