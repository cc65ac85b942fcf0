"""Verbs that use a model: predict, export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tpseg.cli.arguments import Outcome
from tpseg.cli.console import Split, error_console, out_console
from tpseg.core.errors import UsageError, few


def predict(
    model: str,
    inputs: list[str],
    task: str | None = None,
    all_tasks: bool = False,
    out: str = "predictions",
    probability: bool = False,
    overlay: bool = False,
    sr: bool = False,
    format: Literal["native", "png"] = "native",
    window: str | None = None,
    axis: str = "",
    tile: int | None = None,
    tta: bool = False,
    review: bool = False,
    calibrated: bool = False,
    threshold: Literal["half", "calibrated"] = "half",
    weights: str | None = None,
    trust: bool = False,
    device: str | None = None,
    batch_size: int = 8,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Segment images: a mask for each, of its own size and kind. Bad files are named and skipped; then the exit code is 1.

    PNG, JPEG, TIFF and BMP become PNG; DICOM files and series a DICOM segmentation; NIfTI, NRRD and MetaImage volumes the same
    with the same grid; videos a lossless video (.mkv). With --engine ray, for pictures, on many processes or machines, from and
    to any store (s3://...), resumed by the same command. A calibrated model warns of images that look like another task, or like
    nothing it was trained on; judgements.csv has what it makes of each. Warnings leave the exit code at 0.

    Args:
        model: Model folder, run folder or hub id.
        inputs: Files, folders, globs, or @FILE with a path per line; a folder of DICOM files is a scan for each series.
        task: Name of the task, as `tpseg info MODEL` lists them; auto for the one that each image looks most like, if 'tpseg calibrate'
            was run on the model: an image that looks like none gets no mask, and is named.
        all_tasks: Segment for every task of the model, in a folder per task.
        out: Folder for the masks; with --engine ray also a URL.
        probability: Also write the probability: 16-bit PNG, for volumes 32-bit floats in their own format.
        overlay: Also write the contour over the image: PNG, for several frames a folder of them, for a video MP4.
        sr: Also write a DICOM measurement report (area, longest diameter) of each DICOM input.
        format: native, or png for PNG masks of everything: a folder of them for several frames.
        window: Grey values of DICOM and volumes that are shown: lung, brain, ... or CENTRE,WIDTH (--window=-600,1500); by default the
            task's, else the file's.
        axis: Plane that volumes are cut in: axial, coronal, sagittal, or across voxel axis 0, 1 or 2; by default axial.
        tile: Cut images into overlapping tiles of so many pixels and blend what the model says of each; for very large images.
        tta: Average what the model says of an image and its three mirror images, in four times the time.
        review: Also write review.csv, the images that a person should look at first on top, with the Dice to expect of each mask. The
            model must have been calibrated.
        calibrated: Write the probabilities of --probability calibrated; the masks stay.
        threshold: half, or calibrated for masks at the probability that was best on val, task by task.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
        trust: Open a .pt2 file, which is a program and can do anything: only if you trust who made it.
        device: cpu, cuda, mps; by default the fastest there is.
        batch_size: Images in a forward pass.
        engine: local, or ray for many images; then inputs may be CSV files image[,task] and URLs too.
        workers: With --engine ray: processes that hold the model; by default one a GPU, or one for 4 CPUs.
        address: With --engine ray: of a Ray cluster; by default RAY_ADDRESS, else this machine.
        retry_failed: With --engine ray: try those again that failed in an earlier run.
    """
    if engine == "ray":
        if sr or format != "native" or window is not None or axis or tile is not None:
            raise UsageError(
                "--sr, --format, --window, --axis and --tile belong to --engine local; leave them out or run without --engine ray"
            )
        if tta or review or calibrated or threshold != "half":
            raise UsageError(
                "--tta, --review, --calibrated and --threshold belong to --engine local; leave them out or run without --engine ray"
            )
        if task == "auto":
            raise UsageError("--task auto belongs to --engine local; name a task, or run without --engine ray")
        from tpseg.core.progress import track
        from tpseg.inference.ray.run import predict_bulk

        bulk = predict_bulk(
            model,
            inputs,
            out,
            task=task,
            all_tasks=all_tasks,
            probability=probability,
            overlay=overlay,
            weights=weights,
            trust=trust,
            device=device,
            batch_size=batch_size,
            workers=workers,
            address=address,
            retry_failed=retry_failed,
            watch=track,
        )
        for line in bulk.complaints():
            error_console.sentence(line, style="red")
        out_console.print(f"{bulk} in {out}")
        summary = {"out": out, "masks": bulk.masks, "before": bulk.before, "failures": bulk.failures.to_dict("records")}
        return Outcome(summary, 1 if len(bulk.failures) else 0)
    if workers is not None or address is not None or retry_failed:
        raise UsageError("--workers, --address and --retry-failed belong to --engine ray; leave them out or add it")
    from tpseg.calibration.applied import apply_calibration
    from tpseg.calibration.input_check import TABLE, required_adviser, write_advice
    from tpseg.calibration.observer import CalibrationObserver
    from tpseg.calibration.review import REVIEW, write_review
    from tpseg.calibration.segmenter import Segmenter
    from tpseg.core.progress import track_calls
    from tpseg.imaging.reading.opening import find_scans
    from tpseg.inference import Declined, Failure, choose_tasks, predict_files
    from tpseg.inference.tally import Tally

    scans = find_scans(inputs)
    if calibrated and not probability:
        raise UsageError("--calibrated says how the probabilities of --probability are written; add --probability or leave it out")
    segmenter = Segmenter(model, device=device, weights=weights, trust=trust, tta=tta)
    tasks = choose_tasks(segmenter.tasks, task, all_tasks)
    adviser = required_adviser(segmenter) if task == "auto" else segmenter.adviser
    finish, reviewer = apply_calibration(segmenter, threshold=threshold == "calibrated", probabilities=calibrated, review=review)
    tally = Tally()
    with track_calls("segmenting") as watch:
        results = predict_files(
            segmenter,
            scans,
            tasks,
            Path(out),
            probability=probability,
            overlay=overlay,
            report=sr,
            png=format == "png",
            window=window,
            axis=axis,
            tile=tile,
            batch_size=batch_size,
            observer=CalibrationObserver(adviser, reviewer, finish),
            tally=tally,
            watch=watch,
        )
        unmade = [result for result in results if isinstance(result, Failure)]
    declined = [one for one in unmade if isinstance(one, Declined)]
    failures = [one for one in unmade if not isinstance(one, Declined)]
    for failure in failures:
        error_console.sentence(f"skipped: {failure.reason}", style="red")
    if adviser is not None:
        given = {scan: adviser.given[scan] for scan in scans if scan in adviser.given}
        write_advice(given, Path(out) / TABLE)
        for advice in given.values():
            for warning in advice.warnings:
                error_console.sentence(f"warning: {advice.name}: {warning}", style="yellow")
    expected = {}
    if reviewer is not None:
        review_list = reviewer.table({} if adviser is None else adviser.given)
        expects = review_list.dropna(subset="expected_dice")
        expected = {(row["file"], row["name"], row["task"]): row["expected_dice"] for row in expects.to_dict("records")}
        write_review(review_list, Path(out) / REVIEW)
        out_console.print(f"wrote {Path(out) / REVIEW}: what to look at first")
    if finish is not None:
        out_console.print(finish.said())
    out_console.print(f"segmented {len(scans) - len(unmade)} of {len(scans)} images into {out}")
    if declined:
        names = few([str(one.file) for one in declined])
        error_console.sentence(f"no mask of {len(declined)} of {len(scans)} images, which look like no task: {names}", style="yellow")
    warned = {} if adviser is None else {scan: advice.warnings for scan, advice in adviser.given.items()}
    summary = {"out": out, "images": tally.summary(expected, warned), "failures": failures, "declined": declined}
    return Outcome(summary, 1 if failures or len(unmade) == len(scans) else 0)


