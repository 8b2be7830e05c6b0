"""Errors that a user can act on."""


class UserError(Exception):
    """Bad input from outside: its message is everything the user sees.

    The message says what was wrong, where, and what to do. Command-line tools print it as one `error:` line
    and leave with exit code 2; a traceback is reserved for defects of the program itself.
    """
