"""What can be seen to be wrong in a configuration before anything is computed.

Single fields are checked by their dataclasses; here is what concerns several of them. Each finding
is one line that says what, where and what would work. What only a library, the data or an earlier
run can tell is found where they are met.
"""

from ractd_jax import errors, networks
from ractd_jax.config import Config
from ractd_jax.methods import registry


def check(config: Config) -> None:
    """Check data, networks and methods against each other.

    Raises:
        UserError: with the first thing that cannot work.
    """
    if config.data.history > 1 and config.task.kind == "planner":
        raise errors.UserError(
            f"data.history is {config.data.history}: plans are made from the present state alone, "
            "which takes 1"
        )
    critics = [name for name in config.stages if registry.get(name).values]
    errors.choose("critic", config.critic, critics)
    for stage, section in config.stages.items():
        if section.selection and section.selection.critic:
            errors.choose(f"{stage}.selection.critic", section.selection.critic, critics)
        try:
            networks.check(section.network, registry.horizon(config, stage))
        except errors.FieldError as error:
            raise error.within(f"{stage}.network") from None
        registry.make(config, stage)  # the methods check what they are made of
    for field in ("online", "replan"):
        rows = [
            name for name in config.stages if registry.get(name).row and registry.get(name).acts
        ]
        for stage in getattr(config.eval, field):
            errors.choose(f"stage in eval.{field}", stage, rows)
