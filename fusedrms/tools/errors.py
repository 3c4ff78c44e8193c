"""The error that commands report."""


class UserError(Exception):
    """What a command was asked for cannot be done; its text is for the user."""
