"""Read every sweep file of W&B in a folder, and print the outcomes.

uv run python -m benchmarks.files FOLDER [--each] [--write]

FOLDER holds real YAML files, such as a copy of public repositories; none is part of this repository.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.files.reading import Reading, read
from metta.common.errors import UserError
from metta.sweep.program.yaml_file import read_yaml

_PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BEGIN, _END = "<!-- table: python -m benchmarks.files FOLDER --write -->", "<!-- end of the table -->"


def sweep_files(folder: Path) -> list[Path]:
    """The YAML files below a folder that are sweeps of W&B: they have a `method` and `parameters`."""
    return sorted(file for file in folder.rglob("*.y*ml") if file.is_file() and _is_sweep(file))


def _is_sweep(file: Path) -> bool:
    try:
        return {"method", "parameters"} <= read_yaml(file).keys()
    except UserError:
        text = file.read_bytes()  # invalid YAML that was written for W&B counts too
        return text.startswith(b"method:") or b"\nmethod:" in text


def table(readings: Sequence[Reading]) -> str:
    """Counts by outcome, in Markdown."""
    counts = Counter((reading.outcome, reading.detail) for reading in readings)
    order = {"read": 0, "refused": 1, "misread": 2, "error": 3}
    rows = sorted(counts.items(), key=lambda row: (order[row[0][0]], row[0][1] != "" and row[0][0] == "read", -row[1]))
    lines = ["| outcome | files | share |", "|---|---:|---:|"]
    for (outcome, detail), count in rows:
        words = {"": outcome}.get(detail, f"read, with {detail}" if outcome == "read" else f"{outcome}: {detail}")
        lines.append(f"| {words.replace('|', '/')} | {count} | {count / len(readings):.0%} |")
    num_read = sum(reading.outcome == "read" for reading in readings)
    misread = sum(reading.outcome == "misread" for reading in readings)
    lines.append(f"| **read in total** | **{num_read} of {len(readings)}** | **{num_read / len(readings):.0%}** |")
    lines.append(f"| **misread** | **{misread}** | **{misread / len(readings):.0%}** |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("folder", type=Path, help="with sweep files of W&B")
    parser.add_argument("--each", action="store_true", help="print a line for each file, too")
    parser.add_argument("--write", action="store_true", help=f"put the table into {_PAGE.name}")
    options = parser.parse_args()
    files = sweep_files(options.folder)
    if not files:
        parser.error(f"{options.folder} has no sweep files of W&B")
    readings = [read(file) for file in files]
    if options.each:
        for file, reading in zip(files, readings, strict=True):
            print(f"{file.relative_to(options.folder)}: {reading.outcome} {reading.detail}")
    print(table(readings))
    if options.write:
        before, _, rest = _PAGE.read_text().partition(_BEGIN)
        _PAGE.write_text(f"{before}{_BEGIN}\n\n{table(readings)}\n\n{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    main()
