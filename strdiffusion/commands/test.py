"""Inpaint a folder of images as a configuration says, and write pictures, metrics and traces.

    strdiffusion test -opt configs/psv/test.yml [key=value ...]
    strdiffusion test -opt configs/psv/test.yml data.images=photos data.masks.folder=masks output=results/mine \\
        data.ground_truth=false structure.edge_source=known "checkpoints={folder: weights/mine}"

All options: strdiffusion/evaluation/options.py, and those of the method in strdiffusion/methods/. For single photographs of any size see
`strdiffusion inpaint`.
"""

from collections.abc import Sequence

from strdiffusion.config import load_config
from strdiffusion.evaluation.folder import inpaint_folder
from strdiffusion.evaluation.options import TestConfig, require_used
from strdiffusion.system.cli import exit_on_user_error, parse_options


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_options(__doc__, arguments, prog)
    config = load_config(TestConfig, options.opt, options.overrides)
    require_used(config, options.opt, options.overrides)
    inpaint_folder(config)
