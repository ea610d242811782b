# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes between the add-on in Blender and its helper process: a length of four bytes (big-endian) and a pickle.

Both ends are this add-on, and nobody else has the pipe; nothing else is ever unpickled.

Leaves out what the messages mean ([`helper`], [`helper_main`]).

Invariant: a length is looked at before memory is asked for.
"""

import pickle
import struct

MESSAGE_LEN_MAX = 16 << 20
# Every Python from 3.8 on reads it.
_PROTOCOL = 4


class Broken(Exception):
    """What came is no message."""


def pack(message):
    """A message as bytes."""
    body = pickle.dumps(message, _PROTOCOL)
    if len(body) > MESSAGE_LEN_MAX:
        raise ValueError("a message that is too long")
    return struct.pack(">I", len(body)) + body


class Inbox:
    """Puts messages together from the pieces in which they come."""

    def __init__(self):
        self._bytes = bytearray()

    def feed(self, piece):
        """Takes a piece in and gives the messages that it completes, oldest first."""
        self._bytes += piece
        messages = []
        while len(self._bytes) >= 4:
            (length,) = struct.unpack_from(">I", self._bytes)
            if length > MESSAGE_LEN_MAX:
                raise Broken(f"a message of {length} bytes")
            if len(self._bytes) < 4 + length:
                break
            body = bytes(self._bytes[4:4 + length])
            del self._bytes[:4 + length]
            try:
                messages.append(pickle.loads(body))
            except Exception as error:  # pylint: disable=broad-except
                raise Broken(f"a message that makes no sense: {error!r}") from error
        return messages
