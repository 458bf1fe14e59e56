"""Measures bundles: speed, accuracy, and what each backend costs."""
