"""The process that decodes what could take a process down: requests on stdin, results on stdout; see tpseg.imaging.reading.decoding."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

MEMORY = 2**31
"""Bytes of address space that the process may have: a volume of MAX_VOLUME_BYTES, packed and unpacked, and the libraries."""
Reply = tuple[dict[str, Any], np.ndarray | None, object]
"""A line, an array, and what owns the array's memory."""


def frame(syntax: str, stream: bytes, options: dict[str, Any]) -> Reply:
    """One compressed DICOM frame as pydicom's decoders return it."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    from tpseg.imaging.reading.silence_pydicom import keep_quiet

    keep_quiet()
    values, found = get_decoder(syntax).as_array(encapsulate([stream]), index=0, raw=True, **options)
    return {"photometric": str(found["photometric_interpretation"])}, values, None


def itk_reader(path: str) -> str:
    """ITK's name for the reader of a format. Left to choose, it would go by what is in the file: HDF5's may name other files."""
    return "NrrdImageIO" if path.lower().endswith(".nrrd") else "MetaImageIO"


def volume_header(path: str) -> Reply:
    """What ITK reads of a file's header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(itk_reader(path))
    reader.SetFileName(path)
    reader.ReadImageInformation()
    size = reader.GetSize()
    header = {
        "size": size,
        "components": reader.GetNumberOfComponents(),
        "bytes": sitk.Image([1] * len(size), reader.GetPixelID()).GetSizeOfPixelComponent(),
        "type": sitk.GetPixelIDValueAsString(reader.GetPixelID()),
        "origin": reader.GetOrigin(),
        "spacing": reader.GetSpacing(),
        "direction": reader.GetDirection(),
    }
    return header, None, None


def volume(path: str) -> Reply:
    """A file's voxels."""
    import SimpleITK as sitk

    image = sitk.ReadImage(path, imageIO=itk_reader(path))
    return {}, sitk.GetArrayViewFromImage(image), image


REQUESTS: dict[str, Callable[..., Reply]] = {"frame": frame, "volume_header": volume_header, "volume": volume}
LIBRARIES = {
    "frame": ("pydicom.encaps", "pydicom.pixels", "tpseg.imaging.reading.silence_pydicom"),
    "volume_header": ("SimpleITK",),
    "volume": ("SimpleITK",),
}
"""What each request imports, seconds on a busy machine and in no request's time; pydicom.pixels imports all its decoders."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End this process, by SIGPROF, if the block takes more of the processor's time; waiting and other processes' work do not count.

    Windows has no such clock: there the other end's watch is the only one.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Say that all is ready, then answer until the other end closes.

    A request is the seconds of the processor's time that it may take, its name and its arguments.
    """
    replies.write(b"ready\n")
    replies.flush()
    while head := requests.read(8):
        values = owner = None
        try:
            seconds, name, *arguments = pickle.loads(requests.read(int.from_bytes(head, "little")))
            for library in LIBRARIES[name]:
                import_module(library)
            with limited(seconds):
                line, values, owner = REQUESTS[name](*arguments)
        except (Exception, MemoryError) as error:
            line = {"error": " ".join(str(error).split()) or type(error).__name__}
        if values is not None:
            values = np.ascontiguousarray(values)
            line |= {"type": values.dtype.str, "shape": values.shape, "length": values.nbytes}
        replies.write(json.dumps(line).encode() + b"\n")
        if values is not None:
            replies.write(values.reshape(-1).view(np.uint8).data)
        replies.flush()
        del owner


def main() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a native library prints must not get between the replies
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
