"""What keeps a damaged or hostile file from taking the process down: bounds on sizes, and one sentence for whatever a library raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tpseg.core.errors import DataError, TPSegError

MAX_FRAME_PIXELS = 64_000_000
"""8,000 x 8,000: what a decoder, a change of colour space and the result need of it stays under 2 GiB."""
MAX_VOLUME_BYTES = 2**30
"""What of a volume is held in memory where its file cannot be read slice by slice."""


@contextmanager
def reading(path: Path, kind: str, *, quoting: bool = True) -> Iterator[None]:
    """Turn whatever a library raises on a file into a DataError that names it.

    kind: what the file should be, `NIfTI`. quoting: whether the library's own words are given; not where they could
    quote a patient's data.
    """
    try:
        yield
    except TPSegError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (MemoryError, RecursionError) as error:
        raise DataError(f"{path}: its header asks for more memory than there is; is it complete and really a {kind} file?") from error
    except Exception as error:  # the readers of each format raise whatever a damaged header leads them to
        told = " ".join(str(error).split()).rpartition("ERROR: ")[2]  # ITK begins with the place in its source
        words = told[:160] if quoting else ""
        found = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise DataError(f"{path}: cannot be read ({found}); is it complete and really a {kind} file?") from error


def guard_frame(path: Path, height: int, width: int) -> None:
    """Raise DataError for a frame without pixels or of more than MAX_FRAME_PIXELS."""
    if height < 1 or width < 1:
        raise DataError(f"{path}: frames of {width}x{height} pixels; expected at least one pixel")
    if height * width > MAX_FRAME_PIXELS:
        raise DataError(
            f"{path}: frames of {width}x{height} pixels; at most {MAX_FRAME_PIXELS:,} in all can be read. "
            "If the header is right, export the image as TIFF or PNG and segment it with --tile"
        )


def guard_volume(path: Path, size: int, advice: str) -> None:
    """Raise DataError for a volume of more than MAX_VOLUME_BYTES that would have to be held in memory."""
    if size > MAX_VOLUME_BYTES:
        raise DataError(f"{path}: a volume of {size / 2**30:,.1f} GiB; at most {MAX_VOLUME_BYTES / 2**30:g} GiB can be read: {advice}")
