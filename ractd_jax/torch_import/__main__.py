"""Import a published checkpoint; see `convert`.

    python -m ractd_jax.torch_import teacher.ckpt [--config=configs/<task>.py:teacher,...]

Without --config it is `configs/<task>.py:<stage>,preset=released` of the task that the file names.
Any field is set with --config.<section>.<field>=<value>. A student's file holds its teacher and its
return model too: the stage in --config says which of them is wanted. The normalizer is the file's
or, where it holds none, that of the configuration's data.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from ractd_jax.cli import configs
from ractd_jax.cli.fields import set_fields
from ractd_jax.errors import UserError
from ractd_jax.methods import registry
from ractd_jax.torch_import import convert

HELP = {
    "config": "configuration the file belongs to [configs/<task>.py:<stage>,preset=released]",
    "out": "folder to write [where main.py with that configuration looks for the stage]",
    "overwrite": "replace the run in that folder",
}


def main(argv: Sequence[str]) -> int:
    """Run the command, and return its exit status; what the user can put right becomes one line.

    Args:
        argv: program and arguments.
    """
    if {"--help", "-h", "--helpfull"} & set(argv[1:]):
        print(__doc__)
        for flag, text in {"FILE": "the checkpoint", **HELP}.items():
            print(f"  {flag if flag == 'FILE' else f'--{flag}':12} {text}")
        return 0
    try:
        _run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(argv: Sequence[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("config", "", HELP["config"], flag_values=values)
    flags.DEFINE_string("out", "", HELP["out"], flag_values=values)
    flags.DEFINE_bool("overwrite", False, HELP["overwrite"], flag_values=values)
    given = [word for word in argv if word.startswith(("--config.", "-config."))]
    try:
        files = values([word for word in argv if word not in given])[1:]
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from error
    if not files:
        raise UserError("which file? python -m ractd_jax.torch_import FILE, see --help")
    if len(files) > 1:
        raise UserError(f"{files[1]!r} is one file too many: one at a time")
    name, out = str(values["config"].value), str(values["out"].value)
    config = None
    if name:
        place, _, argument = name.partition(":")
        fields = configs.load(place, argument or None)
        set_fields(fields, [word.lstrip("-").removeprefix("config.") for word in given])
        config = registry.configure(fields.to_dict())
    convert.import_checkpoint(
        pathlib.Path(files[0]),
        config=config,
        name=name,
        given=given,
        stage=_stage_in(name),
        out=pathlib.Path(out) if out else None,
        overwrite=bool(values["overwrite"].value),
    )


def _stage_in(name: str) -> str | None:
    """Return the stage in `configs/hopper_mr.py:<stage>,...`, None if it is left out."""
    word = name.partition(":")[2].partition(",")[0]
    return word if word and "=" not in word else None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
