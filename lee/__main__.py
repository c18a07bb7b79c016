"""The command `lee`, also as `python -m lee`."""

import sys


def main() -> None:
    """Run it; an interruption while it is imported ends in a word, too."""
    try:
        from lee.cli import app

        app(prog_name="lee")
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
