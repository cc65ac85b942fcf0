"""Native decoders in a process of their own: a damaged file can abort them, corrupt or fill their memory, or keep them busy for ever.

Seen with GDCM (abort), CharLS (no end) and ITK's MetaImage reader (corrupted memory). What kills the process costs one frame or
file: the caller gets a sentence, and the next request a new process.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np

SECONDS = 5.0
"""Of the processor's time that a small request may take."""
WAITING = 60.0
"""Times as long a request may take by the clock on the wall: a machine that busy still decodes, a decoder that sleeps ends."""
BYTES_PER_SECOND = 5_000_000
"""Of the result, which large ones may take longer for; JPEG 2000 decodes some five million pixels of 16 bits a second."""
PROCESS = (sys.executable, "-m", "tpseg.imaging.reading.decoder_process")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
"""Threads that decode nothing would reserve much of the memory that the process may have."""


class Decoders:
    """The process `tpseg.imaging.reading.decoder_process`, started when first needed and anew whenever it has died.

    Every request raises ValueError, in words for people, if it cannot be met.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def frame(self, syntax: str, stream: bytes, options: dict[str, Any]) -> tuple[np.ndarray, str]:
        """One compressed DICOM frame, (H, W) or (H, W, 3), and its photometric interpretation.

        options: as pydicom's decoders take them, of one frame.
        """
        size = options["rows"] * options["columns"] * options["samples_per_pixel"] * options["bits_allocated"] // 8
        answer, data = self._ask(size, "frame", syntax, stream, options)
        return np.frombuffer(data, answer["type"]).reshape(answer["shape"]), answer["photometric"]

    def volume_header(self, path: Path) -> dict[str, Any]:
        """What SimpleITK reads of a file's header: size, components, bytes (of a component), type, origin, spacing, direction."""
        return self._ask(0, "volume_header", str(path))[0]

    def volume(self, path: Path, size: int) -> np.ndarray:
        """A file's voxels as SimpleITK's arrays have them, (K, J, I) or (K, J, I, 3); size: in bytes, as the header says."""
        answer, data = self._ask(size, "volume", str(path))
        return np.frombuffer(data, answer["type"]).reshape(answer["shape"])

    def close(self) -> None:
        """End the process, if there is one and it is this process's."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _ask(self, size: int, *request: object) -> tuple[dict[str, Any], bytearray]:
        """The reply to a request, whose result has about `size` bytes."""
        seconds = SECONDS + size / BYTES_PER_SECOND
        with self._lock:
            process = self._running()
            timer = Timer(WAITING * seconds, process.kill)
            timer.start()
            try:
                answer, data = exchange(process, pickle.dumps((seconds, *request)))
            except (OSError, ValueError, EOFError):
                waited = not timer.is_alive()
                self.close()
                raise ValueError(f"the decoder {how_it_ended(process.returncode, waited, seconds)}") from None
            finally:
                timer.cancel()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer, data

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():  # a fork must not share its parent's
            self._process = subprocess.Popen(
                PROCESS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
            )
            self._owner = os.getpid()
            assert self._process.stdout is not None
            if not self._process.stdout.readline():  # it says when it is ready, so that its start is in no request's time
                self.close()
                raise ValueError("the process that decodes does not start")
        return self._process


def how_it_ended(code: int | None, waited: bool, seconds: float) -> str:
    """What became of the process, in words. code: of its end; waited: whether it was ended by the clock on the wall."""
    if waited:
        return f"did not end within {WAITING * seconds:.3g} s"
    if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
        return f"took more than {seconds:.3g} s of the processor's time"
    return "crashed"


def exchange(process: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], bytearray]:
    """Write a request and read the reply: a line of JSON, and as many bytes as it says; raises EOFError if it ends before."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(len(request).to_bytes(8, "little") + request)
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    data = bytearray(answer.get("length", 0))
    if process.stdout.readinto(data) != len(data):  # type: ignore[attr-defined]
        raise EOFError
    return answer, data


@cache
def decoders() -> Decoders:
    """The one of this process; ends with it."""
    found = Decoders()
    atexit.register(found.close)
    return found
