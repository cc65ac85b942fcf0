"""Trained models on disk: the model folder, its card, the hub, the weights of trunks."""
