"""INT8: calibration images, ranges, and the quantised model."""
