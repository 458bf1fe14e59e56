"""Training of the dense branch on a frozen detector."""
