"""Metrics, by what they measure: ranking, diversity, calibration, pointwise predictions."""
