"""One DICOM file: its header, checked against what is in the file, and its pixels as they are stored, frame by frame."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
    SegmentationStorage,
)

from tpseg.core.errors import DataError, install
from tpseg.imaging.reading.decoding import decoders
from tpseg.imaging.reading.guarding import guard_frame, guard_volume, reading
from tpseg.imaging.reading.silence_pydicom import keep_quiet
from tpseg.imaging.reading.sniffing import looks_like_dicom

keep_quiet()

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
PIXEL_ELEMENTS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
VALUE_TYPES = (b"OB", b"OW", b"OF", b"OD")
"""What stands between the element's tag and its length where types are explicit."""
UNDEFINED = 0xFFFFFFFF
"""The length of compressed pixels, which come in fragments."""
FRAGMENT = b"\xfe\xff\x00\xe0"
"""How the first of these fragments begins."""
SMALLEST_FRAGMENT = 10
"""Bytes that a compressed frame takes at least: an item's tag and length, and two of content."""
GREYS = ("MONOCHROME1", "MONOCHROME2")
WIDTHS = (1, 8, 16, 32, 64)
"""Bits that a value may take in the file."""
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomFile:
    """A DICOM file that holds an image. Opening reads its header; `stored` reads one frame and may be called from several threads."""

    path: Path
    header: Dataset
    """All elements before the pixels."""
    frames: int
    size: tuple[int, int]
    photometric: str
    _inflated: bytes | None = None
    """All pixels, where the file is deflated as a whole."""
    _shift: int = 0
    """Unused bits below those of a value: old scanners left-align their 12 bits in 16."""

    def __init__(self, path: Path) -> None:
        """Raises DataError for a file that is damaged, no DICOM, without an image, or larger than can be read."""
        self.path = path
        with reading(path, "DICOM", quoting=False):
            if not looks_like_dicom(path):
                raise DataError(f"{path}: not a DICOM file; it begins with neither DICOM's preamble nor a DICOM element")
            if is_deflated(path):
                self._read_deflated()
            else:
                self._read()
            self._describe()
            self._check_length()

    def stored(self, index: int) -> tuple[np.ndarray, str]:
        """Frame `index` as stored, (H, W) or (H, W, 3) of the file's number type, and its photometric interpretation.

        Subsampled colours are filled in, unused bits above and below dropped. Raises DataError if it cannot be decoded.
        """
        with reading(self.path, "DICOM"):
            if self._inflated is not None:
                values, found = get_decoder(self._syntax).as_array(self._inflated, index=index, raw=True, **self._options)
                photometric = str(found["photometric_interpretation"])
            else:
                with self.path.open("rb") as file:
                    file.seek(self._start)
                    if self._syntax in (*NATIVE, RLELossless):  # decoded by pydicom itself
                        values, found = get_decoder(self._syntax).as_array(file, index=index, raw=True, **self._options)
                        photometric = str(found["photometric_interpretation"])
                    else:
                        options = {**self._options, "number_of_frames": 1}
                        offsets = options.pop("extended_offsets", None)
                        stream = get_frame(file, index, number_of_frames=self.frames, extended_offsets=offsets)
                        values, photometric = self._decoded(stream, index, options)
        if values.shape[:2] != self.size:
            height, width = values.shape[:2]
            raise DataError(f"{self.path}: frame {index + 1} is {width}x{height}, its header says {self.size[1]}x{self.size[0]}")
        return self._aligned(values, index) if self._shift else values, photometric

    def _aligned(self, values: np.ndarray, index: int) -> np.ndarray:
        """Values whose lowest bit is bit 0; raises DataError where they plainly are so already."""
        plain = values.view(f"u{values.dtype.itemsize}")
        if (plain & (1 << self._shift) - 1).any() and not (plain >> int(self.header.BitsStored)).any():
            raise DataError(
                f"{self.path}: its header says that values end at bit {self.header.HighBit}, but those of frame {index + 1} end at bit "
                f"{int(self.header.BitsStored) - 1} or below; correct HighBit, or export the image again"
            )
        return values >> self._shift

    def _decoded(self, stream: bytes, index: int, options: dict[str, Any]) -> tuple[np.ndarray, str]:
        try:
            return decoders().frame(self._syntax, stream, options)
        except ValueError as error:
            reason = "no decoder understands it" if "all available plugins" in str(error) else str(error)
            raise DataError(
                f"{self.path}: frame {index + 1} cannot be decoded as {self._syntax.name} ({reason}); "
                "is the file complete, and its transfer syntax right?"
            ) from error

    def colour_bits(self, stored: np.ndarray) -> int:
        """Bits of a colour sample; a decoder may have returned fewer than the header says."""
        return min(8 * stored.dtype.itemsize, int(self.header.get("BitsStored") or self.header.BitsAllocated))

    def _read(self) -> None:
        """The header, and which element holds the pixels, where it starts and how long it says it is."""
        with self.path.open("rb") as file:
            self.header = dcmread(file, stop_before_pixels=True, force=True)
            element = file.tell()
            head = file.read(16)
            length = os.fstat(file.fileno()).st_size
        order = "<" if self.header.original_encoding[1] else ">"
        tag = 0
        if len(head) >= 12:
            group, number = struct.unpack(f"{order}HH", head[:4])
            tag = group << 16 | number
        self._keyword = self._pixel_keyword(PIXEL_ELEMENTS.get(tag, ""))
        explicit = head[4:6] in VALUE_TYPES  # what the file is, whatever its transfer syntax says
        self._type = head[4:6].decode() if explicit else ""
        value = 12 if explicit else 8
        (declared,) = struct.unpack(f"{order}L", head[value - 4 : value])
        self._start = element + value
        self._fragmented = declared == UNDEFINED or head[value : value + 4] == FRAGMENT
        self._available = min(declared, length - self._start)

    def _read_deflated(self) -> None:
        """The same of a file that is deflated as a whole; its pixels are kept in memory."""
        self.header = dcmread(self.path, force=True)
        self._keyword = self._pixel_keyword(next((word for word in PIXEL_ELEMENTS.values() if word in self.header), ""))
        self._inflated = bytes(self.header[self._keyword].value)
        del self.header[self._keyword]
        self._start, self._available = 0, len(self._inflated)
        self._fragmented, self._type = False, ""

    def _pixel_keyword(self, found: str) -> str:
        """The pixel element's name as found; raises DataError where there is none, or none of an image."""
        kind = UID(self.header.get("SOPClassUID") or self.header.file_meta.get("MediaStorageSOPClassUID", ""))
        if kind == SegmentationStorage:
            raise DataError(f"{self.path}: a DICOM Segmentation, which holds masks; expected the image they were drawn on")
        if not found:
            name = f"DICOM {kind.name}" if kind and kind.name != kind else "DICOM file"
            raise DataError(f"{self.path}: a {name} without pixels; expected an image")
        return found

    def _describe(self) -> None:
        header = self.header
        missing = [
            word
            for word in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
            if header.get(word) in (None, "")
        ]
        if missing:
            raise DataError(f"{self.path}: no {' and no '.join(missing)} in its header; expected a complete DICOM image")
        self.frames = int(header.get("NumberOfFrames") or 1)
        self.size = (int(header.Rows), int(header.Columns))
        self.photometric = str(header.PhotometricInterpretation)
        guard_frame(self.path, *self.size)
        samples = int(header.SamplesPerPixel)
        expected = {**dict.fromkeys((*GREYS, "PALETTE COLOR"), 1), **dict.fromkeys(COLOURS, 3)}
        if expected.get(self.photometric) != samples:
            known = ", ".join(expected)
            found = self.photometric if self.photometric in expected else "unknown"  # no words of the file
            raise DataError(f"{self.path}: photometric interpretation {found} with {samples} samples per pixel; expected one of {known}")
        if header.BitsAllocated not in WIDTHS:
            raise DataError(f"{self.path}: {header.BitsAllocated} bits allocated; expected {', '.join(map(str, WIDTHS))}")
        if self.photometric in COLOURS and self.photometric != "RGB" and header.BitsAllocated != 8:
            raise DataError(f"{self.path}: {self.photometric} of {header.BitsAllocated} bits; expected 8, or RGB")
        if self.frames < 1:
            raise DataError(f"{self.path}: its header says {self.frames} frames; expected one or more")
        self._syntax = self._transfer_syntax()
        self._options: dict[str, Any] = as_pixel_options(header, number_of_frames=self.frames, pixel_keyword=self._keyword)
        self._options.setdefault("pixel_representation", 0)
        self._options.setdefault("bits_stored", self._options["bits_allocated"])
        if samples > 1:
            self._options.setdefault("planar_configuration", 0)
        if self._type:
            self._options["pixel_vr"] = self._type  # big-endian bytes may be stored as words
        if self._keyword != "PixelData":
            for integers_only in ("pixel_representation", "bits_stored"):
                self._options.pop(integers_only)
        else:
            self._align()

    def _align(self) -> None:
        """Where in its bits a value lies, by HighBit; raises DataError where the header contradicts itself."""
        allocated, stored = int(self._options["bits_allocated"]), int(self._options["bits_stored"])
        high = int(self.header.get("HighBit", stored - 1))
        if high == stored - 1 or stored >= allocated:  # all bits are used, whatever HighBit says
            return
        shown = f"{self.path}: its header says that values of {stored} bits end at bit {high} of {allocated}"
        if not stored <= high < allocated:
            raise DataError(f"{shown}; expected bit {stored - 1} to {allocated - 1}: correct HighBit, or export the image again")
        if self._syntax not in (*NATIVE, RLELossless):
            raise DataError(f"{shown}; of compressed pixels bit {stored - 1} is expected: export the image again, uncompressed")
        self._shift = high + 1 - stored
        self._options["bits_stored"] = high + 1

    def _transfer_syntax(self) -> UID:
        """How the pixels are encoded; raises DataError where the file contradicts itself or no decoder is installed."""
        implicit, little = not self._type and self._inflated is None, self.header.original_encoding[1]
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        claimed = UID(self.header.file_meta.get("TransferSyntaxUID", native))
        shown = claimed.name if claimed.is_transfer_syntax else "an unknown transfer syntax"
        if claimed.is_private:
            raise DataError(f"{self.path}: a private transfer syntax; export the image again as standard DICOM")
        if claimed == DeflatedExplicitVRLittleEndian or (claimed.is_transfer_syntax and not claimed.is_compressed):
            if self._fragmented:
                raise DataError(f"{self.path}: its header says {shown}, but its pixels are compressed; the transfer syntax in it is wrong")
            return native  # a header that lies about how it is itself encoded has been seen through by now
        if not self._fragmented:
            raise DataError(f"{self.path}: its header says {shown}, but its pixels are not compressed; export the image again")
        try:
            available = get_decoder(claimed).is_available
        except NotImplementedError:
            raise DataError(
                f"{self.path}: compressed as {shown}, which cannot be decoded; export the image uncompressed, or as a video file"
            ) from None
        twelve_bits = claimed == JPEGExtended12Bit and int(self.header.get("BitsStored") or 12) > 8
        if twelve_bits and "pylibjpeg" not in get_decoder(claimed).available_plugins:
            raise DataError(
                f"{self.path}: compressed as {claimed.name} with 12 bits, which only pylibjpeg-libjpeg decodes; "
                "install it with: pip install pylibjpeg-libjpeg"
            )
        if not available:
            raise DataError(
                f"{self.path}: compressed as {claimed.name}, and no decoder for it is installed; install one with: {install('dicom')}"
            )
        return claimed

    def _check_length(self) -> None:
        """Raises DataError if the file holds fewer, or more, pixels than its header says."""
        height, width = self.size
        shown = f"{self.frames} frames of {width}x{height}"
        if self._fragmented:
            if self.frames * SMALLEST_FRAGMENT > self._available:
                raise DataError(f"{self.path}: its header says {shown}, too many for {self._available:,} bytes; is it complete?")
            return
        samples = 2 if self.photometric == "YBR_FULL_422" else int(self.header.SamplesPerPixel)
        frame_bits = height * width * samples * int(self.header.BitsAllocated)
        expected = -(-frame_bits * self.frames // 8)
        if self._available < expected:
            raise DataError(
                f"{self.path}: its header says {shown}, {expected:,} bytes, but {self._available:,} bytes of pixels are there; "
                "is it complete, and its header right?"
            )
        excess = self._available - expected - expected % 2
        if excess > 0 and excess * 16 >= frame_bits:  # half a frame or more is no padding
            raise DataError(
                f"{self.path}: its header says {shown}, {expected:,} bytes, but {self._available:,} bytes of pixels are there; "
                f"{'is it RGB or YBR_FULL? ' if samples == 2 else ''}correct the header, or export the image again"
            )


def is_deflated(path: Path) -> bool:
    """Whether a file is deflated as a whole; raises DataError if it would inflate to more than MAX_VOLUME_BYTES."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return False
        file.seek(144 + meta.FileMetaInformationGroupLength)  # preamble, DICM, the length itself, and what it counts
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        size, packed = 0, file.read(2**20)
        while packed and not inflater.eof:
            size += len(inflater.decompress(packed, 2**26))
            guard_volume(path, 2 * size, "export it again without deflation")  # inflated it is held twice for a moment
            packed = inflater.unconsumed_tail or file.read(2**20)
    return True
