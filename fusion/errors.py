"""The one exception for mistakes a user can mend."""

from fusion.text import one_line

LONGEST = 1000


class UserError(ValueError):
    """A mistake the user can mend; the message is one line: the value, the rule, the choices or the way out.

    What a message quotes of a file may be hostile: it is kept on one line, without escapes, and cut at ``LONGEST``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, LONGEST))
