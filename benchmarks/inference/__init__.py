"""Runs networks on pictures, in worker processes, and keeps the results."""
