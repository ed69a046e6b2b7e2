from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from pathlib import Path

from metta.common.logging import log_to_file


def test_the_file_gets_everything_and_the_terminal_what_one_can_act_on(tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text(
        textwrap.dedent("""
        import logging, warnings

        def work():
            logging.getLogger("library").warning("library warns")
            logging.getLogger("library").error("library fails")
            warnings.warn("library deprecates")
    """)
    )
    program = textwrap.dedent(f"""
        import logging, sys
        from pathlib import Path
        sys.path.append({str(library.parent)!r})
        import library
        from metta.common.logging import log_to_file, quiet_terminal

        quiet_terminal()
        quiet_terminal()
        with log_to_file(Path({str(tmp_path)!r}) / "run" / "run.log"):
            logging.getLogger("metta.x").info("we inform")
            logging.getLogger("metta.x").warning("we warn of %s", "this")
            library.work()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["warning: we warn of this", "error: library fails"]
    log = (tmp_path / "run" / "run.log").read_text()
    for message in (
        "we inform",
        "we warn of this",
        "library warns",
        "library fails",
        "UserWarning: library deprecates",
    ):
        assert log.count(message) == 1


def test_a_run_that_goes_on_adds_to_its_log_and_leaves_logging_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    for message in ("first attempt", "second attempt"):
        with log_to_file(tmp_path / "run.log"):
            logging.getLogger("metta.x").info(message)
    assert (root.level, list(root.handlers)) == before
    log = (tmp_path / "run.log").read_text()
    assert log.index("first attempt") < log.index("second attempt")
