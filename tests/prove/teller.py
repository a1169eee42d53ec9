"""The trainer's own program, which tells of every step, not once a second: see `resume.py`."""

from services.trainer import __main__ as program
from services.trainer import train

if __name__ == "__main__":
    train.TELL_SECONDS = -1.0
    program.app()
