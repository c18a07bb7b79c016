"""`python -m lee` is the command `lee`."""

from lee.cli import app

if __name__ == "__main__":
    app(prog_name="lee")
