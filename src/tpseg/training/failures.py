"""What goes wrong around a run, in a sentence: a disk that is full or gone, a loading process that died."""

from __future__ import annotations

import re
from pathlib import Path

from tpseg.core.errors import DataError, TPSegError
from tpseg.core.files import why_not_written
from tpseg.training.signals import how_to_continue

DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")
"""What PyTorch says of a loading process that ended."""


class WriteError(TPSegError, OSError):
    """The run folder cannot be written: full, gone, or not to be written by us."""


class WorkerDied(TPSegError):
    """A process that loads images ended, mostly because the system killed it for its memory."""


def system_error(error: BaseException | None) -> OSError | None:
    """The operating system's error that an error came from: TensorBoard's writer, for one, wraps it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    return None


def dead_worker(error: BaseException, workers: int, saved: str) -> WorkerDied | None:
    """A sentence for a loading process that died. saved: what of the run is safe.

    One that dies while it hands over a batch is noticed by its connection, before PyTorch has looked for it.
    """
    found: re.Match[str] | None = None
    said: BaseException | None = error
    while said is not None and found is None:
        found, said = DEAD_WORKER.search(str(said)), said.__cause__ or said.__context__
    if found is None and not (workers and isinstance(error, (ConnectionError, EOFError))):
        return None
    signal = found[2] if found else None
    how = f"was ended by signal '{signal.strip()}'" if signal else "ended without a word"
    return WorkerDied(
        f"one of the sampling.workers = {workers} processes that load images {how}, most often for want of memory; {saved}, "
        f"{how_to_continue()} --sampling.workers {'1' if workers > 1 else '0'}"
    )


def unwritten(error: OSError, run: Path, saved: str) -> TPSegError:
    """A sentence for a run folder that cannot be written, or for data that cannot be reached."""
    sentence = f"{why_not_written(error)}. {saved[:1].upper()}{saved[1:]}: then {how_to_continue()}"
    inside = str(error.filename or run).startswith(str(run))
    return WriteError(sentence) if inside else DataError(sentence)


def check_still_there(run: Path) -> None:
    """Raise WriteError for a run folder that has gone: what is now in its place may be the empty mount point of a share."""
    if not (run / "settings.yaml").is_file():
        raise WriteError(
            f"{run}: the run folder is gone (no settings.yaml in it any more): was it moved, or is a network share or a disk no longer "
            f"mounted? Nothing is written in its place. When it is back, {how_to_continue()}"
        )
