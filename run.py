"""Train and evaluate a recommender: `python run.py --model CL4Rec`, the same as `seqcl train`."""

import sys

from seqcl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
