"""The one exception that is meant for the user."""


class UsageError(Exception):
    """Something the user can mend; the message names the cause and the remedy and is shown without a traceback."""
