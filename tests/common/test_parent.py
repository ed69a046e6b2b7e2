from __future__ import annotations

import os
import subprocess
import threading

from metta.common import parent


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
