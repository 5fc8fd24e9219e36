"Package metadata for pip. Every value comes from settings.ini: edit there, not here."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
lib = cfg["lib_name"]
lines = lambda key: [line.strip() for line in cfg[key].strip().splitlines()]
readme = here / "README.md"

setup(
    name=lib,
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    keywords=cfg["keywords"].split(),
    license_expression=cfg["license"],
    classifiers=["Programming Language :: Python :: 3", "Intended Audience :: Science/Research"],
    python_requires=f">={cfg['min_python']}",
    install_requires=lines("requirements"),
    extras_require={"dev": lines("dev_requirements") + lines("docs_requirements"),
                    "docs": lines("docs_requirements"),
                    "bench": lines("bench_requirements"),
                    "hub": lines("hub_requirements")},
    packages=find_packages(include=[lib, f"{lib}.*"]),
    package_data={lib: ["pretrained_models/*.safetensors", "feature_spaces/*.safetensors",
                        "data/*.npz", "*.mplstyle", "*.css", "py.typed", "**/*.pyi"]},
    entry_points={"nbdev": [f"{lib}={lib}._modidx:d"], "console_scripts": lines("console_scripts")},
)
