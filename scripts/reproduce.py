"""Run a table of configs/tables/: python scripts/reproduce.py configs/tables/psv.yml [key=value ...]"""

import sys

from strdiffusion.cli import OneLineParser, exit_on_user_error
from strdiffusion.config import load_config
from strdiffusion.config.tables import TableConfig
from strdiffusion.evaluation.reproduce import reproduce


@exit_on_user_error
def main() -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument("table", metavar="FILE", help="a table of configs/tables/, or one of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file, for example output=results/mine")
    options = parser.parse_args()
    reproduce(load_config(TableConfig, options.table, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
