"""Where Mosec and LitServe live: an environment of their own, made on demand.

It sees our packages behind its own, so that torch, OpenVINO, simplejpeg, Pillow and NumPy are the
very files that our server runs: no version can differ, and nothing is downloaded twice.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

VENV = Path("data/bench/peers")
PEERS = ("mosec==0.9.8", "litserve==0.2.19")
PYTHON = VENV / "bin" / "python"


def install() -> None:
    """Makes it, unless it is there with these versions."""
    mark = VENV / "installed"
    if mark.is_file() and mark.read_text() == " ".join(PEERS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *PEERS], check=True)
    ours = sysconfig.get_path("purelib")
    (packages,) = VENV.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(f"{ours}\n")  # only now: pip should not count on them
    mark.write_text(" ".join(PEERS))
