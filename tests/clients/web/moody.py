"""An inference service that does what the picture tells it to: a stand-in for all that can fail."""

from collections import Counter

from emojinet.v1 import inference_service_pb2 as pb
from services.shared import errors
from tests.clients.standin import Context, Standin, fail, pizza

BUSY = "1200 pictures are ahead of yours. Try again in 12 s."
BUSY_SECONDS = 12  # longer than the web program would wait itself


def picture(mood: str) -> bytes:
    """One with that mood: what tells it stands behind a JPEG's first bytes."""
    return b"\xff\xd8" + mood.encode()


class Moody:
    """Fails as the picture says: `busy` so long as `busy_times` lasts, `late`, `fault`, …"""

    def __init__(self, port: int = 0) -> None:
        self.busy_times = 1
        self.seen: Counter[str] = Counter()
        self.hostile = "<b>hostile</b>"
        self._standin = Standin(self._look, self._before, port)

    def __enter__(self) -> "Moody":
        self.address = self._standin.__enter__().address
        return self

    def __exit__(self, *_: object) -> None:
        self._standin.__exit__()

    def _before(self, number: int, context: Context) -> None:
        content = self._standin.requests[number - 1].images[0].content
        mood = content[2:].decode(errors="replace")
        self.seen[mood] += 1
        if mood == "busy" and self.seen[mood] <= self.busy_times:
            fail(context, errors.Overloaded(BUSY, retry_seconds=BUSY_SECONDS))
        if mood == "late":
            fail(context, errors.DeadlineTooShort("It takes 12 s at the least."))
        if mood == "fault":
            fail(context, errors.Internal("The log has it under 0a1b2c."))
        if mood == "hostile fault":
            fail(context, errors.Overloaded(self.hostile, retry_seconds=BUSY_SECONDS))

    def _look(self, content: bytes) -> pb.SuggestResult:
        result = pizza(content)
        if content == picture("hostile"):
            for suggestion in result.suggestions.suggestions:
                suggestion.emoji = suggestion.name = self.hostile
        return result
