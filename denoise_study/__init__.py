import warnings
from importlib.metadata import version

__version__ = version("denoise_study")

# fastai still scripts two functions when it is imported; torch says so at length each time, and users can do nothing about it
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
