# SPDX-License-Identifier: GPL-3.0-or-later
"""The Keeper of this Blender, from when the add-on is switched on until it is switched off.

The only state that is not inside an object; one document's state is in the Keeper's Document and goes with it.
"""

import traceback

_keeper = None


def keeper():
    """The Keeper; None when the add-on is off."""
    return _keeper


def begin(new):
    """Sets it."""
    global _keeper  # pylint: disable=global-statement
    _keeper = new


def end():
    """Takes it away and closes it; twice is once. An error of ours is printed: what else is to end must end."""
    global _keeper  # pylint: disable=global-statement
    old, _keeper = _keeper, None
    if old is None:
        return
    try:
        old.close()
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
