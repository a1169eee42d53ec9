"""Our crawler without perceptual hashing, which it never runs without but in `make bench-crawl`.

`python -m tests.bench.hashless` is `services.crawler` with another look in its prescalers, which
it starts as `python -m tests.bench.hashless --niceness …`.
"""

import sys

from services.crawler import prescaled, prescaler

if __name__ == "__main__":
    import typer

    if any(flag.startswith("--niceness") for flag in sys.argv):
        prescaled.look = lambda pixels_HW3: (bytes(32), 0)
        typer.run(prescaler.main)
    else:
        from services.crawler import __main__ as program

        program.PRESCALER = "tests.bench.hashless"
        program.app()
