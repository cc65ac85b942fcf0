"""The errors that speak to the person who made the mistake.

Every message names the file or key at fault, what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

LONGEST = 1500
"""Letters of a message: a file's own words may be in it, and they may be millions. The middle is cut: a loading process's error
ends with the sentence that counts, after its stack trace."""


OBJECT = re.compile(r""" ?<[\w.]+(?: object)?(?: at 0x[0-9a-fA-F]+| name=(?:'[^']*'|"[^"]*"))>""")
"""How Python writes an object that has no name: libraries put the file they were given into their messages."""


class TPSegError(Exception):
    """Base of all errors that a user can mend. The CLI prints the message without a stack trace."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        message, half = OBJECT.sub("", message), LONGEST // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:half]} ... (cut) ... {message[-half:]}")


class UsageError(TPSegError):
    """A wrong option, key or name: exit code 2."""

    exit_code = 2


class DataError(TPSegError):
    """A file that is missing, unreadable or not what it claims to be: exit code 1."""


def install(extra: str) -> str:
    """`pip install '.[dicom]' in a checkout of tpseg`: how to get an extra. The package index has no tpseg that one could name there."""
    return f"pip install '.[{extra}]' in a checkout of tpseg"


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the choice closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def few(names: Sequence[str], shown: int = 5) -> str:
    """`a, b, c and 4 more`: the first names of a list, the others counted."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
