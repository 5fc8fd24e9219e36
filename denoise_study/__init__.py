"What does a denoiser know? Three papers on that, on the same data and with the same denoisers"
import warnings
from importlib.metadata import version

import lazy_loader

__version__ = version("denoise_study")

# fastai still scripts two functions when it is imported; torch says so at length each time, and
# users can do nothing about it
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")

WINGS = "core", "diffusion", "daed", "denoiser", "representation", "denoiserep", "study"
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, WINGS, {"study": ["load_pretrained"]})
