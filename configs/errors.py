"""The one exception that is meant for the user, and how a program shows it."""

import os
import sys
from collections.abc import Callable


class UsageError(Exception):
    """Something the user can mend; the message names the cause and the remedy and is shown without a traceback."""


def as_program(name: str, main: Callable[[list[str]], None], interrupted: str) -> None:
    """Run a program's `main` on the command line's words; what the user can mend becomes one line and a status.

    Args:
        name: The program's, before its messages.
        main: Takes the words after the program's name.
        interrupted: What a Ctrl-C that `main` did not take means for the user.
    """
    try:
        main(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; {interrupted}")
    except BrokenPipeError:
        sys.exit(1)  # whoever read what is printed has gone, as with `--help | head`
    finally:
        _flush()


def _flush() -> None:
    """Write out what was printed; where nobody reads it, let it go, or Python would complain as the program ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
