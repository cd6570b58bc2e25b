"""A name for a user that the system does not know, as in a container that runs under any number (`docker run -u 54321`)."""

import getpass
import os


def name_the_user() -> None:
    """Set LOGNAME if nothing tells the user's name: torch names folders by it, and would fail."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # which of them depends on Python's version and the system
        os.environ["LOGNAME"] = f"user{getattr(os, 'getuid', int)()}"
