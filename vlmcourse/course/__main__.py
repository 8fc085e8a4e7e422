"""`python -m vlmcourse.course` is the command `vlmcourse`, also where the script is not on the PATH."""

import sys

from vlmcourse.course.cli import main

if __name__ == "__main__":
    sys.exit(main())
