"""What code shows: text and displays, within the limit on both together."""

import codecs

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.event_log import EventLog

# One event of output or display for so many bytes of `output_bytes`, and a thousand for the smallest.
_BYTES_PER_PIECE, _LEAST_PIECES = 128, 1000
_DISPLAYS = {
    "display_data": pb.Display.DISPLAY_DATA,
    "update_display_data": pb.Display.UPDATE_DISPLAY_DATA,
    "execute_result": pb.Display.EXECUTE_RESULT,
    "clear_output": pb.Display.CLEAR_OUTPUT,
}
_STREAMS = {"stdout": pb.Output.STDOUT, "stderr": pb.Output.STDERR}


class Shown:
    """Turns output and displays into events, and cuts what is above the limit.

    Args:
        limit: Most bytes of all of them (`output_bytes`).
        log: Where the events go.
    """

    def __init__(self, limit: int, log: EventLog) -> None:
        self._limit = limit
        self._log = log
        self._bytes = self._cut = 0
        self._pieces_left = _LEAST_PIECES + limit // _BYTES_PER_PIECE
        # Messages and descriptors are streams of bytes of their own, in which a character may be cut in two.
        self._decoders = {
            (name, source): codecs.getincrementaldecoder("utf-8")("replace")
            for name in _STREAMS
            for source in ("message", "descriptor")
        }

    def output(self, stream: str, data: bytes, source: str = "message") -> None:
        """The code wrote to a stream. Raises KeyError when there is no such stream."""
        kind, decoder = _STREAMS[stream], self._decoders[stream, source]
        left = self._limit - self._bytes
        if self._cut or len(data) > left:
            # Nothing after the first cut, so that it is at one place.
            kept = 0 if self._cut else left
            self._cut += len(data) - kept
            data = data[:kept]
        self._bytes += len(data)
        text = decoder.decode(data)
        if not text:
            return
        if not self._log.has_room_for_text(kind):
            if self._pieces_left <= 0:
                self._cut += len(data)
                return
            self._pieces_left -= 1
        self._log.add_text(kind, text)

    def display(self, kind: str, body: bytes) -> None:
        """The code displayed something. Raises KeyError or ValueError when it makes no sense."""
        known = _DISPLAYS[kind]
        if self._cut or len(body) > self._limit - self._bytes or self._pieces_left <= 0:
            self._cut += max(1, len(body))
            return
        self._bytes += len(body)
        self._pieces_left -= 1
        self._log.emit(display=pb.Display(kind=known, content_json=body.decode()))

    def notice(self) -> pb.LimitNotice | None:
        """That something was cut, if it was."""
        if not self._cut:
            return None
        message = f"output was cut: {self._cut:,} bytes above output_bytes={self._limit:,}"
        if self._pieces_left <= 0:
            message += ", which also bounds the number of displays and changes between streams"
        return pb.LimitNotice(limit="output_bytes", message=message)
