"""Configuration: every option with its type, range and default, and parser.py, which reads YAML and overrides into them.

common.py: what all share; training.py, testing.py, evaluation.py, tables.py: the options of each script.
"""

from strdiffusion.config.evaluation import EvaluateConfig, load_evaluation
from strdiffusion.config.testing import TestConfig
from strdiffusion.config.training import TrainConfig, TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.system.parser import load_config, save_config, to_dict

__all__ = [
    "EvaluateConfig",
    "TestConfig",
    "TrainConfig",
    "TrainDiscriminatorConfig",
    "TrainStructureConfig",
    "TrainTextureConfig",
    "load_config",
    "load_evaluation",
    "save_config",
    "to_dict",
]
