"""The host machine: targets, time budgets, and which artifact to run."""
