"""Devices: how a process is made ready for a CPU."""

import os
import subprocess
import sys

import pytest

from training import device

FAULTS = """
import ctypes, resource, sys
import torch
from training import device
if sys.argv[1] == "kept":
    assert device.resolve("cpu") == torch.device("cpu")
def work():
    parts = [torch.ones(2**22) for _ in range(4)]  # 16 MiB each
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system cleared for a process that frees and allocates the same 64 MiB ten times over.

    It begins with glibc's threshold before that adapts itself: by chance of what lies above them, blocks may stay.
    """
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    command = [sys.executable, "-c", FAULTS, how]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_a_process_on_a_cpu_keeps_the_memory_that_it_frees():
    kept, given_back = faults("kept"), faults("given back")
    assert given_back > 100  # pages may be of 4 KiB or of 2 MiB
    assert kept < given_back / 10


def test_a_system_without_mallopt_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    device.keep_freed_memory()
