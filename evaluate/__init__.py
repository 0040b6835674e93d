"""Judge predictions: metrics, intervals, ensembles, calibration and thresholds."""
