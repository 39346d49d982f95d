"""What a program's end says: one line for what the user can mend, nothing where nobody reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UsageError, as_program

ROOT = Path(__file__).parents[2]
PROGRAM = """
from configs.errors import UsageError, as_program

def main(argv):
    print("line\\n" * int(argv[0]))
    if len(argv) > 1:
        raise UsageError(argv[1])

as_program("toy", main, "")
"""


@pytest.fixture
def unread():
    """A pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def toy(*argv, stdout=subprocess.PIPE):
    command = [sys.executable, "-c", PROGRAM, *argv]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},  # a pipe has a buffer, unless a machine's settings forbid it
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_printed_arrives():
    assert toy("100000").stdout == "line\n" * 100000 + "\n"


def test_a_reader_that_closes_at_once_ends_the_program_quietly(unread):
    ended = toy("100000", stdout=unread)  # more than a buffer: noticed while printing
    assert (ended.returncode, ended.stderr) == (1, "")
    assert toy("1", stdout=unread).stderr == ""  # noticed at the end, when all is done


def test_a_mistake_is_named_even_if_nobody_reads_the_rest(unread):
    ended = toy("1", "no such flag", stdout=unread)
    assert (ended.returncode, ended.stderr) == (1, "toy: no such flag\n")


@pytest.mark.parametrize(
    ("raised", "said"), [(UsageError("mend it"), "toy: mend it"), (KeyboardInterrupt(), "toy: interrupted; go on")]
)
def test_what_the_user_can_mend_is_one_line(raised, said):
    def main(argv):
        raise raised

    with pytest.raises(SystemExit) as caught:
        as_program("toy", main, "go on")
    assert caught.value.code == said
