"""One scan on its way through the network: cut into pieces, loaded, answered, put together, written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tpseg.core.errors import DataError, TPSegError
from tpseg.core.files import ends_all, why_not_written
from tpseg.core.memory import OutOfMemory, is_out_of_memory
from tpseg.data.preprocessing import resize_map
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES
from tpseg.imaging.reading.opening import VIDEO_SUFFIXES, Found, open_scan, suffix_of
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.tiles import TiledFrame, Tiling
from tpseg.imaging.writing.results import Map, Part, Sink, Target, Wanted, open_sinks
from tpseg.inference.observer import Observer
from tpseg.inference.segmenter import Answer, Loaded, Segmenter, by_window
from tpseg.inference.tally import Tally

TILES = 4
"""Times the side of the network's input that a tile has which is advised."""


@dataclass(frozen=True)
class Plan:
    """What is to be done with every scan."""

    segmenter: Segmenter
    tasks: Sequence[str]
    out: Path
    folders: Mapping[str, Path]
    """Of the files that each task has for itself."""
    wanted: Wanted
    window: str | None
    axis: str
    tile: int | None
    observer: Observer | None = None
    """Sees each scan before it is segmented, what the network says of it, and its masks before they are written."""
    tally: Tally | None = None
    """Counts what was found and names what was written."""


@dataclass(frozen=True)
class Failure:
    """A file that could not be segmented, and why."""

    file: Path
    reason: str


class Declined(Failure):
    """A file without a mask because it looks like none of the model's tasks, and none was named."""


@dataclass(frozen=True)
class View:
    """A scan as some of the tasks see it: through the same window."""

    scan: Scan
    tasks: Sequence[str]


@dataclass(eq=False)
class Piece:
    """What the network sees at a time: a frame, or a tile of one."""

    job: Job
    last: bool
    """Whether no other piece of the scan follows."""
    view: View | None = None
    """None: nothing to segment, the scan has ended early."""
    index: int = 0
    """Of the frame."""
    frame: TiledFrame | None = None
    corner: tuple[int, int] = (0, 0)
    """First row and column of the tile."""
    loaded: Loaded | None = None
    """None before loading, and if it failed."""
    part: Part | None = None
    """Of a whole frame, when it is answered."""
    weighed: dict[str, np.ndarray] = field(default_factory=dict)
    """Of a tile, when it is answered: weighed logits (side, side) by task."""

    @property
    def tasks(self) -> Sequence[str]:
        """That the network is asked for; none of a piece that is not loaded."""
        return () if self.loaded is None or self.view is None else self.view.tasks


