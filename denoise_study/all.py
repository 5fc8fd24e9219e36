"Everything public in one import, as fastai's `all` does it: from denoise_study.all import *"
from importlib import import_module

from denoise_study import WINGS

_HOMES = {name: wing for wing in WINGS for name in import_module(f"denoise_study.{wing}").__all__}
__all__ = sorted(_HOMES)


def __getattr__(name):
    "A name from the folder that offers it, imported when it is asked for"
    if name not in _HOMES: raise AttributeError(f"denoise_study has no public name {name!r}")
    return getattr(import_module(f"denoise_study.{_HOMES[name]}"), name)
