"""Counting a frame under QEMU: the plugin, the program in the ARM64 user space, and their output."""
