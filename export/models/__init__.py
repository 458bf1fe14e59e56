"""The PyTorch models: the detector, its deploy form, and the dense branch."""
