"""The bound on memory that the C library keeps for threads."""

import subprocess
import sys

_THREADS = """
import threading
from pathlib import Path
from adapters.allocator import bound_arenas

if {bounded}:
    bound_arenas()
gate = threading.Barrier(17)
def work():
    kept = [bytearray(1 << 10) for _ in range(100)]
    gate.wait()
    gate.wait()
for _ in range(16):
    threading.Thread(target=work).start()
gate.wait()
# An arena reserves 64 MiB of addresses, of which little is in use.
sizes = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()
         if "---p" in line and line.endswith(" 0 ")]
print(sum(int(end, 16) - int(start, 16) > 60 << 20 for start, end in sizes))
gate.wait()
"""


def arenas(*, bounded: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _THREADS.format(bounded=bounded)], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def test_threads_share_two_arenas() -> None:
    assert arenas(bounded=False) > 4
    assert arenas(bounded=True) <= 1  # the first arena is the heap
