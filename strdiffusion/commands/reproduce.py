"""Run a table of configs/tables/; finished runs are not repeated.

For example:

    strdiffusion reproduce configs/tables/demo.yml                     with the networks that ship, a minute
    strdiffusion reproduce configs/tables/demo.yml --dry-run           checks everything, and says what is left to do
    strdiffusion reproduce configs/tables/demo.yml data.limit=4 output=results/try      a few images, in a folder of their own
    strdiffusion reproduce configs/tables/psv.yml [key=value ...]

An interrupted table goes on with the same command.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from strdiffusion.config import load_config
from strdiffusion.evaluation.options import test_options
from strdiffusion.evaluation.reproduce import rehearse, reproduce
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.system.cli import OneLineParser, exit_on_user_error


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    where = "configs/tables of the checkout holds those that ship: ls configs/tables"
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, where=where)
    parser.add_argument("table", metavar="TABLE.yml", help="a table of configs/tables/, or one of your own")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="replace values of the file, or of the tests of all its rows"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, say what is left to do and how long it takes; write nothing"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of other options, which key=value would have")
    options = parser.parse_intermixed_args(arguments)
    config = load_table(options.table, options.overrides)
    if options.dry_run:
        return rehearse(config)
    reproduce(config, keep=bool(options.overrides) and not options.overwrite)


def load_table(path: str, overrides: Sequence[str]) -> TableConfig:
    """A table with the options of the command line: those of the table, and those of the tests of all its rows."""
    of_tests = [override for override in overrides if is_of_tests(override)]
    config = load_config(TableConfig, path, [override for override in overrides if override not in of_tests])
    config.options += of_tests
    return config


def is_of_tests(override: str) -> bool:
    """Whether `key=value` is an option of the tests that the rows are, and none of the table."""
    key = override.partition("=")[0].split(".")[0]
    return key in test_options() and key not in {field.name for field in fields(TableConfig)}
