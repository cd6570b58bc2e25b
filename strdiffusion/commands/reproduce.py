"""Run a table of configs/tables/; finished runs are not repeated.

For example:

    strdiffusion reproduce configs/tables/demo.yml                     with the networks that ship, a minute
    strdiffusion reproduce configs/tables/psv.yml [key=value ...]
"""

import argparse
from collections.abc import Sequence

from strdiffusion.config import load_config
from strdiffusion.evaluation.reproduce import reproduce
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.system.cli import OneLineParser, exit_on_user_error


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    where = "configs/tables of the checkout holds those that ship: ls configs/tables"
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, where=where)
    parser.add_argument("table", metavar="TABLE.yml", help="a table of configs/tables/, or one of your own")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="replace values of the file, for example output=results/mine"
    )
    options = parser.parse_args(arguments)
    reproduce(load_config(TableConfig, options.table, options.overrides))
