"""Behaviour cloning with a diffusion model: the teacher's EDM, of single actions.

The behaviour model of Consistency-IDQL (CleanDiffuser), and the teacher of
`consistency_distillation`. Loss, scalings and samplers are those of `edm`; the data are single
steps, and no reward is heeded.
"""

from ractd_jax import edm, errors, networks, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods.consistency import NETWORKS
from ractd_jax.types import Algorithm


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the cloning EDM of a configuration.

    Raises:
        FieldError: its reward has a weight.
    """
    section = context.section
    if section.method.reward_weight:
        raise errors.FieldError(
            "reward_weight",
            f"{{field}} is {section.method.reward_weight}: cloning knows no reward, it takes 0",
        )
    net = networks.in_precision(section.network, context.config.training.precision)
    return edm.make_teacher(net, context.noise, section.method, optimiser, **context.sizes)


def _calls(fields: edm.Teacher) -> int:
    return (fields.sample_bins - 1) * edm.SOLVERS[fields.solver].calls


METHODS = (
    Method(
        name="edm_bc",
        help="clone the data's actions with an EDM of single actions",
        make=make,
        fields=edm.Teacher,
        network=NETWORKS,
        reads=Reads.TRANSITIONS,
        label="EDM, cloning",
        colour="#9eb1d0",
        order=10,
        sampling_fields=("solver", "sample_bins"),
        calls=_calls,
        heeds_precision=True,
        tasks=("policy",),
    ),
)
