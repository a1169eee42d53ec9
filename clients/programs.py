"""Verbs of the services' own programs: `emojinet` becomes `python -m services.crawler check …`.

It is replaced by the program, so that arguments, exit status, terminal and Ctrl-C are the
program's alone, and clients import no service.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# Of commands whose arguments are the program's: all from the first that is no flag on.
PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
_PROGRAM = """
import runpy, sys
try:
    runpy.run_module("services.{service}", run_name="__main__", alter_sys=True)
except ModuleNotFoundError as missing:
    print(f"emojinet: this needs the package {{missing.name}}: "
          "pip install 'emojinet[{service}]'", file=sys.stderr)
    sys.exit(2)
"""


def run(service: str, verb: str, arguments: Sequence[str]) -> NoReturn:
    """Runs a verb in place of this process."""
    sys.stdout.flush()
    program = _PROGRAM.format(service=service)
    os.execv(sys.executable, [sys.executable, "-c", program, verb, *arguments])
