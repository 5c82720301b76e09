"""One process of a training that several share, as torchrun starts it: `python -m tmcnet.train JOB`."""

import sys
from pathlib import Path

from tmcnet.train.launch import run_worker

if __name__ == "__main__":
    run_worker(Path(sys.argv[1]))
