"""A user's model made measurable: what goes in and comes out is checked, it is one function, and it is left as it was.

`checks` looks at inputs and outputs, `reach` finds the modules behind a callable, `state` keeps and restores them,
`function` makes one function of them and `looking` finds out whether it is one; `reference` takes differences of its values,
`judgement` says whether a derivative agrees with them, `verification` tries ways until one does, and `pushing` takes derivatives
in the way that was verified.
"""

from lee.measuring.checks import OUTPUTS, Output, check_input, check_output_name, plain, select
from lee.measuring.function import Function, one_function, untouched
from lee.measuring.judgement import Verification
from lee.measuring.looking import look
from lee.measuring.pushing import Pushing, push
from lee.measuring.reach import reached
from lee.measuring.reference import generic
from lee.measuring.verification import Way, verified

__all__ = [
    "OUTPUTS", "Function", "Output", "Pushing", "Verification", "Way", "check_input", "check_output_name", "generic", "look",
    "one_function", "plain", "push", "reached", "select", "untouched", "verified",
]  # fmt: skip
