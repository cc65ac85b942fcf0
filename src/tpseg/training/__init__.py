"""A run from its settings to its model: steps, losses, saving, signals, several processes, repetition."""
