"""Segment a picture with a file of `tpseg export`. Needs onnxruntime and numpy only, and Pillow to read anything but .npy.

python onnx_predict.py model.onnx photo.jpg mask.pgm skin_lesion
"""

import json
import sys

import numpy as np
import onnxruntime


def resize(values, height, width):
    """(H, W, ...) to (height, width, ...): bilinear, smoothed where it gets smaller, as training did."""
    for axis, size in enumerate((height, width)):
        scale = values.shape[axis] / size
        place = (np.arange(size)[:, None] + 0.5) * scale - 0.5 - np.arange(values.shape[axis])
        weights = np.maximum(0, 1 - np.abs(place) / max(scale, 1))
        values = np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), values, (1, axis)), 0, axis)
    return values


model, picture, out, *name = sys.argv[1:]
if picture.endswith(".npy"):
    pixels = np.load(picture)  # (H, W, 3) uint8, RGB
else:
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB"))
session = onnxruntime.InferenceSession(model)
about = json.loads(session.get_modelmeta().custom_metadata_map["tpseg"])
small = np.round(resize(pixels.astype(np.float32), about["image_size"], about["image_size"]))
image = (small / 255 - about["mean"]) / about["std"]
inputs = {"image": image.transpose(2, 0, 1)[None].astype(np.float32)}
if about["takes_task"]:
    inputs["task"] = np.array([[task["name"] for task in about["tasks"]].index(name[0])])
logits = session.run(["logits"], inputs)[0][0, 0]
mask = 1 / (1 + np.exp(-resize(logits, *pixels.shape[:2]))) > about["threshold"]
with open(out, "wb") as file:  # PGM: a grey picture that every viewer opens
    file.write(b"P5 %d %d 255\n" % mask.shape[::-1] + (mask * np.uint8(255)).tobytes())
