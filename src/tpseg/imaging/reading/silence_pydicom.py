"""pydicom told to keep to itself what it reads."""

from __future__ import annotations

import logging
import warnings

from pydicom import config


def keep_quiet() -> None:
    """No warnings of odd values, for they quote them, a patient's name among them; no stack traces of frames that cannot be decoded.

    For the whole process: pydicom has no narrower switch that threads could share.
    """
    config.settings.reading_validation_mode = config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
