"""The ready-made blueprint: one URL that takes uploads, and one for each upload, whatever a client speaks."""

from .blueprint import answer_error, make_blueprint
from .whole import take_from_form

__all__ = ["answer_error", "make_blueprint", "take_from_form"]
