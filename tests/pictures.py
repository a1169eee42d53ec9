"""`make pictures`: the pictures of the documents, taken from the running programs."""

import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from services.shared.photographs import installed

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Writes `docs/demo.svg`, what `make demo` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "clients.demo"], capture_output=True, text=True, check=True
    )
    text = done.stdout
    for path in installed():  # only the names are of interest
        text = text.replace(str(path), path.name)
    console = Console(record=True, width=72, file=StringIO())
    console.print(Text("$ make demo", style="bold green"))
    console.print(Text(text))
    (DOCS / "demo.svg").write_text(console.export_svg(title="make demo"))


if __name__ == "__main__":
    main()
