"""`python -m seqcl` is the same as the console command `seqcl`."""

import sys

from seqcl.cli.main import main

sys.exit(main())
