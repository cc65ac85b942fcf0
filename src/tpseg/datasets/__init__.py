"""Where data come from: a file for each public set and for each layout that many sets have."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from tpseg.core.errors import UsageError, nearest
from tpseg.datasets.amd_sd import AmdSd
from tpseg.datasets.btd import Btd
from tpseg.datasets.busi import Busi
from tpseg.datasets.coco import CocoSource
from tpseg.datasets.covid_19 import Covid19
from tpseg.datasets.ebhi_seg import EbhiSeg
from tpseg.datasets.folder import FolderSource
from tpseg.datasets.isic2018 import Isic2018
from tpseg.datasets.labelme import LabelmeSource
from tpseg.datasets.nnunet import NnunetSource
from tpseg.datasets.polyps import Polyps
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tnui_2021 import Tnui2021

__all__ = ["LAYOUTS", "PUBLIC", "SOURCES", "Facts", "LeftOut", "Pair", "Source", "make_source"]

PUBLIC: dict[str, type[Source]] = {source.name: source for source in (AmdSd, Btd, EbhiSeg, Tnui2021, Polyps, Covid19, Busi, Isic2018)}
"""The data sets of the paper's eight tasks, in its order."""
LAYOUTS: dict[str, type[Source]] = {source.name: source for source in (FolderSource, NnunetSource, CocoSource, LabelmeSource)}
"""Layouts that many data sets have: the user says what the task is."""
SOURCES = PUBLIC | LAYOUTS
"""All that `tpseg data prepare` knows."""


def make_source(name: str, task: str | None = None, **options: Any) -> Source:
    """A source by its name, with the options that are not None; `task` is the name of its task.

    Raises UsageError for an unknown name, and for an option that this source does not have.
    """
    if name not in SOURCES:
        raise UsageError(f"unknown source '{name}'{nearest(name, SOURCES)} (sources: {', '.join(SOURCES)})")
    accepted = _options(SOURCES[name])
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in accepted:
            takers = [other for other, kind in SOURCES.items() if key in _options(kind)]
            raise UsageError(f"--{key.replace('_', '-')}: '{name}' has no such option; it is for {', '.join(takers)}")
    if task is not None and "task" in accepted:
        given["task"] = task
    source = SOURCES[name](**given)
    if task is not None and "task" not in accepted:
        source.task = replace(source.task, name=task)
    return source


def _options(kind: type[Source]) -> list[str]:
    return list(inspect.signature(kind).parameters)
