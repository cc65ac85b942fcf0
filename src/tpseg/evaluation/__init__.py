"""What a prediction is worth: metrics, protocols, tables of scores, two evaluations compared."""
