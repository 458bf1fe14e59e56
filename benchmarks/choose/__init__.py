"""Choosing among bundles: which detector, backend and precision suit this machine."""
