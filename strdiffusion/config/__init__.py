"""Configuration: schema.py holds every option, parser.py reads YAML and overrides into it."""

from strdiffusion.config.evaluation import EvaluateConfig, load_evaluation
from strdiffusion.config.parser import load_config, save_config, to_dict
from strdiffusion.config.schema import (
    TestConfig,
    TrainConfig,
    TrainDiscriminatorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
)

__all__ = [
    "EvaluateConfig", "TestConfig", "TrainConfig", "TrainDiscriminatorConfig", "TrainStructureConfig", "TrainTextureConfig",
    "load_config", "load_evaluation", "save_config", "to_dict",
]  # fmt: skip
