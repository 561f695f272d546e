"""The one error that a user's mistake raises: a sentence, never a traceback."""


class UserError(ValueError):
    """Say what was given, what was expected and what to do, in one sentence.

    Command lines print the message and exit with status 2. Notebooks show the message alone,
    because IPython asks the exception itself how it wants to be drawn.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
