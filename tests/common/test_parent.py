from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metta.common import parent

HALF_ENDED = """
import ctypes, subprocess, sys, threading, time
def work():
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
    time.sleep(600)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""A process whose first thread ends, so that it is a zombie, while another one goes on and has started a child."""


def test_an_action_follows_the_end_of_the_pipe() -> None:
    ours, theirs = os.pipe()
    acted = threading.Event()
    parent.when_parent_ends(lambda: os.read(ours, 1), acted.set)
    assert not acted.wait(0.05)
    os.close(theirs)
    assert acted.wait(10)
    os.close(ours)


def test_a_command_ends_with_its_input() -> None:
    command = parent.supervised(["sleep", "60"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert parent.end(process) < 0


def test_the_exit_status_is_the_commands() -> None:
    def status(*command: str) -> int:
        words = parent.supervised(command)
        with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as done:
            return done.wait(10)

    assert status("sh", "-c", "exit 3") == 3
    assert status("sh", "-c", "kill -9 $$") == 137
    assert status("no-such-program") == 127


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_children_of_a_process_whose_first_thread_has_ended_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        stat = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 60
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = parent._descendants(os.getpid())
        os.kill(child, signal.SIGKILL)
        process.kill()
    assert child in found
    assert process.pid not in found