def export(
    model: str,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    tasks: list[str] | None = None,
    out: Path | None = None,
    data: Path | None = None,
    split: Split = "val",
    images: int = 64,
    check_sizes: list[int] | None = None,
    check_batches: list[int] = [1, 3],  # noqa: B006 - never changed
    int8: bool = False,
    calibration: int = 32,
    opset: int = 18,
    weights: str | None = None,
) -> Outcome:
    """Write a model, its gate hardened, to a file that runs without tpseg, and compare it with PyTorch.

    Exits 1 if a 32-bit file differs by more than 0.001 in a logit or agrees by less than Dice 0.999 in a mask.

    Args:
        model: Model folder, run folder or hub id.
        format: onnx, openvino (extra openvino) or torch (torch.export).
        tasks: Only these tasks, comma-separated; one needs no input `task`. By default all.
        out: The file; by default model.onnx, model.xml or model.pt2. The report is FILE.json.
        data: A tasks.yaml: compare on its images, and state what hardening costs in Dice; by default on phantoms.
        split: Which split to compare on.
        images: Compare and score at most this many of its images.
        check_sizes: Compare at these heights and widths; by default the model's.
        check_batches: Compare with so many images in a call.
        int8: Also write FILE.int8.onnx, with ranges from training images of --data, and its Dice.
        calibration: Number of those images.
        opset: Version of ONNX's operators.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
    """
    from tpseg.data.manifest import read_dataset
    from tpseg.export.exporting import export as run

    same, written = True, []
    for path, report in run(
        model,
        format,
        tasks,
        out,
        opset=opset,
        data=None if data is None else read_dataset(data),
        split=split,
        images=images,
        sizes=check_sizes,
        batches=check_batches,
        int8=int8,
        calibration=calibration,
        weights=weights,
    ):
        for table in report.tables():
            out_console.print(table)
        out_console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB) and {path.with_suffix('.json')}")
        same = same and (report.same or report.precision == "int8")
        written.append({**report.to_dict(), "file": path})
    return Outcome({"same": same, "outputs": written}, 0 if same else 1)
