"""From a tasks.yaml to batches: manifest, splits, preprocessing, sampling, cache."""
