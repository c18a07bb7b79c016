"""Execute the book's chapters with a profile of parameters, render the site, refresh the committed notebooks.

The committed notebooks in `book/` are only ever read, except by :func:`refresh`. What is executed and
rendered is a copy of the book under `_build/`.
"""

from lee.book.check import check_executed
from lee.book.execute import ChapterError, Executed, Progress, execute, prepare
from lee.book.layout import chapters, find_root, select
from lee.book.normalise import normalise, refresh
from lee.book.profiles import Profile, load_profile, plan, profiles
from lee.book.render import RenderError, render

__all__ = [
    # the three jobs
    "execute", "render", "refresh",
    # their parts
    "prepare", "plan", "normalise", "check_executed",
    "chapters", "select", "find_root", "profiles", "load_profile",
    "Profile", "Executed", "Progress", "ChapterError", "RenderError",
]  # fmt: skip
