"""Run every fault and write the table into docs/reliability.md.

uv run --with libfaketime python -m benchmarks.faults [--kills 200] [--only WORD] [--write]

The disks and the immutable file, and therefore the whole table, need root on Linux; libfaketime sets the clocks.
"""

from __future__ import annotations

import argparse
import errno
import logging
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.faults import edges, scenarios
from benchmarks.faults.harness import Verdict
from tests.support.postgresql import PostgresServer

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- table: python -m benchmarks.faults --write -->", "<!-- end of the table -->"
_HEADER = (
    "| fault | store | trials ended / asked | attempts repeated | finished trials lost | run twice | seconds "
    "| what the user reads |\n|---|---|---|---|---|---|---|---|"
)
Outcome = Verdict | str | tuple[Verdict, str]


@dataclass(frozen=True)
class Fault:
    """A line of the table: the fault, the database, and a function that injects it in its own folder."""

    name: str
    database: str
    make: Callable[[Path], Outcome]


def faults(kills: int) -> list[Fault]:
    """Every fault of the table; each one that needs a server starts its own."""
    jumps = ["+2h", "-2h", "+400d", "-1h", "+0"]

    def on_server(run: Callable[[PostgresServer, Path], Outcome]) -> Callable[[Path], Outcome]:
        def make(folder: Path) -> Outcome:
            with PostgresServer() as server:
                return run(server, folder)

        return make

    return [
        Fault(
            f"kill -9, {kills} times at random moments",
            "SQLite",
            lambda folder: scenarios.kill_9(f"sqlite:///{folder}/store.sqlite", folder, kills),
        ),
        Fault(
            f"kill -9, {kills} times at random moments",
            "PostgreSQL",
            on_server(lambda server, folder: scenarios.kill_9(server.new_database(), folder, kills)),
        ),
        Fault(
            "server restarted 3 times, away for 5 s",
            "PostgreSQL",
            on_server(lambda server, folder: scenarios.restarted(server, folder, signal.SIGINT, 3, 5.0, 100)),
        ),
        Fault(
            "server crashed 3 times, away for 5 s",
            "PostgreSQL",
            on_server(lambda server, folder: scenarios.restarted(server, folder, signal.SIGQUIT, 3, 5.0, 100)),
        ),
        Fault(
            "server away for 30 s, trials in 2 x 2 worker processes",
            "PostgreSQL",
            on_server(lambda server, folder: scenarios.away_from_workers(server, folder, 30.0, 100)),
        ),
        Fault(
            "connections cut 3 times, refused for 5 s",
            "PostgreSQL",
            on_server(
                lambda server, folder: scenarios.cut_off(
                    server, folder, lambda proxy: proxy.cut(), lambda proxy: proxy.heal(), 3, 5.0, 100
                )
            ),
        ),
        Fault(
            "network silent for 20 s",
            "PostgreSQL",
            on_server(
                lambda server, folder: scenarios.cut_off(
                    server, folder, lambda proxy: proxy.stall(), lambda proxy: proxy.resume(), 1, 20.0, 100
                )
            ),
        ),
        Fault(
            "answer to a commit lost, 20 times",
            "PostgreSQL",
            on_server(
                lambda server, folder: scenarios.cut_off(
                    server, folder, lambda proxy: proxy.lose_next_commit(), lambda proxy: None, 20, 0.2, 200
                )
            ),
        ),
        Fault(
            "server dead for good, its synchronous replica promoted",
            "PostgreSQL",
            lambda folder: scenarios.failed_over(folder, True, 100),
        ),
        Fault(
            "server dead for good, a replica promoted that lacks a quarter of the trials",
            "PostgreSQL",
            lambda folder: scenarios.failed_over(folder, False, 100),
        ),
        Fault(
            "server out of connections for 10 s, those of the drivers cut off",
            "PostgreSQL",
            lambda folder: scenarios.out_of_connections(folder, 10.0, 100),
        ),
        Fault("disk full for 10 s", "SQLite", lambda folder: scenarios.disk_full(folder, 10.0, 100)),
        Fault(
            "server's disk full for 10 s", "PostgreSQL", lambda folder: scenarios.server_disk_full(folder, 10.0, 100)
        ),
        Fault("file locked for 30 s", "SQLite", lambda folder: scenarios.locked(folder, 30.0, 100)),
        Fault("file moved away for 10 s", "SQLite", lambda folder: scenarios.moved(folder, 10.0, 100)),
        Fault("file replaced by an older copy", "SQLite", lambda folder: scenarios.replaced(folder, 100)),
        Fault(
            "file removed for good, drivers stopped 5 s later",
            "SQLite",
            lambda folder: scenarios.removed(folder, 5.0, 100),
        ),
        Fault("SIGTERM, 20 times", "SQLite", lambda folder: scenarios.preempted(folder, 20, 100)),
        Fault("file read-only for 10 s", "SQLite", lambda folder: scenarios.read_only(folder, 10.0, 100)),
        Fault("file truncated, then put back", "SQLite", lambda folder: scenarios.truncated(folder, 100)),
        Fault("not a database", "SQLite", scenarios.not_a_database),
        Fault("clock jumps 5 times", "SQLite", lambda folder: scenarios.clock_jumps(folder, jumps, 100)),
        Fault(
            "server's clock jumps 5 times, drivers on 4 machines",
            "PostgreSQL",
            lambda folder: scenarios.server_clock_jumps(folder, jumps, 100),
        ),
        *_deaths(kills // 2),
        *_edges(),
        Fault("W&B away at the start", "SQLite", lambda folder: scenarios.wandb_away(folder, range(0, 50), 100)),
        Fault("W&B away in the middle", "SQLite", lambda folder: scenarios.wandb_away(folder, range(25, 75), 100)),
        Fault("W&B away at the end", "SQLite", lambda folder: scenarios.wandb_away(folder, range(50, 100), 100)),
    ]


def _deaths(kills: int) -> list[Fault]:
    """kill -9 at the end of a trial, at each moment, on each database."""
    moments = {
        "before": "just before a trial's end is recorded",
        "during": "within the 20 ms in which a trial's end is recorded",
        "after": "just after a trial's end is recorded",
    }

    def on_file(moment: str, folder: Path) -> Outcome:
        return edges.killed_at_the_end(f"sqlite:///{folder}/store.sqlite", folder, moment, kills)

    def on_server(moment: str, folder: Path) -> Outcome:
        with PostgresServer() as server:
            return edges.killed_at_the_end(server.new_database(), folder, moment, kills)

    return [
        Fault(f"kill -9 {when}, {kills} times", database, partial(make, moment))
        for moment, when in moments.items()
        for database, make in (("SQLite", on_file), ("PostgreSQL", on_server))
    ]


def _edges() -> list[Fault]:
    return [
        Fault(
            "at most 64 open files, trials in 2 x 2 worker processes",
            "SQLite",
            lambda folder: edges.limited(folder, ["--nofile=64"], 100),
        ),
        Fault(
            "at most 2 GB of address space, trials in 2 x 2 worker processes",
            "SQLite",
            lambda folder: edges.limited(folder, ["--as=2000000000"], 100),
        ),
        Fault(
            "kill -9 while the store is made, 100 times",
            "SQLite",
            lambda folder: edges.killed_while_opening(folder, None, 100),
        ),
        Fault(
            "kill -9 while a store of version 0001 is migrated, 100 times",
            "SQLite",
            lambda folder: edges.killed_while_opening(folder, "0001", 100),
        ),
        Fault(
            "a backup put back beside the log of killed drivers", "SQLite", lambda folder: edges.old_log(folder, 100)
        ),
        Fault(
            "a folder whose files cannot be locked, as on some network file systems",
            "SQLite",
            lambda folder: edges.network_folder(folder, "FAULTY_LOCKS", errno.ENOLCK),
        ),
        Fault(
            "a folder whose files cannot be mapped into memory, as on some network file systems",
            "SQLite",
            lambda folder: edges.network_folder(folder, "FAULTY_MAPS", errno.ENODEV),
        ),
        Fault("a store of a newer version", "SQLite", edges.newer_version),
        Fault("200 MB of output of each program", "SQLite", lambda folder: edges.loud(folder, 200)),
        Fault("1,000,000 metrics of each program", "SQLite", lambda folder: edges.many_metrics(folder, 1_000_000)),
        Fault("2,000 trials in the driver", "SQLite", lambda folder: edges.leaks(folder, 2000, None)),
        Fault("2,000 trials in 2 worker processes", "SQLite", lambda folder: edges.leaks(folder, 2000, 2)),
        Fault("20,000 trials in the dashboard", "SQLite", lambda folder: edges.many_trials(folder, 20_000)),
        Fault(
            "50 readers of the dashboard that take a byte a second",
            "SQLite",
            lambda folder: edges.slow_readers(folder, 50, 15.0),
        ),
    ]


def line(fault: Fault, outcome: Outcome, seconds: float) -> str:
    verdict, said = outcome if isinstance(outcome, tuple) else (outcome, None)
    if isinstance(verdict, str):
        cells, said = ["refused at the start", "-", "-", "-"], verdict
    else:
        failed = f" ({verdict.failed} failed after 3 lost attempts)" if verdict.failed else ""
        cells = [f"{verdict.ended} / {verdict.asked}{failed}", *map(str, (verdict.repeated, verdict.lost))]
        cells.append(str(verdict.duplicated))
        said = said or next(iter(verdict.messages), None)
    told = "nothing: no trial was hurt"
    if said:
        told = re.sub(r"\S*/journal-\S+", "JOURNAL", re.sub(r"(store )\S+?:( |$)", r"\1URL: ", said)).replace("|", "/")
    return f"| {fault.name} | {fault.database} | {' | '.join(cells)} | {seconds:.0f} | {told} |"


def sound(outcome: Outcome) -> bool:
    verdict = outcome[0] if isinstance(outcome, tuple) else outcome
    return isinstance(verdict, str) or verdict.sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default="", help="run the faults with this in their line only")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the harness reads the store too, but only the drivers' messages matter
    lines, all_sound = [_HEADER], True
    print(_HEADER)
    for fault in faults(options.kills):
        if options.only not in f"{fault.name} {fault.database}":
            continue
        with tempfile.TemporaryDirectory(prefix="metta-faults-") as folder:
            start = time.monotonic()
            outcome = fault.make(Path(folder))
            lines.append(line(fault, outcome, time.monotonic() - start))
        all_sound &= sound(outcome)
        print(lines[-1], flush=True)
    if options.write:
        before, _, rest = _PAGE.read_text().partition(_BEGIN)
        table = "\n".join(lines)
        _PAGE.write_text(f"{before}{_BEGIN}\n{table}\n{_END}{rest.partition(_END)[2]}")
    return 0 if all_sound else 1


if __name__ == "__main__":
    sys.exit(main())
