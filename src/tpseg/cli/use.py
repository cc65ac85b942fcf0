"""Verbs that use a model: predict, export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tpseg.cli.words import Split, error_console, out_console
from tpseg.errors import UsageError


def predict(
    model: str,
    inputs: list[str],
    task: str | None = None,
    all_tasks: bool = False,
    out: str = "predictions",
    probability: bool = False,
    overlay: bool = False,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
) -> int:
    """Segment images: a mask for each, of its own size. Bad files are named and skipped; then the exit code is 1.

    With --engine ray on many processes or machines, from and to any store (s3://...), resumed by the same command.

    Args:
        model: Model folder, run folder or hub id.
        inputs: Files, folders, globs, or @FILE with a path per line.
        task: Name of the task, as `tpseg info MODEL` lists them.
        all_tasks: Segment for every task of the model, in a folder per task.
        out: Folder for the masks; with --engine ray also a URL.
        probability: Also write the probability as 16-bit PNG.
        overlay: Also write the contour over the image.
        weights: File of the frozen trunk, if it is not where the model's config.json says.
        device: cpu, cuda, mps; by default the fastest there is.
        batch_size: Images in a forward pass.
        engine: local, or ray for many images; then inputs may be CSV files image[,task] and URLs too.
        workers: With --engine ray: processes that hold the model; by default one a GPU, or one for 4 CPUs.
        address: With --engine ray: of a Ray cluster; by default RAY_ADDRESS, else this machine.
        retry_failed: With --engine ray: try those again that failed in an earlier run.
    """
    from tpseg.progress import track

    if engine == "ray":
        from tpseg.bulk.run import predict_bulk

        bulk = predict_bulk(
            model,
            inputs,
            out,
            task=task,
            all_tasks=all_tasks,
            probability=probability,
            overlay=overlay,
            weights=weights,
            device=device,
            batch_size=batch_size,
            workers=workers,
            address=address,
            retry_failed=retry_failed,
            watch=track,
        )
        for line in bulk.complaints():
            error_console.print(line, style="red")
        out_console.print(f"{bulk} in {out}")
        return 1 if len(bulk.failures) else 0
    if workers is not None or address is not None or retry_failed:
        raise UsageError("--workers, --address and --retry-failed belong to --engine ray; leave them out or add it")
    from tpseg.prediction import Failure, Segmenter, choose_tasks, find_images, predict_files

    files = find_images(inputs)
    segmenter = Segmenter(model, device=device, weights=weights)
    tasks = choose_tasks(segmenter.tasks, task, all_tasks)
    results = predict_files(segmenter, files, tasks, Path(out), probability=probability, overlay=overlay, batch_size=batch_size)
    failures = [result for result in track(results, len(files), "segmenting") if isinstance(result, Failure)]
    for failure in failures:
        error_console.print(f"skipped: {failure.reason}", style="red")
    out_console.print(f"segmented {len(files) - len(failures)} of {len(files)} images into {out}")
    return 1 if failures else 0


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
) -> int:
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
        weights: File of the frozen trunk, if it is not where the model's config.json says.
    """
    from tpseg.data.manifest import read_dataset
    from tpseg.export.conduct import export as run

    same = True
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
    return 0 if same else 1
