"""Live loss streams over Redis: `Publisher` in a worker, `StreamHub` in a server process.

Redis carries copies; the database has everything that matters, at the latest `curve_flush_seconds` later. So Redis may
be away, restart empty or trim a stream: clients then get the same events a little later, none lost and none twice.
Sequences count without gaps within an attempt, which is how a reader notices that something is missing.
"""

from app.streams.hub import StreamHub
from app.streams.publisher import Publisher
from app.streams.wire import stream_key

__all__ = ["Publisher", "StreamHub", "stream_key"]
