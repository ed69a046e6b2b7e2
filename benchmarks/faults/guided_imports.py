"""Look for a file that `metta-sweep import` neither reads nor refuses, guided by coverage; it ends at the first one.

    uv run --with atheris python -m benchmarks.faults.guided_imports json|csv|parquet [--seconds 600]

Atheris changes the bytes of an exported file, and keeps a change that takes a new branch in `metta`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")
with atheris.instrument_imports(include=["metta"]):
    from benchmarks.faults.imports import KINDS, make_files
    from metta.common.errors import UserError
    from metta.sweep.definition import definition_problem
    from metta.sweep.store.transfer import read_sweep, read_table


def look(kind: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        corpus, path = Path(folder) / "corpus", Path(folder) / f"tried.{kind}"
        corpus.mkdir()
        (corpus / f"made.{kind}").write_bytes((Path(folder) / f"made.{kind}").read_bytes())

        def read(content: bytes) -> None:
            path.write_bytes(content)
            with contextlib.suppress(UserError):
                if kind == "json":
                    definition_problem(read_sweep(path)[0])
                else:
                    read_table(path)

        atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds:.0f}", "-max_len=100000"], read)
        atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    look(options.kind, options.seconds)
