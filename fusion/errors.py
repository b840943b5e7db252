"""The exceptions for what a user can mend."""

import errno
import os

from fusion.text import one_line

LONGEST = 1000
"""Characters of a message."""
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES)
FULL = tuple(os.strerror(code) for code in CODES)
"""How the system words that nothing more can be written."""


class UserError(ValueError):
    """A mistake the user can mend; the message is one line: the value, the rule, the choices or the way out.

    What a message quotes of a file may be hostile: it is kept on one line, without escapes, and cut at ``LONGEST``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, LONGEST))


class DiskError(UserError):
    """A file can't be written, and the next one could not be either: who works through a list ends here."""


def disk_fault(error: Exception) -> str:
    """Return why ``error`` means that nothing can be written, or nothing where it doesn't.

    Writers in other languages (safetensors, ONNX Runtime, PyTorch) have errors of their own that cite the system's.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return next((text for text in FULL if text in str(error)), "")
