"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """A mistake the user can mend; the message is one line: the value, the rule, the choices or the way out."""
