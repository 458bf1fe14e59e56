"""The compiler: a checkpoint becomes a device bundle."""
