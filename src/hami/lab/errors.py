"""What can go wrong in the lab, said so that a person knows what to do next."""

from hami.model.errors import HamiError


class LabError(HamiError):
    """The lab cannot do what was asked; the text names the part and the way out."""


class CommandFailed(LabError):
    """A program of the lab ended with an error."""

    def __init__(self, command: str, code: int, output: str) -> None:
        self.code = code
        self.output = output
        super().__init__(f"{command} ended with {code}: {output.strip() or 'no output'}")
