# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation with a drive's daemon over its control socket.

A frame is a length of four bytes (big-endian) and that many bytes of JSON. Both sides say Hello first; then each
request is answered by any number of Progress and one Answer or Failed.

Leaves out which socket, and what answers mean.

Invariants:
- nothing waits for ever: connecting, greeting and answering each have one deadline, which trickling bytes do not move;
- a length is looked at before memory is asked for;
- whatever comes from the other end, the only exception that leaves this module is a ControlError.
"""

import json
import os
import socket
import struct
import time

PROTOCOL = 1
FRAME_LEN_MAX = 16 << 20
CONNECT_S = 1.0
ANSWER_S = 5.0
# Longest path that fits into a Unix socket's address, bytes.
SOCKET_PATH_MAX = 107
# The daemon's number for "a role or a lock does not allow it".
CODE_REFUSED = 5


class ControlError(Exception):
    """The daemon could not be asked, or did not do what was asked."""


class Gone(ControlError):
    """Nobody listens, or the connection ended."""


class Silent(ControlError):
    """No answer in time."""


class Foreign(ControlError):
    """Whoever answers speaks something else, or is another user."""


class Failed(ControlError):
    """The daemon answered that it did not do it."""

    def __init__(self, code, cause, remedy):
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.remedy = remedy

    @property
    def refused(self):
        """Whether a lock or a role is in the way."""
        return self.code == CODE_REFUSED


class Client:
    """One open conversation; for one thread, but for `shut`."""

    def __init__(self, path, connect_s=CONNECT_S):
        self._socket = _connect(path, connect_s)
        try:
            self._greet(time.monotonic() + connect_s)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the conversation."""
        self._socket.close()

    def shut(self):
        """Ends it from another thread: whoever waits for an answer gets Gone."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def ask(self, request, answer, answer_s=ANSWER_S):
        """Asks; gives the value of the answer of that name. Each progress renews the deadline, 100 times at most."""
        self._write(request, time.monotonic() + answer_s)
        for _ in range(100):
            say, value = self._reply(time.monotonic() + answer_s)
            if say == "progress":
                continue
            if say == "answer" and isinstance(value, dict) and value.get("answer") == answer:
                return value.get("value")
            raise Foreign("the daemon's answer makes no sense")
        raise Silent("the daemon goes on for too long")

    def _greet(self, deadline):
        try:
            self._write({"protocol": PROTOCOL}, deadline)
        except Gone:
            # A full daemon says so and closes without listening to us: its word counts more.
            pass
        say, value = self._reply(deadline)
        if say != "hello" or not isinstance(value, dict):
            raise Foreign("the daemon's first word makes no sense")
        if value.get("protocol") != PROTOCOL:
            raise Foreign("the daemon speaks another version of the protocol")

    def _reply(self, deadline):
        reply = self._read(deadline)
        if not isinstance(reply, dict):
            raise Foreign("the daemon's word makes no sense")
        say, value = reply.get("say"), reply.get("value")
        if say == "failed":
            value = value if isinstance(value, dict) else {}
            code = value.get("code")
            raise Failed(code if isinstance(code, int) else 0, line(value.get("cause")) or "the daemon failed",
                         line(value.get("remedy")))
        return say, value

    def _write(self, value, deadline):
        try:
            body = json.dumps(value).encode("ascii")
        except ValueError as error:
            raise Foreign("this cannot be said") from error
        if len(body) > FRAME_LEN_MAX:
            raise Foreign("this is too long to be said")
        try:
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(struct.pack(">I", len(body)) + body)
        except TimeoutError as error:
            raise Silent("the daemon does not listen") from error
        except OSError as error:
            raise Gone(f"the daemon has gone: {error}") from error

    def _read(self, deadline):
        (length,) = struct.unpack(">I", self._bytes(4, deadline))
        if length > FRAME_LEN_MAX:
            raise Foreign(f"the daemon announces {length} bytes")
        try:
            return json.loads(self._bytes(length, deadline))
        except (ValueError, RecursionError) as error:
            raise Foreign("the daemon's word is no JSON") from error

    def _bytes(self, count, deadline):
        got = bytearray()
        while len(got) < count:
            try:
                self._socket.settimeout(_left(deadline))
                more = self._socket.recv(min(count - len(got), 1 << 16))
            except TimeoutError as error:
                raise Silent("the daemon does not answer in time") from error
            except OSError as error:
                raise Gone(f"the daemon has gone: {error}") from error
            if not more:
                raise Gone("the daemon has gone")
            got += more
        return bytes(got)


def line(value, length=200):
    """A text from elsewhere as one short line; anything else is empty."""
    if not isinstance(value, str):
        return ""
    text = "".join(c if c.isprintable() else " " for c in value[: 2 * length]).strip()
    return text if len(text) <= length else text[: length - 3] + "..."


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(path, connect_s):
    if not hasattr(socket, "AF_UNIX"):
        raise Gone("this system has no Unix sockets")
    raw = os.fsencode(path)
    folder = None
    try:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise Gone(f"no socket: {error}") from error
    try:
        if len(raw) > SOCKET_PATH_MAX:
            # The folder is opened and the socket named through its descriptor.
            folder = os.open(os.path.dirname(raw), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            raw = b"/proc/self/fd/%d/%s" % (folder, os.path.basename(raw))
        stream.settimeout(connect_s)
        stream.connect(raw)
        if _uid_of(stream) != os.geteuid():
            raise Foreign("the drive's daemon is another user's")
        return stream
    except TimeoutError as error:
        stream.close()
        raise Silent("the daemon does not take the call") from error
    except (OSError, ValueError) as error:
        stream.close()
        raise Gone(f"no daemon listens: {error}") from error
    except Foreign:
        stream.close()
        raise
    finally:
        if folder is not None:
            os.close(folder)


def _uid_of(stream):
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1]
