"""Write the report of a finished search again: ``python tools/report.py SAVE_PATH/MODEL``.

Leaves ``report.html``, one file that needs no other, and its figures as PNG in ``report/``.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the report of a finished search again.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the search's SAVE_PATH/MODEL")
    folder = parser.parse_args().folder
    from cream.report.report import (  # imports Paddle and matplotlib, which --help need not wait for
        REPORT,
        write_report,
    )

    write_report(folder)
    print(folder / REPORT)


if __name__ == "__main__":
    sys.exit(run(main))
