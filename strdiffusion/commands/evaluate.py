"""Judge a folder of outputs, of any method, by the folder of truths.

For example:

    strdiffusion evaluate outputs=results/x/inpainted truths=photos masks.folder=masks output=results/x/evaluation
    strdiffusion evaluate outputs=results/x/inpainted csv=results/x/results.csv output=results/x/evaluation
    strdiffusion evaluate -opt FILE [key=value ...]
"""

import argparse
from collections.abc import Sequence

from strdiffusion.evaluation.judging_options import load_evaluation
from strdiffusion.evaluation.report import evaluate
from strdiffusion.system.cli import OneLineParser, exit_on_user_error


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", "--opt", metavar="FILE", help="YAML configuration; without it every option is given as key=value")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options, see strdiffusion/config/evaluation.py")
    options = parser.parse_intermixed_args(arguments)
    if options.opt is None and not options.overrides:
        parser.error(f"{parser.MISSING}outputs=FOLDER, truths=FOLDER")
    evaluate(load_evaluation(options.opt, options.overrides))
