import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MODELS = ("weights/benchmark", "weights/photographs")  # the default of the commands, and of those that learn: 15 MB


class WithModel(build_py):
    """A wheel holds the default models, too: installed by `pip install .`, the program works outside of its checkout."""

    def run(self):
        super().run()
        for model in () if getattr(self, "editable_mode", False) else filter(Path.exists, map(Path, MODELS)):
            ignored = shutil.ignore_patterns("training")
            shutil.copytree(model, Path(self.build_lib) / "strdiffusion" / model, ignore=ignored, dirs_exist_ok=True)


setup(
    name="strdiffusion",
    version="0.1.0",
    description="Structure-guided diffusion for image inpainting: a reproduction of StrDiffusion (CVPR 2024)",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["strdiffusion", "strdiffusion.*"]),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pyyaml>=6.0",
        "scikit-image>=0.22",
        "safetensors>=0.4.3",
        "pillow>=10.4",
        "lpips>=0.1.4",
        "torch-fidelity>=0.4",
        "tensorboard>=2.14",
        "tqdm>=4.65",
        "matplotlib>=3.8",
    ],
    entry_points={"console_scripts": ["strdiffusion=strdiffusion.commands.main:main"]},
    extras_require={"test": ["pytest>=7.4", "pytest-xdist>=3.5", "hypothesis>=6.100"], "web": ["gradio>=6.31"]},
    cmdclass={"build_py": WithModel},
    package_data={"strdiffusion.app.web": ["*.html", "*.js", "*.css"]},
)
