"What knows no paper: small tools, plots, intervals, claims, images, training, files, metrics, the page of a report"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
