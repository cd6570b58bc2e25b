"""The options of trainings (training.py) and model folders (model.py), with types, ranges and defaults; common.py: what all share.

Options of samplers, methods and tests stand beside their code: `samplers/`, `methods/`, `evaluation/options.py`.
"""

from strdiffusion.config.evaluation import EvaluateConfig, load_evaluation
from strdiffusion.config.training import TrainConfig, TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.system.parser import load_config, save_config, to_dict

__all__ = [
    "EvaluateConfig",
    "TrainConfig",
    "TrainDiscriminatorConfig",
    "TrainStructureConfig",
    "TrainTextureConfig",
    "load_config",
    "load_evaluation",
    "save_config",
    "to_dict",
]
