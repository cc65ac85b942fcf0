"""How a run that was stopped says it goes on, and which batch it says would fit."""

from __future__ import annotations

import os
import signal

import pytest

from tpseg.core.memory import divisors, halves, largest_that_fits
from tpseg.training.failures import dead_worker
from tpseg.training.signals import StopRequest, how_to_continue


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/usr/bin/tpseg", "train", "--out", "my runs"], "continue with: tpseg train --out 'my runs' --resume"),
        (["/usr/bin/tpseg", "train", "--out", "a", "--resume"], "continue with: tpseg train --out a --resume"),
        (["/usr/bin/tpseg", "study", "table3"], "continue with: tpseg study table3"),
        (["/x/tpseg/cli/__main__.py", "add-task", "m"], "continue with: tpseg add-task m --resume"),
        (["notebook.py"], "continue with resume=True"),
    ],
)
def test_the_command_that_goes_on(monkeypatch, words, said):
    monkeypatch.setattr("sys.argv", words)
    assert how_to_continue() == said


@pytest.mark.parametrize(("limit", "fits"), [(7, 4), (4, 4), (3, 2), (1, 1), (0, 0)])
def test_of_the_parts_of_a_batch_the_largest_that_fits_is_found_from_below(limit, fits):
    tried: list[int] = []
    assert largest_that_fits(lambda images: (tried.append(images), images <= limit)[1], [1, 2, 4]) == fits
    assert tried == [images for images in (1, 2, 4) if images <= 2 * limit or images == 1]  # 8 did not fit: that is how it began


@pytest.mark.parametrize(("batch", "parts", "halved"), [(12, [1, 2, 3, 4, 6], [1, 3, 6]), (7, [1], [1, 3]), (1, [], [])])
def test_a_step_of_training_keeps_its_images_and_prediction_halves(batch, parts, halved):
    """Four accumulated passes of 2 images would make 8 of 7; in prediction nothing has to add up."""
    assert divisors(batch) == parts
    assert halves(batch) == halved


def test_a_loading_process_that_dies_while_it_hands_over_a_batch_is_told_by_its_connection():
    reset = ConnectionResetError(104, "Connection reset by peer")
    said = "one of the sampling.workers = 2 processes that load images ended without a word"
    assert said in str(dead_worker(reset, 2, "nothing is saved yet"))
    assert dead_worker(reset, 0, "nothing is saved yet") is None
    assert dead_worker(OSError(28, "No space left on device"), 2, "nothing is saved yet") is None


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.default_int_handler])
def test_a_signal_that_was_ignored_stays_so_and_all_are_given_back(before):
    """A shell starts what runs in the background with Ctrl-C ignored: it is meant for what runs in front."""
    was = signal.signal(signal.SIGINT, before)
    try:
        with StopRequest() as stop:
            stop.listen()
            assert (signal.getsignal(signal.SIGINT) is before) == (before is signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal == (None if before is signal.SIG_IGN else signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, was)
