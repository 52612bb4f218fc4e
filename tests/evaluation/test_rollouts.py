"""Episodes are counted once, summed plainly, and do not feel their neighbours."""

import warnings

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import rollouts

TASK = tasks.get("hopper-medium-replay-v2")
SEEDS = (3, 1, 4, 15, 9)


def policy(obs, seeds, step):
    """Row by row and without a matrix product, so that a row is the same in any batch, bit for bit.

    Some actions exceed the limits, which the rollout must clip.
    """
    return 1.3 * np.sin(3.0 * obs[:, :3] + seeds[:, None] + 0.1 * step)


@pytest.fixture(scope="module")
def result():
    return rollouts.rollout(policy, TASK, SEEDS)


def by_hand(seed):
    """Return the rewards of one episode from the plainest loop."""
    env = make_env(TASK.env_id)
    obs, _ = env.reset(seed=seed)
    rewards, done = [], False
    while not done:
        row = np.asarray(obs)[None]
        action = policy(row, np.array([seed]), len(rewards))[0].clip(-1, 1)
        obs, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        done = terminated or truncated
    return rewards


def test_return_is_the_sum_of_a_plain_loop(result):
    assert result.seeds.tolist() == list(SEEDS)
    for index, seed in enumerate(SEEDS):
        rewards = by_hand(seed)
        np.testing.assert_allclose(result.returns[index], sum(rewards), rtol=1e-12)
        best = [max(rewards[: t + 1]) for t in range(len(rewards))]
        np.testing.assert_allclose(result.returns_released[index], sum(best), rtol=1e-12)
        assert result.lengths[index] == len(rewards)


def test_episode_does_not_depend_on_the_others(result):
    for index, seed in enumerate(SEEDS[:3]):
        alone = rollouts.rollout(policy, TASK, [seed])
        assert alone.returns[0] == result.returns[index]
        assert alone.lengths[0] == result.lengths[index]


def test_batches_are_padded_to_powers_of_two_and_shrink():
    calls, heard = [], []

    def spy(obs, seeds, step):
        assert obs.dtype == np.float64  # all their digits
        assert obs.shape == (len(seeds), TASK.obs_dim)
        calls.append((step, len(obs), set(seeds.tolist())))
        return policy(obs, seeds, step)

    result = rollouts.rollout(spy, TASK, SEEDS, on_step=lambda *now: heard.append(now))
    assert [step for step, _, _ in calls] == list(range(result.lengths.max()))
    assert {size for _, size, _ in calls} <= {1, 2, 4, 8}
    assert calls[0][1] == 8
    assert calls[-1][1] < 8
    for step, _, seeds in calls:  # an episode is asked about until its own end, and no longer
        assert seeds == set(result.seeds[result.lengths > step].tolist())
    assert heard[-1] == (result.lengths.max(), len(SEEDS))
    assert heard == sorted(heard)


def test_time_limit_ends_an_episode():
    task = tasks.get("halfcheetah-medium-v2")
    result = rollouts.rollout(lambda obs, seeds, step: np.zeros((len(obs), 6)), task, [0])
    assert result.lengths.tolist() == [task.max_episode_steps]


def test_running_maximum_by_hand():
    assert rollouts.running_max_return([1.0, 3.0, 2.0, -1.0, 4.0]) == 1 + 3 + 3 + 3 + 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_action_that_is_not_finite_names_step_and_seed(bad):
    def broken(obs, seeds, step):
        actions = policy(obs, seeds, step)
        actions[seeds == 4, 1] = bad if step == 5 else 0.0
        return actions

    with pytest.raises(errors.UserError, match="step 5 of the episode with seed 4"):
        rollouts.rollout(broken, TASK, SEEDS)


def test_no_seed_is_refused():
    with pytest.raises(errors.UserError, match="at least one seed"):
        rollouts.rollout(policy, TASK, [])


def test_making_an_environment_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_env(TASK.env_id).close()


def test_record_is_the_same_episode_as_rollout(result):
    episode = rollouts.record(policy, TASK, SEEDS[0])
    assert episode["qpos"].shape == (result.lengths[0], 6)
    assert episode["rewards"].shape == (result.lengths[0],)
    assert episode["return"] == result.returns[0]
    assert np.ptp(episode["qpos"][:, 0]) > 0.01


def test_statistics_match_closed_forms():
    scores = np.random.default_rng(1).normal(40.0, 12.0, size=400)
    returns = TASK.return_min + scores / 100 * (TASK.return_max - TASK.return_min)
    summary = rollouts.statistics(returns, TASK)
    error = np.sqrt(((scores - scores.mean()) ** 2).sum() / 399 / 400)
    assert summary["score_mean"] == pytest.approx(scores.mean())
    assert summary["score_median"] == pytest.approx(np.median(scores))
    assert summary["score_se"] == pytest.approx(error)
    low, high = summary["score_ci95"]  # the central limit theorem's interval
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.1 * error)
    assert rollouts.statistics(returns, TASK) == summary


def test_one_episode_has_no_spread():
    summary = rollouts.statistics([TASK.return_max], TASK)
    assert summary["score_mean"] == pytest.approx(100)
    assert summary["score_se"] is None
    assert summary["score_ci95"] is None


def test_statistics_of_nothing_are_refused():
    with pytest.raises(errors.UserError, match="no episode"):
        rollouts.statistics([], TASK)
