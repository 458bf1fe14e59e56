"""The process around a command: its output streams and its termination."""
