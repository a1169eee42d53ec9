"""One of our programs, with the clocks of its control divided: `hurried.py FACTOR MODULE FLAGS…`.

Servers renew connections sooner, and clients look names up sooner; all else takes what it takes.
"""

import runpy
import sys

from clients import client
from services.shared import harness

if __name__ == "__main__":
    factor, module = float(sys.argv[1]), sys.argv[2]
    harness.CONNECTION_AGE_MS = round(harness.CONNECTION_AGE_MS / factor)
    client.LOOK_UP_MS = round(client.LOOK_UP_MS / factor)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__")
