"What a blind denoiser knows (Kadkhodaie et al. 2025): channel averages, their geometry, images sampled from them"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
