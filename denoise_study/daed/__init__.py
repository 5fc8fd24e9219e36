"A diffusion model as a generator and a denoiser (Deja et al. 2022): where is the switch, and what does a split cost?"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
