# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can do: take and give back, keep, copy, wait, reload, open and restore versions."""

import os

import bpy

from . import drive, session, versions
from .control import line
from .locks import Standing


def _document():
    keeper = session.keeper()
    return keeper.document if keeper is not None else None


class _InDrive:
    """Operators for a document in a drive."""

    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context):
        document = _document()
        return document is not None and document.place is not None


class ATELIER_OT_check_out(_InDrive, bpy.types.Operator):
    """Take this file, so that others cannot save over it"""

    bl_idname = "atelier.check_out"
    bl_label = "Check Out"

    def execute(self, _context):
        session.keeper().take()
        return {"FINISHED"}


class ATELIER_OT_give_back(_InDrive, bpy.types.Operator):
    """Let others have this file, although it stays open here"""

    bl_idname = "atelier.give_back"
    bl_label = "Give Back"

    def execute(self, _context):
        session.keeper().hand_back()
        return {"FINISHED"}


class ATELIER_OT_keep(_InDrive, bpy.types.Operator):
    """Keep this file checked out when it is closed, also for days and offline"""

    bl_idname = "atelier.keep"
    bl_label = "Keep Checked Out"

    def execute(self, _context):
        session.keeper().keep(not _document().report.kept)
        return {"FINISHED"}


class ATELIER_OT_tell_when_free(_InDrive, bpy.types.Operator):
    """Tell me when nobody else has this file any more"""

    bl_idname = "atelier.tell_when_free"
    bl_label = "Tell Me When It Is Free"

    def execute(self, _context):
        _document().awaited = not _document().awaited
        session.keeper().look()
        return {"FINISHED"}


class ATELIER_OT_save_copy_beside(_InDrive, bpy.types.Operator):
    """Save what you have in a new file beside this one, and go on there"""

    bl_idname = "atelier.save_copy_beside"
    bl_label = "Save a Copy Beside"

    def execute(self, _context):
        document = _document()
        _, name = drive.own_device(document.details.status)
        path = copy_name(os.path.join(document.place.mount, document.place.present), name)
        try:
            bpy.ops.wm.save_as_mainfile(filepath=path)
        except RuntimeError as error:
            self.report({"ERROR"}, line(str(error)))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Saved as {os.path.basename(path)}")
        return {"FINISHED"}


class ATELIER_OT_reload(_InDrive, bpy.types.Operator):
    """Load this file again, as it is in the drive now"""

    bl_idname = "atelier.reload"
    bl_label = "Reload"

    def invoke(self, context, event):
        if bpy.data.is_dirty:
            return context.window_manager.invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, _context):
        return _load(self, os.path.join(_document().place.mount, _document().place.present))


class ATELIER_OT_open_version(_InDrive, bpy.types.Operator):
    """Open this version, read-only"""

    bl_idname = "atelier.open_version"
    bl_label = "Open Version"

    version: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context, event):
        if bpy.data.is_dirty:
            return context.window_manager.invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, _context):
        version = _version(_document(), self.version)
        path, known = session.keeper().find_version(version) if version else (None, True)
        if not known:
            self.report({"WARNING"}, "The drive is still looking for this version; try again in a moment")
            return {"CANCELLED"}
        if path is None:
            self.report({"ERROR"}, "This version cannot be opened: it is not there any more")
            return {"CANCELLED"}
        return _load(self, path)


class ATELIER_OT_restore_version(_InDrive, bpy.types.Operator):
    """Make this version the file's content again. What is there now stays in the history"""

    bl_idname = "atelier.restore_version"
    bl_label = "Restore Version"

    version: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return super().poll(context) and _document().standing not in (Standing.THEIRS, Standing.PAST)

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, _context):
        version = _version(_document(), self.version)
        if version is None:
            self.report({"ERROR"}, "There is no such version")
            return {"CANCELLED"}
        session.keeper().restore(version)
        return {"FINISHED"}


class ATELIER_OT_open_copy(_InDrive, bpy.types.Operator):
    """Open this conflict copy"""

    bl_idname = "atelier.open_copy"
    bl_label = "Open Conflict Copy"

    path: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context, event):
        if bpy.data.is_dirty:
            return context.window_manager.invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, _context):
        if not versions.is_inside(self.path):
            self.report({"ERROR"}, "There is no such copy")
            return {"CANCELLED"}
        return _load(self, os.path.join(_document().place.mount, self.path))


CLASSES = (
    ATELIER_OT_check_out,
    ATELIER_OT_give_back,
    ATELIER_OT_keep,
    ATELIER_OT_tell_when_free,
    ATELIER_OT_save_copy_beside,
    ATELIER_OT_reload,
    ATELIER_OT_open_version,
    ATELIER_OT_restore_version,
    ATELIER_OT_open_copy,
)


def copy_name(path, user):
    """A name that nothing has yet: `scene (copy Bob).blend`, `scene (copy Bob 2).blend`, ..."""
    stem, extension = os.path.splitext(path)
    user = "".join(c for c in user if c.isprintable() and c not in "/\\").strip() or "mine"
    number = 1
    while True:
        tail = f" (copy {user})" if number == 1 else f" (copy {user} {number})"
        found = f"{stem}{tail}{extension or '.blend'}"
        if not os.path.lexists(found):
            return found
        number += 1


def _version(document, version):
    return next((row for row in document.details.history if row.id == version), None)


def _load(operator, path):
    try:
        bpy.ops.wm.open_mainfile(filepath=path)
    except RuntimeError as error:
        operator.report({"ERROR"}, line(str(error)))
        return {"CANCELLED"}
    return {"FINISHED"}
