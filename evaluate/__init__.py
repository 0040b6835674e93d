"""What is said about predictions: figures, intervals, ensembles, thresholds."""
