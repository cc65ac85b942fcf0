"""From where a network lies, a model folder or an exported file, to one that can be called."""

from __future__ import annotations

from pathlib import Path

from tpseg.checkpoints.model_folder import load_model
from tpseg.inference.exported import ExportedNetwork
from tpseg.inference.network import EXPORTED, Network, for_prediction


def open_network(source: Path | str, device: str | None = None, weights: str | None = None, trust: bool = False) -> Network:
    """The network that a model folder, run folder, hub id or exported file holds, for prediction only.

    weights: where the frozen trunk's file lies, as load_model takes it. trust: open a .pt2 file, a program.
    """
    if Path(source).suffix in EXPORTED:
        return ExportedNetwork(Path(source), device, trust=trust)
    return for_prediction(load_model(source, weights=weights), device)
