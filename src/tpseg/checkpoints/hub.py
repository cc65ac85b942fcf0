"""What the Hugging Face hub has, or, soon, that it cannot be asked: without a network its client tries again for a minute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from huggingface_hub import HfApi, snapshot_download

PATIENCE = 6.0
"""Seconds in which the hub has to answer a first question; the look-up of its address alone may hang for longer."""


class NotFromHub(Exception):
    """The hub did not give what was asked for; its text says why, in a few words."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form OWNER/NAME."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def fetch(name: str, patterns: Sequence[str] | None = None) -> Path:
    """The folder with the files of a hub id, as they are now or, if the hub cannot be asked, as they were fetched before.

    patterns: of the files that are wanted. Raises NotFromHub.
    """
    wanted = None if patterns is None else list(patterns)
    silence = ask(name)
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=silence is not None))
    except Exception as error:  # the hub client raises its own, httpx's and the operating system's errors
        if silence is None:
            raise NotFromHub(f"it has it, but fetching it ended with {type(error).__name__}") from error
        raise NotFromHub(f"asked for it: {type(silence).__name__}; nothing of it was fetched before") from silence


def ask(name: str) -> Exception | None:
    """Ask the hub once whether it has a model; None if it has, else what came instead, TimeoutError after PATIENCE seconds."""
    answers: SimpleQueue[Exception | None] = SimpleQueue()

    def wait_for_answer() -> None:
        try:
            HfApi().model_info(name, timeout=PATIENCE)
            answers.put(None)
        except Exception as error:  # as above
            answers.put(error)

    Thread(target=wait_for_answer, daemon=True).start()  # a look-up of an address cannot be interrupted
    try:
        return answers.get(timeout=PATIENCE)
    except Empty:
        return TimeoutError(f"no answer in {PATIENCE:g} s")
