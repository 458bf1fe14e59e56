"""Training: the detector's multi-task loss, and the dense branch on a frozen detector."""
