"""What is known of the machine: targets, time budgets, and which artifact to run."""
