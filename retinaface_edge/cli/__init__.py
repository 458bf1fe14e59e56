"""The command line: one file per group of verbs, `main` as the entry point."""
