"""The one error type of the compiler and its renderer.

Every failure a user can meet is a `Diagnostic` carried by a `ConversionError`. The command line prints it and exits
with 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnostic:
    """What went wrong, where, and what to do about it.

    Args:
        code: kebab-case name of the kind of error, such as `unsupported-op`.
        message: one sentence.
        location: the user's own place: `file:line  (class, module path)`, a file name, a config field; may be empty.
        excerpt: IR or source lines shown under the location.
        hint: what the user can do.
    """

    code: str
    message: str
    location: str = ""
    excerpt: str = ""
    hint: str = ""

    def render(self) -> str:
        """The diagnostic as the command line prints it."""
        lines = [f"error[{self.code}]: {self.message}"]
        if self.location:
            lines.append(f"  --> {self.location}")
        lines += [f"   |  {line}" for line in self.excerpt.splitlines()]
        lines += [f"   = {line}" for line in self.hint.splitlines()]
        return "\n".join(lines)


class ConversionError(Exception):
    """A conversion that cannot go on; carries one or more diagnostics."""

    def __init__(self, *diagnostics: Diagnostic):
        super().__init__("\n".join(d.render() for d in diagnostics))
        self.diagnostics = diagnostics

    def __reduce__(self):
        return ConversionError, self.diagnostics


def fail(code: str, message: str, **details: str) -> ConversionError:
    """A `ConversionError` of one diagnostic, to be raised by the caller."""
    return ConversionError(Diagnostic(code, message, **details))
