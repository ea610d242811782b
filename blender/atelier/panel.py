# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel in the 3D view's sidebar, the lines in the File menu and in the status bar.

Shows what the Keeper knows; asks nobody. Leaves out the banner.
"""

import bpy

from . import session
from .keeper import short, when
from .locks import Standing
from .versions import SHOWN_MAX


def standing_line(document):
    """How the document stands, as a text and an icon."""
    holding = document.report.holding
    return {
        Standing.MINE: ("Checked out by you", "CHECKMARK"),
        Standing.THEIRS: (f"{holding.holder} has it", "LOCKED"),
        Standing.FREE: ("Nobody has it", "UNLOCKED"),
        Standing.PAST: ("An old version, read-only", "TIME"),
        Standing.ASKING: ("Asking the drive...", "SORTTIME"),
        Standing.UNKNOWN: ("The drive does not answer", "ERROR"),
        Standing.OUTSIDE: ("Not in a drive", "BLANK1"),
    }[holding.standing]


def lines_below(holding):
    """What else there is to say of how it stands."""
    if holding.since:
        yield f"since {when(holding.since)}"
    missing = holding.row.unreachable if holding.row else 0
    if missing:
        yield f"{missing} {'device' if missing == 1 else 'devices'} could not be asked"
    if holding.reason:
        yield holding.reason


def safety_line(document):
    """Whether the computer may be switched off, as a text and an icon."""
    status = document.details.status
    if status.get("safe_to_close") is True:
        return "Safe to close", "CHECKMARK"
    if status.get("safe_to_close") is False:
        left = status.get("to_send_bytes")
        amount = f": {size(left)} to send" if isinstance(left, int) and left > 0 else ""
        return f"Not safe to close{amount}", "ERROR"
    return "", "BLANK1"


def size(count):
    """Bytes as people read them."""
    amount, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


class _Panel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Atelier"

    @classmethod
    def poll(cls, _context):
        return session.keeper() is not None


class ATELIER_PT_document(_Panel, bpy.types.Panel):
    """Who has this file."""

    bl_label = "Atelier"
    bl_idname = "ATELIER_PT_document"

    def draw(self, _context):
        layout, keeper = self.layout, session.keeper()
        document = keeper.document
        if document is None or document.standing is Standing.OUTSIDE:
            layout.label(text="This file is in no drive")
            return
        keeper.being_seen()
        report = document.report
        text, icon = standing_line(document)
        row = layout.row()
        row.alert = report.holding.standing is Standing.THEIRS
        row.label(text=text, icon=icon)
        for text in lines_below(report.holding):
            layout.label(text=text)
        for name in report.holding.also:
            layout.label(text=f"{name} has it open", icon="HIDE_OFF")
        if not report.alone:
            layout.label(text="Also open in another Blender here", icon="ERROR")
        if report.newer is not None:
            layout.label(text=f"{report.newer.author} saved a newer version", icon="ERROR")
            layout.operator("atelier.reload", icon="FILE_REFRESH")
        text, icon = safety_line(document)
        if text:
            layout.label(text=text, icon=icon)
        if document.busy:
            layout.label(text=document.busy, icon="SORTTIME")
        self._actions(layout, document)

    def _actions(self, layout, document):
        standing = document.standing
        if standing is Standing.MINE:
            layout.operator("atelier.keep", depress=document.report.kept,
                            icon="CHECKBOX_HLT" if document.report.kept else "CHECKBOX_DEHLT")
            layout.operator("atelier.give_back", icon="UNLOCKED")
        elif standing is Standing.FREE:
            layout.operator("atelier.check_out", icon="CHECKMARK")
        elif standing is Standing.THEIRS:
            layout.operator("atelier.save_copy_beside", icon="DUPLICATE")
            layout.operator("atelier.tell_when_free", depress=document.awaited, icon="TIME")
        elif standing is Standing.PAST:
            layout.operator("atelier.save_copy_beside", icon="DUPLICATE")
            layout.operator("atelier.reload", text="Back to the File", icon="LOOP_BACK")


class ATELIER_PT_conflicts(_Panel, bpy.types.Panel):
    """Copies beside this file."""

    bl_label = "Conflict Copies"
    bl_idname = "ATELIER_PT_conflicts"
    bl_parent_id = "ATELIER_PT_document"

    @classmethod
    def poll(cls, _context):
        keeper = session.keeper()
        return bool(keeper is not None and keeper.document is not None and keeper.document.details.copies)

    def draw(self, _context):
        for copy in session.keeper().document.details.copies:
            row = self.layout.row()
            row.label(text=f"{copy.author}, {short(copy.time)}", icon="ERROR")
            row.operator("atelier.open_copy", text="", icon="FILE_FOLDER").path = copy.path
        self.layout.label(text="Keep or delete them like files")


class ATELIER_PT_versions(_Panel, bpy.types.Panel):
    """Versions of this file."""

    bl_label = "Versions"
    bl_idname = "ATELIER_PT_versions"
    bl_parent_id = "ATELIER_PT_document"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, _context):
        keeper = session.keeper()
        return bool(keeper is not None and keeper.document is not None and keeper.document.details.history)

    def draw(self, _context):
        history = session.keeper().document.details.history
        for version in history[:SHOWN_MAX]:
            row = self.layout.row(align=True)
            icon = "RADIOBUT_ON" if version.official else "RADIOBUT_OFF"
            row.label(text=f"{version.author}, {short(version.time)}", icon=icon)
            sub = row.row(align=True)
            sub.enabled = not version.gone
            sub.operator("atelier.open_version", text="", icon="FILE_FOLDER").version = version.id
            again = sub.row(align=True)
            again.enabled = not version.official
            again.operator("atelier.restore_version", text="", icon="LOOP_BACK").version = version.id
        if len(history) > SHOWN_MAX:
            self.layout.label(text=f"and {len(history) - SHOWN_MAX} older ones in .history")


def in_file_menu(menu, _context):
    """Adds to the File menu."""
    keeper = session.keeper()
    document = keeper.document if keeper is not None else None
    if document is None or document.place is None:
        return
    menu.layout.separator()
    text, icon = standing_line(document)
    menu.layout.label(text=f"Atelier: {text}", icon=icon)
    if document.standing in (Standing.THEIRS, Standing.PAST):
        menu.layout.operator("atelier.save_copy_beside", icon="DUPLICATE")


def in_bar(header, _context):
    """Adds to the status bar."""
    keeper = session.keeper()
    document = keeper.document if keeper is not None else None
    if document is None or document.place is None:
        return
    text, icon = standing_line(document)
    row = header.layout.row()
    row.alert = document.standing is Standing.THEIRS
    row.label(text=f"{document.name}: {text}", icon=icon)


CLASSES = (ATELIER_PT_document, ATELIER_PT_conflicts, ATELIER_PT_versions)
_PLACES = (("TOPBAR_MT_file", in_file_menu), ("STATUSBAR_HT_header", in_bar))


def register():
    """Adds the lines outside the panel."""
    for name, draw in _PLACES:
        getattr(bpy.types, name).append(draw)


def unregister():
    """Takes them away."""
    for name, draw in _PLACES:
        getattr(bpy.types, name).remove(draw)
