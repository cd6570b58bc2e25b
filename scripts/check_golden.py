"""Recompute a folder of golden numbers of released programs, and fail if one is outside its tolerance.

For example:

    python scripts/check_golden.py tests/golden [--fast]
    python scripts/check_golden.py tests/golden_repaint
    python scripts/check_golden.py tests/golden_dgts
"""

import sys
from pathlib import Path

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.system.cli import OneLineParser, exit_on_user_error

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from golden_forms import check_folder  # the tests know how the numbers are recomputed


@exit_on_user_error
def main() -> int:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder such as tests/golden")
    parser.add_argument("--fast", action="store_true", help="with the networks in their inference form, as tests and samplers use them")
    options = parser.parse_args()
    failed = 0
    count = 0
    for item in check_folder(options.folder, options.fast):
        count += 1
        failed += not item.passed
        print(f"{'ok  ' if item.passed else 'FAIL'} {item.name:42s} error {item.error:.1e}  tolerance {item.tolerance:.0e}")
    print(f"{count - failed} of {count} items within tolerance")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
