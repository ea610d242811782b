# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be overlooked: a strip at the top of every 3D view while the file cannot be saved, and pop-ups.

Leaves out when there is something to tell ([`keeper`]).
"""

import functools

import bpy

from . import session
from .keeper import when
from .locks import Standing

_RED = (0.55, 0.08, 0.08, 0.92)
_AMBER = (0.55, 0.35, 0.02, 0.92)
_ICONS = {
    "atelier.save_copy_beside": "DUPLICATE",
    "atelier.tell_when_free": "TIME",
    "atelier.reload": "FILE_REFRESH",
    "atelier.check_out": "CHECKMARK",
}


def strip(document):
    """The banner's text and colour; None when there is none."""
    if document is None or document.place is None:
        return None
    holding = document.report.holding
    if holding.standing is Standing.THEIRS:
        since = f" since {when(holding.since)}" if holding.since else ""
        return f"{holding.holder} has {document.name}{since}: you cannot save it under this name", _RED
    if holding.standing is Standing.PAST:
        return f"This is an old version of {document.name}: save a copy to work on it", _AMBER
    newer = document.report.newer
    if newer is not None:
        return f"{newer.author} has saved a newer {document.name}: reload, or your save becomes a copy", _AMBER
    return None


def draw():
    """Draws the strip into the region that is being drawn."""
    keeper = session.keeper()
    found = strip(keeper.document if keeper is not None else None)
    if found is None:
        return
    import blf  # pylint: disable=import-outside-toplevel
    import gpu  # pylint: disable=import-outside-toplevel
    from gpu_extras.batch import batch_for_shader  # pylint: disable=import-outside-toplevel

    text, colour = found
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    height, size = 26 * scale, 13 * scale
    # Below the header, which is drawn over the region.
    top = region.height - 26 * scale
    corners = ((0, top - height), (region.width, top - height), (region.width, top), (0, top))
    shader = gpu.shader.from_builtin("UNIFORM_COLOR" if bpy.app.version >= (4, 0, 0) else "2D_UNIFORM_COLOR")
    batch = batch_for_shader(shader, "TRIS", {"pos": corners}, indices=((0, 1, 2), (2, 3, 0)))
    gpu.state.blend_set("ALPHA")
    shader.bind()
    shader.uniform_float("color", colour)
    batch.draw(shader)
    gpu.state.blend_set("NONE")
    if bpy.app.version >= (4, 0, 0):
        blf.size(0, size)
    else:
        blf.size(0, size, 72)
    blf.color(0, 1.0, 1.0, 1.0, 1.0)
    width, _ = blf.dimensions(0, text)
    blf.position(0, max(8 * scale, (region.width - width) / 2), top - height + 8 * scale, 0)
    blf.draw(0, text)


def tell(message):
    """Shows a pop-up; without a window, a line on the console."""
    if bpy.app.background:
        print("Atelier:", " ".join((f"{message.title}.", *message.lines)), flush=True)
        return
    # Not in the middle of loading a file.
    bpy.app.timers.register(functools.partial(_pop_up, message), first_interval=0.1, persistent=True)


def _pop_up(message):
    windows = bpy.context.window_manager.windows
    if not windows:
        return

    def fill(menu, _context):
        for text in message.lines:
            menu.layout.label(text=text)
        for offer in message.offers:
            # Operators that ask first must be invoked.
            menu.layout.operator_context = "INVOKE_DEFAULT"
            menu.layout.operator(offer, icon=_ICONS.get(offer, "NONE"))

    with bpy.context.temp_override(window=windows[0]):
        bpy.context.window_manager.popup_menu(fill, title=message.title, icon="ERROR" if message.warning else "INFO")


def redraw():
    """Draws what shows the state anew."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "TOPBAR", "STATUSBAR"}:
                area.tag_redraw()


class Banner:
    """The strip, for as long as the add-on is on."""

    def __init__(self):
        self._handler = bpy.types.SpaceView3D.draw_handler_add(draw, (), "WINDOW", "POST_PIXEL")

    def remove(self):
        """Takes it away."""
        if self._handler is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handler, "WINDOW")
            self._handler = None
