"""Coverage-guided fuzzing of the header reader and the decoder, with the corpus as seeds.

    pip install atheris
    python tests/fuzz_pixels.py -max_total_time=60

Any libFuzzer flag may follow. What breaks them is left as `crash-*` in the current folder.
"""

import importlib
import sys
import tempfile
from pathlib import Path

DEFAULTS = ["-timeout=20", "-rss_limit_mb=3072", "-max_len=65536"]
SEED_BYTES = 65_536  # the few larger ones are about time and memory, not about branches


def decode(content: bytes) -> None:
    """What a server does with an upload: nothing but a typed error may come of it."""
    from services.shared import errors, header, pixels

    header.read(content)
    try:
        upright_HW3 = pixels.decode(content)
    except errors.ImageError:
        return
    square, _ = pixels.crop(upright_HW3)
    assert square.shape == (224, 224, 3)


def write_seeds(folder: str) -> None:
    """Puts the smaller files of the corpus into a folder."""
    from tests import corpus

    for case in corpus.everything():
        if len(case.content) <= SEED_BYTES:
            Path(folder, case.name).write_bytes(case.content)


def main() -> None:
    """Hands over to libFuzzer, which ends the process."""
    atheris = importlib.import_module("atheris")  # here, so that tests need not have it
    with atheris.instrument_imports(include=["PIL", "services.shared"]):
        importlib.import_module("services.shared.pixels")
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(folder)
        atheris.Setup([sys.argv[0], *DEFAULTS, *sys.argv[1:], folder], decode)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
