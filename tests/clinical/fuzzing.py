"""Damages files and reads them, one after the other; run as a process of its own, for a native library may take it down.

Usage: python fuzzing.py SEEDS SCRATCH FIRST LAST. SEEDS: a folder of whole files of one format. Input n is made from n alone.
Writes a line to stdout before each input, `start n`, and after, `end n OUTCOME PEAK SECONDS` (memory in KiB).
"""

from __future__ import annotations

import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from tpseg.clinical.reading.decoding import decoders
from tpseg.clinical.reading.opening import open_scan
from tpseg.errors import TPSegError

HEADER = 400
"""Bytes at the beginning in which half of the damage is done."""


def damaged(whole: bytes, number: int) -> bytes:
    """A file cut short, with bits flipped, a part overwritten, or a part repeated."""
    rng = np.random.default_rng(number)
    content = bytearray(whole)
    kind = rng.integers(5)
    end = HEADER if rng.random() < 0.5 else len(content)
    end = min(end, len(content))
    if kind == 0:
        return bytes(content[: rng.integers(len(content))])
    if kind in (1, 2):
        for place in rng.integers(0, end, rng.choice([1, 3, 10, 40])):
            content[place] ^= 1 << int(rng.integers(8))
    elif kind == 3:
        start = int(rng.integers(end))
        length = int(rng.choice([1, 2, 4, 8, 64]))
        content[start : start + length] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * length
    else:
        start, length = int(rng.integers(end)), int(rng.integers(1, 200))
        content[start:start] = content[start : start + length]
    return bytes(content)


def decoder_peak() -> int:
    """Most memory that the process of the decoders has had, in KiB; 0 where there is none, or no /proc to ask."""
    process = decoders()._process
    status = Path(f"/proc/{process.pid}/status") if process else None
    if status is None or not status.exists():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else 0


def main() -> None:
    seeds, scratch = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])
    out = sys.stdout
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        seed = seeds[number % len(seeds)]
        path = scratch / f"{number}{''.join(seed.suffixes)}"
        path.write_bytes(damaged(seed.read_bytes(), number))
        out.write(f"start {number}\n")
        out.flush()
        began = time.perf_counter()
        try:
            scan = open_scan(path)
            for index in sorted({0, scan.frames // 2, scan.frames - 1}):
                frame = scan.frame(index)
                assert frame.dtype == np.uint8
                assert frame.shape == (*scan.size, 3)
            outcome = "shown"
        except TPSegError:
            outcome = "refused"
        except BaseException:
            outcome = "stack-trace"
            traceback.print_exc()
        seconds = time.perf_counter() - began
        peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, decoder_peak())
        out.write(f"end {number} {outcome} {peak} {seconds:.2f}\n")
        out.flush()
        path.unlink()


if __name__ == "__main__":
    main()
