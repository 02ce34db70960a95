"""Draw a run or a search as an SVG file: accuracy over latency, the area of a point its size.

python benchmarks/frontier.py runs/search --out frontier.svg
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from compress.report.data import Report
from compress.report.journey import draw_journey
from models.files import write_text

WIDTH, HEIGHT = 760, 430


def svg(report: Report) -> str:
    """Return the report's drawing as a file of its own, with the page's style; light and dark."""
    drawing = draw_journey(report, width=WIDTH, height=HEIGHT)
    if drawing is None:
        raise SystemExit(f"{report.name} has no two points to draw")
    style = (resources.files("compress.report") / "style.css").read_text(encoding="utf-8")
    head, rest = drawing.text.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run or a search, with its report.json")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    text = (arguments.run / "report.json").read_text(encoding="utf-8")
    write_text(arguments.out, svg(Report.model_validate_json(text)))


if __name__ == "__main__":
    main()