class Job:
    """A scan with its views and the files its results go to; what goes wrong is kept in `failure` and told when the scan ends."""

    def __init__(
        self,
        found: Found,
        plan: Plan,
        views: Sequence[View] = (),
        sinks: Sequence[Sink] = (),
        failure: str | None = None,
        ending: type[Failure] = Failure,
    ) -> None:
        """ending: what is told of the failure."""
        self.found, self.plan, self.views, self.sinks, self.failure, self.ending = found, plan, views, list(sinks), failure, ending

    def count(self) -> int:
        """How many pieces there are; 1 if the scan cannot be opened."""
        return sum(view.scan.frames * len(self._tiles(view)) for view in self.views) or 1

    def pieces(self) -> Iterator[Piece]:
        """In order; the last one says so. After a failure none follows but one that ends the scan."""
        left = self.count()
        for index in range(self.views[0].scan.frames if self.views else 0):
            for view in self.views:
                frame = self._tiled(view, index)
                for corner in self._tiles(view):
                    if self.failure is not None:
                        yield Piece(self, last=True)
                        return
                    left -= 1
                    yield Piece(self, left == 0, view, index, frame, corner)
        if not self.views:
            yield Piece(self, last=True)

    def load(self, piece: Piece) -> None:
        """Decode and resize a piece; from several threads."""
        if self.failure is not None or piece.view is None:
            return
        with self._failing():
            pixels = piece.view.scan.frame(piece.index) if piece.frame is None else piece.frame.cut(*piece.corner)
            piece.loaded = self.plan.segmenter.load(pixels)

    def record(self, piece: Piece, answers: Sequence[Answer]) -> None:
        """Take what the network says of a piece, a task each; from several threads."""
        if self.failure is not None or piece.loaded is None:
            return
        with self._failing():
            if self.plan.observer is not None:
                for answer in answers:
                    self.plan.observer.after(self.found, answer)
            if piece.frame is not None:
                side = (piece.frame.tiling.side,) * 2
                piece.weighed = {answer.task: piece.frame.tiling.weigh(resize_map(answer.logits, side).numpy()) for answer in answers}
            else:
                maps = {answer.task: self._map(answer.task, answer.probability()) for answer in answers}
                piece.part = Part(piece.index, maps, piece.loaded.image if self.plan.wanted.overlay else None)
                self._write(piece.part)
        piece.loaded = None  # the pixels are needed no longer

    def settle(self, piece: Piece) -> Path | Failure | None:
        """Take the pieces in order, from one thread; after the last one, the scan's path, or why it failed."""
        if self.failure is None:
            with self._failing():
                if piece.frame is not None:
                    piece.frame.add(*piece.corner, piece.weighed)
                    if piece.corner == piece.frame.tiling.last:
                        piece.part = self._assemble(piece.frame)
                        self._write(piece.part)
                if piece.part is not None:
                    for sink in self.sinks:
                        sink.append(piece.part)
                    if self.plan.tally is not None:
                        self.plan.tally.add(self.found, piece.part)
        return self._end() if piece.last else None

    def cancel(self) -> None:
        """Leave nothing behind."""
        while self.sinks:
            self.sinks.pop().cancel()

    def _end(self) -> Path | Failure:
        written: list[Path] = []
        try:
            with self._failing():
                while self.failure is None and self.sinks:
                    self.sinks[0].finish()
                    written += self.sinks.pop(0).outputs()
        finally:
            self.cancel()
        if self.plan.observer is not None:
            self.plan.observer.close(self.found, self.failure is None)
        if self.plan.tally is not None and self.failure is None:
            self.plan.tally.close(self.found, self.views[0].scan, written)
        return self.found.path if self.failure is None else self.ending(self.found.path, self.failure)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Keep what goes wrong with this scan; raises what would go wrong with every other one too, such as a full disk."""
        try:
            yield
        except OutOfMemory as error:
            self.failure = why_failed(self.found, self.plan, error)
        except TPSegError as error:
            self.failure = str(error)
        except (OSError, MemoryError, RuntimeError) as error:
            self.failure = why_failed(self.found, self.plan, error)

    def _write(self, part: Part) -> None:
        for sink in self.sinks:
            sink.write(part)

    def _map(self, task: str, probability: np.ndarray) -> Map:
        return self._finished(task, probability > 0.5, probability if self.plan.wanted.probability else None)

    def _finished(self, task: str, mask: np.ndarray, probability: np.ndarray | None) -> Map:
        return Map(mask, probability) if self.plan.observer is None else Map(*self.plan.observer.finish(task, mask, probability))

    def _tiles(self, view: View) -> Collection[tuple[int, int]]:
        return [(0, 0)] if self.plan.tile is None else Tiling(view.scan.size, self.plan.tile)

    def _tiled(self, view: View, index: int) -> TiledFrame | None:
        if self.plan.tile is None:
            return None
        wanted = self.plan.wanted
        return TiledFrame(view.scan, index, view.tasks, self.plan.tile, probability=wanted.probability, picture=wanted.overlay)

    def _assemble(self, frame: TiledFrame) -> Part:
        maps = {task: self._finished(task, blend.mask, blend.probability) for task, blend in frame.finish().items()}
        return Part(frame.index, maps, frame.picture, frame.factor)


def open_job(found: Found, name: str, plan: Plan) -> Job:
    """Open a scan for each window that the tasks see it through. Raises UsageError for what ails not the file but the command."""
    flat = not found.path.is_dir() and suffix_of(found.path) in IMAGE_SUFFIXES + VIDEO_SUFFIXES  # shown as they are, without a window
    try:
        asked = plan.tasks
        window = "" if flat else plan.window or ""
        checked = None if plan.observer is None else plan.observer.before(found, asked, window=window, axis=plan.axis, tile=plan.tile)
        if checked is not None:
            asked = checked.tasks
            if not asked:
                return Job(found, plan, failure=f"{found.path}: {checked.warnings[0]}", ending=Declined)
        groups = {"": list(asked)} if flat else by_window(plan.segmenter.tasks, asked, plan.window)
        views = [View(open_scan(found, window=window, axis=plan.axis), tasks) for window, tasks in groups.items()]
        known = plan.segmenter.tasks
        tasks = [known[known.id(task)] for task in asked]
        folders = {task: plan.folders[task] for task in asked}  # of all tasks where `auto` might have found any
        target = Target(name, folders, plan.out, plan.segmenter.named if plan.wanted.overlay else "")
        sinks = open_sinks(views[0].scan, target, tasks, plan.wanted, lambda: plan.segmenter.identity)
        return Job(found, plan, views, sinks)
    except DataError as error:
        return Job(found, plan, failure=str(error))
    except (OSError, MemoryError, RuntimeError) as error:
        return Job(found, plan, failure=why_failed(found, plan, error))


def why_failed(found: Found, plan: Plan, error: Exception) -> str:
    """Why a scan's results are not there, in a sentence; raises what is no fault of one scan."""
    if is_out_of_memory(error) or isinstance(error, OutOfMemory):
        advice = "take a machine with more memory"
        if plan.tile is None and suffix_of(found.path) in IMAGE_SUFFIXES:
            advice = f"segment it in tiles: --tile {TILES * plan.segmenter.image_size}"
        return f"{found.path}: is too large for the memory there is; {advice}"
    if not isinstance(error, OSError) or ends_all(error):
        raise error
    return f"{found.path}: its results cannot be written: {why_not_written(error)}"
