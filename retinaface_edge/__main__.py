"""`python -m retinaface_edge`, and the command `retinaface-edge`."""

INTERRUPTED = 130


def main() -> int:
    """Run one command; gives its exit code. Ctrl-C while the command line itself is imported ends it without a word."""
    try:
        from .cli.main import main as run
    except KeyboardInterrupt:
        return INTERRUPTED
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
