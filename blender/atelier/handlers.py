# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender tells: files loaded and saved, time passing, the end.

Leaves out what is done about it ([`keeper`]). An error here must not reach Blender's own loading and saving: it is
printed and the add-on goes on.

Invariant: only the main file counts. Blender tells nothing here of libraries, and nothing looks for them.
"""

import atexit
import functools
import time
import traceback

import bpy
from bpy.app.handlers import persistent

from . import helper, preferences, session

TICK_S = 0.5
# How long a helper may take to end after the add-on did: what it was asked for, and then some.
LATE_S = 60.0


def _harmless(function):
    @functools.wraps(function)
    def wrapped(*_):
        try:
            return function()
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            return None

    return wrapped


@persistent
@_harmless
def on_load():
    """A file was loaded, or a new one begun."""
    if session.keeper() is not None and preferences.wanted():
        session.keeper().opened(bpy.data.filepath)


@persistent
@_harmless
def on_save():
    """The file was saved, perhaps under another name; a saved copy leaves the name as it is."""
    if session.keeper() is not None and preferences.wanted() and bpy.data.filepath:
        session.keeper().saved(bpy.data.filepath)


@persistent
@_harmless
def on_tick():
    """Time passes."""
    if session.keeper() is None:
        return None
    if not _is_locked():
        session.keeper().tick()
    return TICK_S


@_harmless
def on_start():
    """The add-on was switched on while a file was open."""
    if session.keeper() is not None and session.keeper().document is None:
        on_load()


def _is_locked():
    """Whether a render forbids timers to touch anything."""
    return any(manager.is_interface_locked for manager in bpy.data.window_managers)


_HANDLERS = (("load_post", on_load), ("save_post", on_save))


def register():
    """Begins to listen."""
    for name, handler in _HANDLERS:
        getattr(bpy.app.handlers, name).append(handler)
    bpy.app.timers.register(on_tick, first_interval=TICK_S, persistent=True)
    # While add-ons are being switched on, bpy.data is closed to them.
    bpy.app.timers.register(on_start, first_interval=0.0)
    atexit.register(session.end)


def unregister():
    """Listens no more."""
    atexit.unregister(session.end)
    for timer in (on_tick, on_start):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
    for name, handler in _HANDLERS:
        handlers = getattr(bpy.app.handlers, name)
        if handler in handlers:
            handlers.remove(handler)


def see_off():
    """After all else has ended: looks after a helper that takes longer, or it would stay a zombie; LATE_S at most."""
    deadline = time.monotonic() + LATE_S

    @_harmless
    def on_late():
        return TICK_S if helper.reap() and time.monotonic() < deadline else None

    if helper.reap():
        bpy.app.timers.register(on_late, first_interval=TICK_S, persistent=True)
