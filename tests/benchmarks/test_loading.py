"""The loading benchmark: what it measures, on images of a few pixels; the speeds are for an idle machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import loading
from tpseg.data.pairs import read_pair


def test_its_images_cost_as_much_to_decode_as_photographs(tmp_path: Path) -> None:
    """JPEGs of photographs take about two bits a pixel at this quality; noise takes five, a smooth gradient a fifth of one."""
    data = loading.make_data(tmp_path / "data", ".jpg", 3, 512)
    assert 1.2 < 8 * np.mean([case.image.stat().st_size for case in data.cases]) / 512**2 < 3
    for case in data.cases:
        image, mask = read_pair(case)
        assert image.std() > 20
        assert 0.02 < mask.mean() < 0.3


def test_rates_are_images_by_time_and_the_best_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0, 9, 10, 14, 20, 22, 30, 35])
    monkeypatch.setattr(loading.time, "process_time", lambda: next(seconds))
    monkeypatch.setattr(loading.time, "perf_counter", iter(range(100)).__next__)
    assert loading.rates(lambda: 8, rounds=3) == {"per_core_second": 4, "per_clock_second": 8}  # the first round, of 9 s, warms up


def test_the_command_measures_both_formats_with_and_without_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of the process that runs the other tests too
    out = tmp_path / "loading.json"
    arguments = ["--images", "4", "--pixels", "96", "--size", "64", "--rounds", "1", "--workers", "1", "--json", str(out)]
    loading.main(arguments)
    content = json.loads(out.read_text())
    assert (content["pixels"], content["size"], content["images"]) == (96, 64, 4)
    for kind in ("JPEG", "PNG"):
        for cache in ("off", "on"):
            assert list(content[kind][cache]) == ["none", "flip", "full"]
            assert all(rate["per_core_second"] > 0 for rate in content[kind][cache].values())
            assert content[kind][f"{cache}, loader, per worker"] > 0
    printed = capsys.readouterr().out
    assert [line.split(" | ")[1] for line in printed.splitlines() if "kB" in line] == ["off", "on", "off", "on"]
