"""Errors a user can act on."""


class UserError(Exception):
    """Something the user gave is wrong: a file, an option, a checkpoint.

    The message is one line that says what is wrong, where, and what to do about it. The command line prints
    it without a traceback and exits with status 2.
    """
