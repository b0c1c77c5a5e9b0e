"""Run the command line as ``python -m fastbp``."""

import sys

from fastbp.cli import main

sys.exit(main())
