"""Runs networks on pictures, in worker processes or on a cluster, and keeps what was measured."""
